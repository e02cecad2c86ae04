import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn


class DuelingNet(nn.Module):
    class Head(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.out = nn.Sequential(nn.Linear(n_in, 32), nn.ReLU(), nn.Linear(32, n_out))

        def forward(self, h):
            return self.out(h)

    def __init__(self, obs_dim, n_actions):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(obs_dim, 64), nn.ReLU())
        self.value = DuelingNet.Head(64, 1)
        self.advantage = DuelingNet.Head(64, n_actions)

    @torch.no_grad()  # expect: graph-cut
    def features(self, x):
        return self.trunk(x)

    def forward(self, x):
        h = self.features(x)
        a = self.advantage(h)
        return self.value(h) + a - a.mean(dim=1, keepdim=True)

    @torch.no_grad()
    def greedy(self, x):
        return self.forward(x).argmax(dim=1)


class DQNAgent:
    def __init__(self, obs_dim, n_actions):
        self.n_actions = n_actions
        self.q = DuelingNet(obs_dim, n_actions)
        self.q_target = DuelingNet(obs_dim, n_actions)
        self.q_target.load_state_dict(self.q.state_dict())
        self.opt = torch.optim.Adam(self.q.parameters(), lr=1e-3)
        self.memory = deque(maxlen=10_000)
        self.eps = 1.0

    def choose_action(self, obs):
        if random.random() < self.eps:
            return random.randrange(self.n_actions)
        return int(self.q.greedy(torch.as_tensor(obs).unsqueeze(0))[0])

    def remember(self, *transition):
        self.memory.append(transition)

    def learn(self, batch_size=32, gamma=0.99):
        if len(self.memory) < 100:
            return
        s, a, r, s2, d = map(np.array, zip(*random.sample(self.memory, batch_size)))
        s, s2 = torch.from_numpy(s), torch.from_numpy(s2)
        r, d = torch.from_numpy(r).float(), torch.from_numpy(d).float()
        q = self.q(s).gather(1, torch.from_numpy(a).unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            target = r + gamma * (1 - d) * self.q_target(s2).max(dim=1).values
        loss = nn.functional.smooth_l1_loss(q, target)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        self.eps = max(0.05, self.eps * 0.995)


if __name__ == "__main__":
    random.seed(0)
    torch.manual_seed(0)
    env = gym.make("CartPole-v1")
    agent = DQNAgent(4, 2)
    steps = 0
    for ep in range(45):
        obs, _ = env.reset(seed=ep)
        score, over = 0, False
        while not over:
            a = agent.choose_action(obs)
            obs2, r, terminated, truncated, _ = env.step(a)
            agent.remember(obs, a, r, obs2, terminated)
            agent.learn()
            obs, over = obs2, terminated or truncated
            score += r
            steps += 1
            if steps % 100 == 0:
                agent.q_target.load_state_dict(agent.q.state_dict())
        if ep % 15 == 0:
            print(ep, score, round(agent.eps, 3))
