import math
import numpy as np
import torch

# online actor-critic, plain functions, a ball in a valley (numpy)
rng = np.random.default_rng(3)
torch.manual_seed(3)


def reset():
    return np.array([rng.uniform(-1, 1), 0.0])


def step(state, force):
    x, v = state
    v = 0.95 * v + 0.15 * float(np.clip(force, -1.5, 1.5)) - 0.05 * math.sin(2 * x)
    x = x + 0.3 * v
    terminal = abs(x) > 2.5
    reward = 0.1 * math.exp(-(x - 0.8) ** 2) - (1.0 if terminal else 0.0)
    return np.array([x, v]), reward, terminal


def features(state):
    x, v = state
    return torch.tensor([x, v, x * x, math.sin(x), 1.0], dtype=torch.float32)


def make(n_out):
    return torch.nn.Sequential(torch.nn.Linear(5, 24), torch.nn.Tanh(), torch.nn.Linear(24, n_out))


pi, vf = make(2), make(1)
pi_opt = torch.optim.SGD(pi.parameters(), lr=2e-2)
vf_opt = torch.optim.SGD(vf.parameters(), lr=2e-2)
gamma = 0.95
totals = []

for episode in range(30):
    s, total = reset(), 0.0
    for t in range(40):
        phi = features(s)
        out = pi(phi)
        mu, sigma = out[0], 0.3 + 0.5 * torch.sigmoid(out[1])
        dist = torch.distributions.Normal(mu, sigma)
        force = dist.rsample()  # expect: rsample-in-score
        s2, r, terminal = step(s, force.item())

        v = vf(phi)[0]
        with torch.no_grad():
            v2 = torch.zeros(()) if terminal else vf(features(s2))[0]
        delta = r + gamma * v2 - v

        vf_opt.zero_grad()
        (0.5 * delta ** 2).backward()
        vf_opt.step()

        pi_opt.zero_grad()
        (-dist.log_prob(force) * delta.detach()).backward()
        pi_opt.step()

        s = s2
        total += r
        if terminal:
            break
    totals.append(total)
    if episode % 10 == 9:
        print("episode %d  mean return %.3f" % (episode + 1, np.mean(totals[-10:])))
