# evaluate-and-improve on the pendulum: V by one-step differences, pi by likelihood ratio, data as a lazy stream
import itertools

import gymnasium as gym
import numpy as np
import torch
from torch import nn

torch.manual_seed(9)
mu = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
V = nn.Sequential(nn.Linear(3, 48), nn.Tanh(), nn.Linear(48, 1), nn.Flatten(0))
lsd = torch.tensor([0.0], requires_grad=True)
o1 = torch.optim.Adam([*mu.parameters(), lsd], lr=1e-3)
o2 = torch.optim.Adam(V.parameters(), lr=3e-3)
gamma = 0.98


def pi(x):
    return torch.distributions.Normal(mu(x).squeeze(-1), lsd.exp())


def stream(env, seed):
    x, _ = env.reset(seed=seed)
    total, totals = 0.0, []
    while True:
        with torch.no_grad():
            u = pi(torch.as_tensor(x)).sample().numpy()
        x2, r, term, trunc, _ = env.step(2.0 * np.tanh(u))
        r = (float(r) + 8.0) / 8.0
        yield x, u[0], r, x2, float(term or trunc)  # expect: truncation
        total += r
        x = x2
        if term or trunc:
            totals.append(total)
            if len(totals) % 10 == 0:
                print(f"episode {len(totals):2d} score {sum(totals[-10:]) / 10:.2f}")
            total = 0.0
            x, _ = env.reset()


def chunks(it, n):
    while True:
        cols = zip(*itertools.islice(it, n))
        yield [torch.as_tensor(np.array(c, dtype=np.float32)) for c in cols]


env = gym.make("Pendulum-v1", max_episode_steps=50)
for i, (x, u, r, x2, end) in zip(range(120), chunks(stream(env, 9), 32)):
    with torch.no_grad():
        aim = r + gamma * (1 - end) * V(x2)
    e = aim - V(x)
    o2.zero_grad()
    e.square().mean().backward()
    o2.step()

    o1.zero_grad()
    (-(pi(x).log_prob(u) * e.detach()).mean() - 1e-3 * lsd.sum()).backward()
    o1.step()
print("mean value", V(x).mean().item())
