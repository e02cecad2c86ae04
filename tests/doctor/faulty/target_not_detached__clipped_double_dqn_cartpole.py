import random
import gymnasium as gym
import numpy as np
import torch
from torch import nn

SEED = 21
random.seed(SEED)
np.random.seed(SEED)
torch.manual_seed(SEED)


def build():
    return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))


class ClippedDoubleDQN:
    """two Q-networks, each regresses on the smaller of the two bootstrap values"""

    def __init__(self, gamma=0.97, lr=5e-4):
        self.qa, self.qb = build(), build()
        self.gamma = gamma
        self.opt = torch.optim.Adam(list(self.qa.parameters()) + list(self.qb.parameters()), lr=lr)
        self.buffer = []

    @torch.no_grad()
    def act(self, s, eps):
        if random.random() < eps:
            return random.randrange(2)
        t = torch.as_tensor(s).unsqueeze(0)
        return int((self.qa(t) + self.qb(t)).argmax())

    def remember(self, *tr):
        self.buffer.append(tr)
        if len(self.buffer) > 5000:
            self.buffer.pop(0)

    def replay(self, bs=64):
        if len(self.buffer) < 200:
            return None
        s, a, r, s2, d = zip(*random.sample(self.buffer, bs))
        s, s2 = torch.tensor(np.array(s)), torch.tensor(np.array(s2))
        a, r, d = torch.tensor(a), torch.tensor(r, dtype=torch.float32), torch.tensor(d, dtype=torch.float32)
        best = self.qa(s2).argmax(1, keepdim=True)
        nxt = torch.minimum(self.qa(s2).gather(1, best), self.qb(s2).gather(1, best)).squeeze(1)
        y = r + self.gamma * (1.0 - d) * nxt  # expect: target-not-detached
        loss = 0.0
        for net in (self.qa, self.qb):
            q = net(s).gather(1, a.view(-1, 1)).squeeze(1)
            loss = loss + nn.functional.smooth_l1_loss(q, y)
        self.opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in self.opt.param_groups for p in g["params"]], 10.0)
        self.opt.step()
        return loss.item()


env = gym.make("CartPole-v1")
agent = ClippedDoubleDQN()
eps = 1.0
for ep in range(60):
    s, _ = env.reset(seed=ep)
    done, steps = False, 0
    while not done:
        a = agent.act(s, eps)
        s2, r, terminated, truncated, _ = env.step(a)
        agent.remember(s, a, r, s2, terminated)
        agent.replay()
        s, done, steps = s2, terminated or truncated, steps + 1
    eps = max(0.05, eps * 0.96)
    if ep % 15 == 0:
        print(f"ep {ep:3d} length {steps}")
