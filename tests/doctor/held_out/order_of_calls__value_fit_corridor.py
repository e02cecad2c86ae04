import numpy as np
import torch

# Monte-Carlo value estimation on a noisy corridor: walk from the left to the right end

rng = np.random.default_rng(7)
torch.manual_seed(7)
L = 10.0


def episode():
    x, xs, rs = 0.5, [], []
    while 0.0 < x < L and len(xs) < 200:
        xs.append(x)
        x = x + 0.35 + rng.normal(0, 0.6)
        rs.append(1.0 if x >= L else -0.02)
    return xs, rs


def returns(rs, g=0.97):
    acc, res = 0.0, []
    for r in rs[::-1]:
        acc = r + g * acc
        res.insert(0, acc)
    return res


states, targets = [], []
for _ in range(150):
    xs, rs = episode()
    states.extend(xs)
    targets.extend(returns(rs))
states = torch.tensor(states, dtype=torch.float32).unsqueeze(1) / L
targets = torch.tensor(targets, dtype=torch.float32).unsqueeze(1)
print("samples", len(states), "mean return", targets.mean().item())

net = torch.nn.Sequential(torch.nn.Linear(1, 40), torch.nn.Tanh(), torch.nn.Linear(40, 40), torch.nn.Tanh(), torch.nn.Linear(40, 1))
optim = torch.optim.RMSprop(net.parameters(), lr=1e-3)
sched = torch.optim.lr_scheduler.StepLR(optim, step_size=400, gamma=0.5)


def fit(batch, goal):
    guess = net(batch)
    loss = ((guess - goal) ** 2).mean()
    loss.backward()
    optim.zero_grad()  # expect: order-of-calls
    optim.step()
    sched.step()
    return loss.item()


curve = []
for it in range(900):
    idx = torch.from_numpy(rng.integers(0, len(states), 128))
    curve.append(fit(states[idx], targets[idx]))
    if it % 150 == 149:
        print(it + 1, "loss %.5f" % np.mean(curve[-150:]))

grid = torch.linspace(0.05, 0.95, 7).unsqueeze(1)
with torch.no_grad():
    print("V:", net(grid).squeeze(1).numpy().round(3))
