import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class QNetwork(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.fc1 = nn.Linear(4, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 2)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.out(x)


class DQNAgent:
    def __init__(self, seed, hidden=48, lr=1e-3):
        self.hidden = hidden
        self.qnet = QNetwork(hidden)
        self.target = QNetwork(hidden)
        self.optimizer = torch.optim.Adam(self.qnet.parameters(), lr=lr)
        self.memory = deque(maxlen=5000)
        self.epsilon = 1.0
        self.seed(seed)

    def seed(self, seed):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.qnet = QNetwork(self.hidden)  # expect: optimizer-mismatch
        self.target.load_state_dict(self.qnet.state_dict())

    def act(self, state):
        if random.random() < self.epsilon:
            return random.randrange(2)
        with torch.no_grad():
            return int(self.qnet(torch.from_numpy(state)).argmax())

    def remember(self, *transition):
        self.memory.append(transition)

    def replay(self, batch_size=32, gamma=0.98):
        batch = random.sample(self.memory, batch_size)
        s, a, r, s2, term = map(np.array, zip(*batch))
        s, s2 = torch.from_numpy(s), torch.from_numpy(s2)
        a = torch.from_numpy(a).long().unsqueeze(1)
        r, term = torch.from_numpy(r).float(), torch.from_numpy(term).float()
        q = self.qnet(s).gather(1, a).squeeze(1)
        with torch.no_grad():
            q_next = self.target(s2).max(1)[0]
        loss = F.smooth_l1_loss(q, r + gamma * q_next * (1 - term))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


env = gym.make("CartPole-v1")
agent = DQNAgent(seed=13)
step, loss = 0, float("nan")
for episode in range(60):
    state, _ = env.reset(seed=episode)
    total, over = 0, False
    while not over:
        action = agent.act(state)
        next_state, reward, terminated, truncated, _ = env.step(action)
        agent.remember(state, action, reward, next_state, terminated)
        state, total, step = next_state, total + 1, step + 1
        over = terminated or truncated
        if len(agent.memory) >= 200:
            loss = agent.replay()
        if step % 100 == 0:
            agent.target.load_state_dict(agent.qnet.state_dict())
    agent.epsilon = max(0.05, agent.epsilon * 0.95)
    if episode % 15 == 14:
        print(f"episode {episode + 1} length {total} eps {agent.epsilon:.2f} loss {loss:.4f}")
