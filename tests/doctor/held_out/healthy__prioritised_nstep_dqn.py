import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

SEED, NSTEP, GAMMA = 12, 3, 0.97
random.seed(SEED)
np.random.seed(SEED)
torch.manual_seed(SEED)


class PrioMem:
    def __init__(self, cap, alpha=0.6):
        self.items, self.prio, self.cap, self.alpha, self.i = [], np.zeros(cap), cap, alpha, 0

    def push(self, item):
        if len(self.items) < self.cap:
            self.items.append(item)
        else:
            self.items[self.i] = item
        self.prio[self.i] = self.prio.max() or 1.0
        self.i = (self.i + 1) % self.cap

    def pull(self, k, beta):
        p = self.prio[:len(self.items)] ** self.alpha
        p = p / p.sum()
        idx = np.random.choice(len(p), k, p=p)
        w = (len(p) * p[idx]) ** -beta
        return idx, torch.tensor(w / w.max(), dtype=torch.float32), [self.items[i] for i in idx]


class NStep:
    """turns single steps into (s, a, R_n, s_n, gamma^n * not terminal)"""

    def __init__(self):
        self.q = deque()

    def feed(self, s, a, r, s2, term, finished):
        self.q.append((s, a, r))
        done = []
        while self.q and (len(self.q) == NSTEP or finished):
            R = sum(GAMMA ** k * x[2] for k, x in enumerate(self.q))
            boot = 0.0 if term else GAMMA ** len(self.q)
            s0, a0, _ = self.q.popleft()
            done.append((s0, a0, R, s2, boot))
        return done


def make():
    return nn.Sequential(nn.Linear(4, 96), nn.ReLU(), nn.Linear(96, 2))


online, frozen = make(), make().requires_grad_(False)
frozen.load_state_dict(online.state_dict())
opt = torch.optim.Adam(online.parameters(), lr=1.5e-3)
mem, roll = PrioMem(3000), NStep()
env = gym.make("CartPole-v1")
s, info = env.reset(seed=SEED)
length, lengths = 0, []
for t in range(2400):
    explore = random.random() < max(0.05, 1 - t / 800)
    a = env.action_space.sample() if explore else online(torch.as_tensor(s)).argmax().item()
    s2, r, terminated, truncated, info = env.step(a)
    for tr in roll.feed(s, a, r * 0.1, s2, terminated, terminated or truncated):
        mem.push(tr)
    s, length = s2, length + 1
    if terminated or truncated:
        s, info = env.reset()
        lengths.append(length)
        length = 0
    if t >= 200 and t % 4 == 0:
        idx, w, items = mem.pull(64, 0.4 + 0.6 * t / 2400)
        S, A, R, S2, boot = (torch.as_tensor(np.array(c)) for c in zip(*items))
        R, boot = R.float(), boot.float()
        a2 = online(S2).argmax(1, keepdim=True)
        y = R + boot * frozen(S2).gather(1, a2).squeeze(1)
        td = y - online(S).gather(1, A.view(-1, 1)).squeeze(1)
        loss = (w * nn.functional.huber_loss(td, torch.zeros_like(td), reduction="none")).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        mem.prio[idx] = td.detach().abs().numpy() + 1e-3
    if t % 80 == 0:
        frozen.load_state_dict(online.state_dict())
print("first", np.mean(lengths[:10]), "last", np.mean(lengths[-10:]), "loss", loss.item())
