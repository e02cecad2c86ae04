import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(14)
np.random.seed(14)


class Buffer:
    def __init__(self, size):
        self.s, self.s2 = torch.zeros(size, 3), torch.zeros(size, 3)
        self.a, self.r = torch.zeros(size, 1), torch.zeros(size, 1)
        self.n = 0

    def add(self, s, a, r, s2):
        i = self.n % len(self.s)
        self.s[i], self.s2[i] = torch.from_numpy(s), torch.from_numpy(s2)
        self.a[i], self.r[i] = torch.from_numpy(a), r
        self.n += 1

    def sample(self, k):
        i = torch.randint(0, min(self.n, len(self.s)), (k,))
        return self.s[i], self.a[i], self.r[i], self.s2[i]


class DDPG:
    def __init__(self):
        mk = lambda i, *tail: nn.Sequential(nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, 1), *tail)
        self.online = (mk(3, nn.Tanh()), mk(4))
        self.target = copy.deepcopy(self.online)
        self.actor_opt = torch.optim.Adam(self.online[0].parameters(), lr=5e-4)
        self.critic_opt = torch.optim.Adam(self.online[1].parameters(), lr=1e-3)

    @staticmethod
    def q(pair, s, a):
        return pair[1](torch.cat([s, a], dim=1))

    def actor_loss(self, s):
        return -self.q(self.online, s, 2 * self.online[0](s)).mean()

    def critic_loss(self, s, a, r, s2):
        with torch.no_grad():
            y = r + 0.98 * self.q(self.target, s2, 2 * self.target[0](s2))
        return F.mse_loss(self.q(self.online, s, a), y)

    def train_step(self, s, a, r, s2):
        self.actor_opt.zero_grad()
        self.critic_opt.zero_grad()
        l_pi = self.actor_loss(s)
        l_q = self.critic_loss(s, a, r, s2)
        l_q.backward()
        l_pi.backward()  # expect: crossed-gradients
        self.critic_opt.step()
        self.actor_opt.step()
        self.track()
        return l_q.item(), l_pi.item()

    def track(self, tau=0.01):
        with torch.no_grad():
            for net, tgt in zip(self.online, self.target):
                for p, q in zip(net.parameters(), tgt.parameters()):
                    q += tau * (p - q)


env, agent, buf = gym.make("Pendulum-v1"), DDPG(), Buffer(2000)
s, _ = env.reset(seed=14)
for t in range(600):
    with torch.no_grad():
        a = 2 * agent.online[0](torch.from_numpy(s)).numpy()
    a = np.clip(a + 0.3 * np.random.randn(1), -2, 2).astype(np.float32)
    s2, r, term, trunc, _ = env.step(a)
    buf.add(s, a, r / 10, s2)
    s = env.reset()[0] if trunc else s2
    if t >= 100:
        out = agent.train_step(*buf.sample(64))
        if t % 100 == 0:
            print(t, out)
