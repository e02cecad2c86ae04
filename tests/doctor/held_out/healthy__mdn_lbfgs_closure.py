import math
import torch

torch.manual_seed(0)
# inverse problem: several x for one y
x = torch.rand(300, 1)
y = x + 0.3 * torch.sin(2 * math.pi * x) + 0.05 * torch.randn(300, 1)
inp, out = (y - y.mean()) / y.std(), (x - 0.5) * 3
K = 4

net = torch.nn.Sequential(torch.nn.Linear(1, 20), torch.nn.Tanh(), torch.nn.Linear(20, 3 * K))
with torch.no_grad():
    net[-1].bias[K:2 * K] = torch.linspace(-1.2, 1.2, K)


def nll(i, o):
    logw, mu, raw = net(i).chunk(3, dim=1)
    s = torch.nn.functional.softplus(raw) + 0.03
    comp = -0.5 * ((o - mu) / s) ** 2 - s.log() - 0.5 * math.log(2 * math.pi)
    return -torch.logsumexp(logw.log_softmax(1) + comp, dim=1).mean()


warm = torch.optim.Adam(net.parameters(), lr=1e-2)
for _ in range(150):
    pick = torch.randint(0, 300, (64,))
    warm.zero_grad()
    l = nll(inp[pick], out[pick])
    l.backward()
    warm.step()
print("after Adam", nll(inp, out).item())

opt = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=8, history_size=10, line_search_fn="strong_wolfe")
trace = []


def closure():
    opt.zero_grad()
    obj = nll(inp, out) + 1e-4 * sum(p.square().sum() for p in net.parameters())
    obj.backward()
    trace.append(obj.item())
    return obj


for r in range(60):
    opt.step(closure)
    if r % 15 == 0:
        print(r, "evaluations", len(trace), "objective", trace[-1])
with torch.no_grad():
    w, mu, _ = net(torch.zeros(1, 1)).chunk(3, 1)
print("modes at 0:", mu.tolist(), w.softmax(1).tolist())
