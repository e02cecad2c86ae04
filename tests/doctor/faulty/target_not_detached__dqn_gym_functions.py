import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(31)
np.random.seed(31)
torch.manual_seed(31)

env = gym.make("CartPole-v1")
q_net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.Adam(q_net.parameters(), lr=1e-3)
replay = deque(maxlen=3000)
GAMMA = 0.97


def epsilon(t):
    return max(0.05, 1.0 - t / 500)


def act(obs, t):
    if random.random() < epsilon(t):
        return env.action_space.sample()
    with torch.no_grad():
        return int(q_net(torch.as_tensor(obs)).argmax())


def to_tensors(batch):
    s, a, r, s2, d = zip(*batch)
    return (torch.as_tensor(np.stack(s)), torch.as_tensor(a), torch.as_tensor(r, dtype=torch.float32),
            torch.as_tensor(np.stack(s2)), torch.as_tensor(d, dtype=torch.float32))


def next_value(s2):
    return q_net(s2).max(dim=1).values


def td_target(r, s2, d):
    return r + GAMMA * (1.0 - d) * next_value(s2)  # expect: target-not-detached


def td_loss(batch):
    s, a, r, s2, d = to_tensors(batch)
    q = q_net(s).gather(1, a.unsqueeze(1)).squeeze(1)
    return F.mse_loss(q, td_target(r, s2, d))


obs, _ = env.reset(seed=31)
score, scores = 0, []
for t in range(1200):
    a = act(obs, t)
    nxt, r, terminated, truncated, _ = env.step(a)
    replay.append((obs, a, r, nxt, terminated))
    obs, score = nxt, score + r
    if terminated or truncated:
        scores.append(score)
        obs, score = env.reset()[0], 0
    if t > 200:
        loss = td_loss(random.sample(replay, 32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if t % 300 == 299:
        print(t, "loss", loss.item(), "score", np.mean(scores[-10:]))
