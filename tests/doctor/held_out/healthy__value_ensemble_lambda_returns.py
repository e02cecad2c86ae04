import numpy as np
import torch

torch.manual_seed(6)
rs = np.random.RandomState(6)
M, HID = 5, 24          # five heads trained together by batched matmul


class Members(torch.nn.Module):
    def __init__(self, n_in):
        super().__init__()
        def w(i, o):
            return torch.nn.Parameter(torch.randn(M, i, o) / i ** 0.5)
        self.W1, self.W2, self.W3 = w(n_in, HID), w(HID, HID), w(HID, 1)
        self.b1 = torch.nn.Parameter(torch.zeros(M, 1, HID))
        self.b2 = torch.nn.Parameter(torch.zeros(M, 1, HID))
        self.b3 = torch.nn.Parameter(torch.zeros(M, 1, 1))

    def __call__(self, x):                         # [T, n_in] -> [M, T]
        h = torch.tanh(x @ self.W1 + self.b1)
        h = torch.tanh(h @ self.W2 + self.b2)
        return (h @ self.W3 + self.b3)[..., 0]


def random_walk(length=15):
    """continuous walk on [-1, 1], pays the position where it leaves; returns a dict of lists"""
    log = dict(state=[], pay=[], left=[])
    x = rs.uniform(-0.8, 0.8)
    while True:
        log["state"].append([x, x * x, np.sin(3 * x)])
        x += 0.2 * rs.randn() + 0.02
        out = abs(x) > 1
        log["pay"].append(float(np.sign(x)) if out else 0.0)
        log["left"].append(out)
        if out:
            return log


net = Members(3)
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for it in range(300):
    logs = [random_walk() for _ in range(4)]
    loss, n = 0.0, 0
    for log in logs:
        S = torch.tensor(log["state"], dtype=torch.float32)
        v = net(S)
        with torch.no_grad():
            tail = torch.cat([v[:, 1:], torch.zeros(M, 1)], 1)   # the walk ends by really ending
            pay = torch.tensor(log["pay"])
            G = torch.empty_like(v)
            g = torch.zeros(M)
            for t in reversed(range(len(pay))):
                g = pay[t] + (0.2 * tail[:, t] + 0.8 * g if t < len(pay) - 1 else 0.0)
                G[:, t] = g
        mask = (torch.rand(M, 1) < 0.8).float()                # bootstrap over episodes
        loss = loss + (mask * (v - G) ** 2).sum()
        n += v.numel()
    loss = loss / n
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 60 == 0:
        print(it, loss.item())
with torch.no_grad():
    x = torch.linspace(-0.9, 0.9, 7)
    p = net(torch.stack([x, x * x, torch.sin(3 * x)], 1))
print("mean", p.mean(0).tolist(), "spread", p.std(0).mean().item())
