import copy
import random

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss, relu


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(3, 64), nn.Linear(64, 64), nn.Linear(64, 1)

    def forward(self, s):
        return 2.0 * torch.tanh(self.l3(relu(self.l2(relu(self.l1(s))))))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList([nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(2)])

    def forward(self, s, a):
        return [n(torch.cat([s, a], 1)) for n in self.nets]

    def first(self, s, a):
        return self.nets[0](torch.cat([s, a], 1))


def polyak(src, dst, rate=0.01):
    for a, b in zip(src.parameters(), dst.parameters()):
        b.data.mul_(1 - rate).add_(rate * a.data)


def main(seed=13, total=900, start=150):
    random.seed(seed); np.random.seed(seed); torch.manual_seed(seed)
    env = gym.make("Pendulum-v1")
    env.action_space.seed(seed)
    actor, critic = Actor(), Critic()
    actor_t, critic_t = copy.deepcopy(actor), copy.deepcopy(critic)
    a_opt = torch.optim.Adam(actor.parameters(), lr=1e-3)
    c_opt = torch.optim.Adam(critic.parameters(), lr=1e-3)
    data = []
    obs, _ = env.reset(seed=seed)
    ret = 0.0
    for t in range(1, total + 1):
        if t <= start:
            a = env.action_space.sample()
        else:
            with torch.no_grad():
                a = actor(torch.as_tensor(obs).unsqueeze(0)).squeeze(0).numpy()
            a = np.clip(a + np.random.normal(0, 0.2, a.shape), -2, 2).astype(np.float32)
        obs2, r, term, trunc, _ = env.step(a)
        data.append((obs, a, r / 8, obs2, float(term)))
        obs, ret = obs2, ret + r
        if term or trunc:
            print(f"step {t}: return {ret:.0f}")
            obs, _ = env.reset()
            ret = 0.0
        if t <= start:
            continue

        s, a, r, s2, d = map(np.array, zip(*random.choices(data, k=64)))
        s, a, s2 = (torch.as_tensor(z, dtype=torch.float32) for z in (s, a, s2))
        r, d = (torch.as_tensor(z, dtype=torch.float32)[:, None] for z in (r, d))
        with torch.no_grad():
            a2 = actor_t(s2)
            a2 = (a2 + (torch.randn_like(a2) * 0.4).clamp(-1, 1)).clamp(-2, 2)
            y = r + 0.98 * (1 - d) * torch.min(*critic_t(s2, a2))
        c_loss = sum(mse_loss(q, y) for q in critic(s, a))
        c_opt.zero_grad()
        c_loss.backward()
        c_opt.step()

        # policy and targets move every second step only
        if t % 2 == 0:
            a_loss = -critic.first(s, actor(s)).mean()
            a_opt.zero_grad()
            a_loss.backward()
            a_opt.step()
            polyak(actor, actor_t)
            polyak(critic, critic_t)
        if t % 250 == 0:
            print(f"step {t}: critic {c_loss.item():.4f} actor {a_loss.item():.3f}")


main()
