"""Compact soft actor-critic: everything in one module, one optimizer."""
import copy
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(123)
rng = np.random.RandomState(123)


class SAC(nn.Module):
    def __init__(self, obs=3, act=1, h=64):
        super().__init__()
        self.pi = nn.Sequential(nn.Linear(obs, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 2 * act))
        self.q = nn.ModuleList([nn.Sequential(nn.Linear(obs + act, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 1)) for _ in range(2)])

    def sample(self, o):
        mu, ls = self.pi(o).chunk(2, dim=-1)
        ls = torch.clamp(ls, -4, 1)
        noise = torch.randn_like(mu)
        pre = mu + ls.exp() * noise
        logp = (-0.5 * noise ** 2 - ls - 0.5 * np.log(2 * np.pi)).sum(-1, keepdim=True)
        logp = logp - (2 * (np.log(2) - pre - F.softplus(-2 * pre))).sum(-1, keepdim=True)
        return torch.tanh(pre), logp

    def min_q(self, o, a):
        x = torch.cat([o, a], -1)
        return torch.min(self.q[0](x), self.q[1](x))


agent = SAC()
target = copy.deepcopy(agent.q).requires_grad_(False)
opt = torch.optim.Adam(agent.parameters(), lr=1e-3)
alpha, gamma, tau = 0.1, 0.97, 0.01
env = gym.make("Pendulum-v1")
D = {k: np.zeros((3000, d), np.float32) for k, d in dict(o=3, a=1, r=1, o2=3, d=1).items()}
o, _ = env.reset(seed=123)
ret = 0
for t in range(1200):
    with torch.no_grad():
        a = agent.sample(torch.as_tensor(o)[None])[0][0].numpy()
    o2, r, term, trunc, _ = env.step(2 * a)
    for k, v in zip("o a r o2 d".split(), (o, a, r / 10, o2, term)):
        D[k][t] = v
    o, ret = o2, ret + r
    if term or trunc:
        print("t", t, "return", round(ret))
        (o, _), ret = env.reset(), 0
    if t >= 200 and t % 2 == 0:
        idx = rng.randint(0, t, 64)
        b = {k: torch.from_numpy(v[idx]) for k, v in D.items()}
        with torch.no_grad():
            a2, lp2 = agent.sample(b["o2"])
            x2 = torch.cat([b["o2"], a2], -1)
            y = b["r"] + gamma * (1 - b["d"]) * (torch.min(target[0](x2), target[1](x2)) - alpha * lp2)
        x = torch.cat([b["o"], b["a"]], -1)
        critic_loss = sum(F.mse_loss(q(x), y) for q in agent.q)
        a_new, lp = agent.sample(b["o"])
        actor_loss = (alpha * lp - agent.min_q(b["o"], a_new)).mean()
        opt.zero_grad()
        (critic_loss + actor_loss).backward()  # expect: crossed-gradients
        opt.step()
        with torch.no_grad():
            for p, pt in zip(agent.q.parameters(), target.parameters()):
                pt += tau * (p - pt)
