"""Actor-critic in a corridor with walls, with a smoothness penalty on consecutive policies."""
import random
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(71)
torch.manual_seed(71)
LENGTH = 15


class Corridor:
    def reset(self):
        self.pos = LENGTH // 2
        return self.pos

    def step(self, action):
        self.pos = min(max(self.pos + (1 if action == 1 else -1), 0), LENGTH - 1)
        return self.pos, (0.1 if self.pos > LENGTH // 2 else 0.0)


@dataclass
class Nets:
    actor: nn.Module
    critic: nn.Module


def encode(pos):
    x = torch.tensor([pos / LENGTH, 1.0])
    return torch.cat([x, torch.sin(6 * x[:1]), torch.cos(6 * x[:1])])


nets = Nets(nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2)),
            nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1)))
opt = torch.optim.Adam([*nets.actor.parameters(), *nets.critic.parameters()], lr=1e-3)


def distance(u, v):
    return torch.sqrt(((u - v) ** 2).sum())  # expect: non-finite


def smoothness(s, s2):
    return distance(nets.actor(s), nets.actor(s2))


def td_error(s, r, s2, gamma=0.95):
    with torch.no_grad():
        y = r + gamma * nets.critic(s2)
    return y - nets.critic(s)


env = Corridor()
pos = env.reset()
for t in range(800):
    s = encode(pos)
    log_p = F.log_softmax(nets.actor(s), dim=0)
    a = int(random.random() < log_p[1].exp().item())
    pos, r = env.step(a)
    s2 = encode(pos)
    delta = td_error(s, r, s2)
    loss = (-log_p[a] * delta.detach() + 0.5 * delta.pow(2)).sum() + 0.01 * smoothness(s, s2)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if t % 100 == 0:
        print(t, "pos", pos, "loss", loss.item())
