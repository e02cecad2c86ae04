import copy

import gymnasium as gym
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F


class TwinCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
        self.b = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, s, u):
        x = torch.cat([s, u], -1)
        return self.a(x), self.b(x)

    def q1(self, s, u):
        return self.a(torch.cat([s, u], -1))


def update(agent, batch, k, gamma=0.98, tau=0.01):
    s, u, r, s2, term = batch
    with torch.no_grad():
        noise = (0.2 * torch.randn_like(u)).clamp(-0.5, 0.5)
        u2 = (agent["pi_t"](s2) + noise).clamp(-1, 1)
        y = r + gamma * (1 - term) * torch.min(*agent["q_t"](s2, u2))
    q1, q2 = agent["q"](s, u)
    q_loss = F.mse_loss(q1, y) + F.mse_loss(q2, y)
    agent["q_opt"].zero_grad()
    q_loss.backward()
    agent["q_opt"].step()
    # the policy moves on every second update only, and not at all in the warm-up
    if k > 100 and k % 2 == 0:
        pi_loss = -agent["q"].q1(s, agent["pi"](s)).mean()
        agent["pi_opt"].zero_grad()
        pi_loss.backward()
        agent["pi_opt"].step()
        with torch.no_grad():
            for name in ("pi", "q"):
                for p, t in zip(agent[name].parameters(), agent[name + "_t"].parameters()):
                    t.lerp_(p, tau)
    return q_loss.item()


def main():
    torch.manual_seed(2)
    rng = np.random.default_rng(2)
    pi = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
    q = TwinCritic()
    agent = dict(pi=pi, q=q, pi_t=copy.deepcopy(pi), q_t=copy.deepcopy(q),
                 pi_opt=torch.optim.Adam(pi.parameters(), lr=1e-3),
                 q_opt=torch.optim.Adam(q.parameters(), lr=1e-3))
    env = gym.make("Pendulum-v1", max_episode_steps=100)
    cols = [np.zeros((800, d), np.float32) for d in (3, 1, 1, 3, 1)]
    s, _ = env.reset(seed=2)
    ret = 0.0
    for k in range(700):
        with torch.no_grad():
            u = pi(torch.from_numpy(s)).numpy()
        u = np.clip(u + rng.normal(0, 0.3, 1), -1, 1)
        s2, r, terminated, truncated, _ = env.step((2 * u).astype(np.float32))
        for col, x in zip(cols, (s, u, 0.1 * r, s2, float(terminated))):
            col[k] = x
        ret += r
        s = s2
        if terminated or truncated:
            print(f"{k + 1} return {ret:.0f}")
            ret = 0.0
            s, _ = env.reset()
        if k >= 64:
            idx = rng.integers(0, k + 1, 64)
            update(agent, [torch.from_numpy(c[idx]) for c in cols], k)


if __name__ == "__main__":
    main()
