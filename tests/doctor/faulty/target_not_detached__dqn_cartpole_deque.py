# DQN on CartPole, small version without target network
import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim

SEED = 3
random.seed(SEED)
np.random.seed(SEED)
torch.manual_seed(SEED)

GAMMA = 0.98
BATCH = 64
env = gym.make("CartPole-v1")


class QNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(4, 64)
        self.l2 = nn.Linear(64, 64)
        self.out = nn.Linear(64, 2)

    def forward(self, x):
        x = F.relu(self.l1(x))
        x = F.relu(self.l2(x))
        return self.out(x)


q = QNet()
opt = optim.Adam(q.parameters(), lr=1e-3)
memory = deque(maxlen=5000)


def select_action(state, eps):
    if random.random() < eps:
        return random.randrange(2)
    with torch.no_grad():
        return int(q(torch.as_tensor(state).unsqueeze(0)).argmax(1))


def learn():
    batch = random.sample(memory, BATCH)
    s, a, r, s2, d = (np.array(x) for x in zip(*batch))
    s = torch.as_tensor(s, dtype=torch.float32)
    s2 = torch.as_tensor(s2, dtype=torch.float32)
    a = torch.as_tensor(a, dtype=torch.int64).unsqueeze(1)
    r = torch.as_tensor(r, dtype=torch.float32)
    d = torch.as_tensor(d, dtype=torch.float32)

    q_sa = q(s).gather(1, a).squeeze(1)
    target = r + GAMMA * q(s2).max(1).values * (1 - d)  # expect: target-not-detached
    loss = F.smooth_l1_loss(q_sa, target)
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss.item()


steps = 0
for episode in range(35):
    state, _ = env.reset(seed=SEED + episode)
    total = 0.0
    while True:
        eps = max(0.05, 0.9 - steps / 600)
        action = select_action(state, eps)
        next_state, reward, terminated, truncated, _ = env.step(action)
        memory.append((state, action, reward, next_state, float(terminated)))
        state = next_state
        total += reward
        steps += 1
        if len(memory) > 200:
            loss = learn()
        if terminated or truncated or steps > 800:
            break
    if episode % 5 == 0:
        print(f"episode {episode:3d}  return {total:5.1f}  eps {eps:.2f}")
    if steps > 800:
        break
env.close()
