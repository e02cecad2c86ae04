import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(19)
np.random.seed(19)


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1, self.l2 = nn.Linear(3, 64), nn.Linear(64, 1)

    def forward(self, s):
        return 2.0 * torch.tanh(self.l2(F.relu(self.l1(s))))


class Twin(nn.Module):
    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(2))

    def forward(self, s, a):
        x = torch.cat([s, a], 1)
        return [n(x) for n in self.nets]

    def first(self, s, a):
        return self.nets[0](torch.cat([s, a], 1))


actor, critic = Actor(), Twin()
actor_t, critic_t = copy.deepcopy(actor), copy.deepcopy(critic)
a_opt = torch.optim.Adam(actor.parameters(), lr=1e-3)
c_opt = torch.optim.Adam(critic.parameters(), lr=1e-3)
N = 2000
buf = dict(s=np.zeros((N, 3), np.float32), a=np.zeros((N, 1), np.float32), r=np.zeros(N, np.float32),
           s2=np.zeros((N, 3), np.float32))


def batch(n, upto):
    i = np.random.randint(0, upto, n)
    return tuple(torch.from_numpy(buf[k][i]) for k in ("s", "a", "r", "s2"))


def backup(r, s2, gamma=0.98):
    with torch.no_grad():
        noise = (0.2 * torch.randn(len(s2), 1)).clamp(-0.5, 0.5)
        a2 = (actor_t(s2) + noise).clamp(-2, 2)
        q1, q2 = critic_t(s2, a2)
        return r + gamma * torch.min(q1, q2)  # expect: broadcast


def learn(t, s, a, r, s2):
    y = backup(r, s2)
    q1, q2 = critic(s, a)
    loss = (q1 - y).pow(2).mean() + (q2 - y).pow(2).mean()
    c_opt.zero_grad()
    loss.backward()
    c_opt.step()
    if t % 2 == 0:
        a_loss = -critic.first(s, actor(s)).mean()
        a_opt.zero_grad()
        a_loss.backward()
        a_opt.step()
        with torch.no_grad():
            for net, tgt in ((actor, actor_t), (critic, critic_t)):
                for p, tp in zip(net.parameters(), tgt.parameters()):
                    tp.lerp_(p, 0.01)
    return loss.item()


env = gym.make("Pendulum-v1")
s, _ = env.reset(seed=19)
for t in range(500):
    with torch.no_grad():
        a = actor(torch.from_numpy(s)).numpy()
    a = np.clip(a + 0.3 * np.random.randn(1), -2, 2).astype(np.float32)
    s2, r, terminated, truncated, _ = env.step(a)
    buf["s"][t], buf["a"][t], buf["r"][t], buf["s2"][t] = s, a, r / 10, s2
    s = s2 if not truncated else env.reset()[0]
    if t > 100:
        l = learn(t, *batch(64, t + 1))
        if t % 100 == 0:
            print(t, l)
