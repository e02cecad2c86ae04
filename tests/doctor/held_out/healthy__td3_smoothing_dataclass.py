import copy
import dataclasses as dc
import random

import gymnasium as gym
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(2)
np.random.seed(2)
random.seed(2)


@dc.dataclass(slots=True)
class Step:
    obs: np.ndarray
    act: np.ndarray
    rew: float
    nxt: np.ndarray

    def as_tuple(self):
        return self.obs, self.act, [self.rew], self.nxt


def stack(steps):
    cols = zip(*(s.as_tuple() for s in steps))
    return [torch.from_numpy(np.asarray(c, dtype=np.float32)) for c in cols]


class Actor(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1), nn.Tanh())
        nn.init.uniform_(self[4].weight, -3e-3, 3e-3)
        nn.init.zeros_(self[4].bias)


class Twin(nn.Module):
    def __init__(self):
        super().__init__()
        mk = lambda: nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        self.a, self.b = mk(), mk()

    def forward(self, o, u):
        x = torch.cat((o, u), dim=1)
        return self.a(x), self.b(x)


actor, twin = Actor(), Twin()
actor_t, twin_t = copy.deepcopy(actor), copy.deepcopy(twin)
oa = torch.optim.Adam(actor.parameters(), lr=5e-4)
oq = torch.optim.Adam(twin.parameters(), lr=1e-3)

memory: list[Step] = []
env = gym.make("Pendulum-v1")
obs, _ = env.reset(seed=2)
for t in range(900):
    if t < 200:
        act = np.random.uniform(-1, 1, 1).astype(np.float32)
    else:
        act = actor(torch.from_numpy(obs)).detach().numpy() + 0.1 * np.random.randn(1)
        act = np.clip(act, -1, 1)
    nxt, rew, term, trunc, _ = env.step(2 * act)
    memory.append(Step(obs, act, float(rew) / 8, nxt))   # no terminal states in this task
    obs = env.reset()[0] if trunc else nxt
    if t < 200 or t % 2:
        continue
    o, u, r, n = stack(random.choices(memory, k=64))
    with torch.no_grad():
        noise = (0.2 * torch.randn_like(u)).clamp(-0.5, 0.5)
        un = (actor_t(n) + noise).clamp(-1, 1)
        y = r + 0.98 * torch.minimum(*twin_t(n, un))
    qa, qb = twin(o, u)
    lq = F.mse_loss(qa, y) + F.mse_loss(qb, y)
    oq.zero_grad()
    lq.backward()
    oq.step()
    if t % 4 == 0:
        la = -twin.a(torch.cat((o, actor(o)), 1)).mean()
        oa.zero_grad()
        la.backward()
        oa.step()
        for live, lag in ((actor, actor_t), (twin, twin_t)):
            for p, pl in zip(live.parameters(), lag.parameters()):
                pl.data.copy_(0.01 * p.data + 0.99 * pl.data)
    if t % 100 == 0:
        print(t, "critic", lq.item(), "q", qa.mean().item())
