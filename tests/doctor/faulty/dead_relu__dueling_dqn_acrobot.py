import random
from collections import deque
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim


class DuelingNetwork(nn.Module):
    def __init__(self, input_dim, output_dim):
        super().__init__()
        self.feature = nn.Linear(input_dim, 64)
        self.value_hidden = nn.Linear(64, 32)
        self.value = nn.Linear(32, 1)
        self.adv_hidden = nn.Linear(64, 32)
        self.adv = nn.Linear(32, output_dim)
        self.relu = nn.ReLU()

    def forward(self, state):
        f = self.relu(self.feature(state))
        v = self.value(self.relu(self.value_hidden(f)))
        a = self.adv(self.relu(self.adv_hidden(f)))
        q = v + a - a.mean(dim=1, keepdim=True)
        return torch.relu(q)  # expect: dead-relu


class Agent:
    def __init__(self, env):
        self.env = env
        n, m = env.observation_space.shape[0], int(env.action_space.n)
        self.net, self.target = DuelingNetwork(n, m), DuelingNetwork(n, m)
        self.target.load_state_dict(self.net.state_dict())
        self.optimizer = optim.Adam(self.net.parameters(), lr=1e-3)
        self.memory = deque(maxlen=4000)
        self.eps, self.gamma, self.learned = 1.0, 0.97, 0

    def select(self, s):
        if random.random() < self.eps:
            return self.env.action_space.sample()
        with torch.no_grad():
            return self.net(torch.FloatTensor(s).unsqueeze(0)).max(1)[1].item()

    def learn(self):
        s, a, r, s2, d = map(np.array, zip(*random.sample(self.memory, 32)))
        s, s2 = torch.FloatTensor(s), torch.FloatTensor(s2)
        a = torch.LongTensor(a).unsqueeze(1)
        r, d = torch.FloatTensor(r).unsqueeze(1), torch.FloatTensor(d).unsqueeze(1)
        with torch.no_grad():
            best = self.net(s2).argmax(1, keepdim=True)
            y = r + (1 - d) * self.gamma * self.target(s2).gather(1, best)
        loss = nn.functional.mse_loss(self.net(s).gather(1, a), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.learned += 1
        if self.learned % 100 == 0:
            self.target.load_state_dict(self.net.state_dict())
        return loss.item()


random.seed(12); np.random.seed(12); torch.manual_seed(12)
env = gym.make("Acrobot-v1")
env.action_space.seed(12)
agent = Agent(env)
losses = []
s, _ = env.reset(seed=12)
for frame in range(2600):
    a = agent.select(s)
    s2, r, terminated, truncated, _ = env.step(a)
    agent.memory.append((s, a, r, s2, terminated))
    s = s2
    if terminated or truncated:
        s, _ = env.reset()
    agent.eps = max(0.05, agent.eps - 1 / 2000)
    if frame > 200 and frame % 4 == 0:
        losses.append(agent.learn())
        if len(losses) % 150 == 0:
            print("frame", frame, "loss", np.mean(losses[-150:]))
