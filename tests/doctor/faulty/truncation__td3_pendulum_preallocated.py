import copy
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

seed = 9
np.random.seed(seed)
torch.manual_seed(seed)
device = torch.device("cpu")


class Buf:
    def __init__(self, cap=5000):
        self.o = np.zeros((cap, 3), np.float32)
        self.a = np.zeros((cap, 1), np.float32)
        self.r = np.zeros((cap, 1), np.float32)
        self.o2 = np.zeros((cap, 3), np.float32)
        self.nonterm = np.zeros((cap, 1), np.float32)
        self.n = 0

    def add(self, o, a, r, o2, done):
        i = self.n
        self.o[i], self.a[i], self.r[i], self.o2[i], self.nonterm[i] = o, a, r, o2, 1.0 - done
        self.n += 1

    def sample(self, k):
        i = np.random.randint(0, self.n, k)
        return [torch.as_tensor(x[i], device=device) for x in (self.o, self.a, self.r, self.o2, self.nonterm)]


def net(i, o, out=nn.Identity):
    return nn.Sequential(nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, o), out())


actor, q1, q2 = net(3, 1, nn.Tanh), net(4, 1), net(4, 1)
actor_targ, q1_targ, q2_targ = (copy.deepcopy(m).requires_grad_(False) for m in (actor, q1, q2))
actor_opt = torch.optim.Adam(actor.parameters(), lr=1e-3)
q_opt = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=1e-3)
env = gym.make("Pendulum-v1", max_episode_steps=100)
buf = Buf()
ret, rets = 0.0, []
o, _ = env.reset(seed=seed)
for t in range(1600):
    if t < 300:
        a = np.random.uniform(-1, 1, 1)
    else:
        with torch.no_grad():
            a = actor(torch.as_tensor(o)).numpy()
        a = np.clip(a + 0.15 * np.random.randn(1), -1, 1)
    o2, r, terminated, truncated, _ = env.step(2.0 * a)
    done = terminated or truncated  # expect: truncation
    buf.add(o, a, r / 8.0, o2, done)
    o, ret = o2, ret + r
    if done:
        rets.append(ret)
        ret = 0.0
        o, _ = env.reset()
    if t < 300:
        continue
    bo, ba, br, bo2, bm = buf.sample(64)
    with torch.no_grad():
        noise = (torch.randn_like(ba) * 0.2).clamp(-0.4, 0.4)
        ba2 = (actor_targ(bo2) + noise).clamp(-1, 1)
        z = torch.cat([bo2, ba2], 1)
        target = br + 0.98 * bm * torch.min(q1_targ(z), q2_targ(z))
    z = torch.cat([bo, ba], 1)
    q_loss = F.mse_loss(q1(z), target) + F.mse_loss(q2(z), target)
    q_opt.zero_grad()
    q_loss.backward()
    q_opt.step()
    if t % 2 == 0:
        actor_loss = -q1(torch.cat([bo, actor(bo)], 1)).mean()
        actor_opt.zero_grad()
        actor_loss.backward()
        actor_opt.step()
        for m, mt in ((actor, actor_targ), (q1, q1_targ), (q2, q2_targ)):
            for p, pt in zip(m.parameters(), mt.parameters()):
                pt.data.mul_(0.99).add_(0.01 * p.data)
print("returns", [round(x) for x in rets])
