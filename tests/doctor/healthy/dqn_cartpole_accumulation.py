"""DQN with gradient accumulation over two micro-batches and a hard target copy."""
import copy
import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(1); np.random.seed(1); torch.manual_seed(1)
ACCUM, GAMMA = 2, 0.98
q = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
target_q = copy.deepcopy(q)
target_q.requires_grad_(False)
opt = torch.optim.Adam(q.parameters(), lr=2e-3)
memory: deque = deque(maxlen=5000)
env = gym.make("CartPole-v1")


def tensors(rows):
    s, a, r, s2, term = map(np.array, zip(*rows))
    return (torch.from_numpy(s), torch.from_numpy(a), torch.from_numpy(r).float(),
            torch.from_numpy(s2), torch.from_numpy(term).float())


def micro_loss():
    s, a, r, s2, term = tensors(random.sample(memory, 32))
    y = r + GAMMA * (1 - term) * target_q(s2).max(1).values
    return F.smooth_l1_loss(q(s).gather(1, a[:, None]).squeeze(1), y.detach())


s, _ = env.reset(seed=0)
returns, score = [], 0.0
for step in range(2000):
    eps = max(0.05, 1 - step / 1200)
    with torch.no_grad():
        a = random.randrange(2) if random.random() < eps else int(q(torch.from_numpy(s)).argmax())
    s2, r, term, trunc, _ = env.step(a)
    memory.append((s, a, r, s2, term))
    score += r
    s = s2
    if term or trunc:
        returns.append(score)
        score = 0.0
        s, _ = env.reset()
    if len(memory) < 64:
        continue
    (micro_loss() / ACCUM).backward()
    if step % ACCUM == ACCUM - 1:
        nn.utils.clip_grad_norm_(q.parameters(), 10.0)
        opt.step()
        opt.zero_grad()
    if step % 40 == 0:
        target_q.load_state_dict(q.state_dict())
    if step % 500 == 499:
        print(step + 1, "return", np.mean(returns[-8:]))
