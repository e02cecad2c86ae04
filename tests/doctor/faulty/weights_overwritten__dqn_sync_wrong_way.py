import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class DQNAgent:
    def __init__(self, n_obs, n_act, sync_every=10):
        self.n_act = n_act
        self.q_local = self._build(n_obs, n_act)
        self.q_target = self._build(n_obs, n_act)
        self.q_target.load_state_dict(self.q_local.state_dict())
        self.optim = torch.optim.Adam(self.q_local.parameters(), lr=1e-3)
        self.memory = deque(maxlen=10000)
        self.sync_every = sync_every
        self.n_learn = 0

    @staticmethod
    def _build(n_obs, n_act):
        return nn.Sequential(nn.Linear(n_obs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, n_act))

    def act(self, obs, eps):
        if random.random() < eps:
            return random.randrange(self.n_act)
        with torch.no_grad():
            return int(self.q_local(torch.as_tensor(obs)).argmax())

    def remember(self, *transition):
        self.memory.append(transition)

    def sync_target(self):
        # hard update of the target network
        self.q_local.load_state_dict(self.q_target.state_dict())  # expect: weights-overwritten

    def learn(self, batch_size=64, gamma=0.98):
        s, a, r, s2, term = zip(*random.sample(self.memory, batch_size))
        s = torch.from_numpy(np.array(s))
        s2 = torch.from_numpy(np.array(s2))
        a = torch.tensor(a).unsqueeze(1)
        r = torch.tensor(r, dtype=torch.float32).unsqueeze(1)
        term = torch.tensor(term, dtype=torch.float32).unsqueeze(1)
        with torch.no_grad():
            q_next = self.q_target(s2).max(1, keepdim=True).values
            y = r + gamma * q_next * (1 - term)
        loss = F.smooth_l1_loss(self.q_local(s).gather(1, a), y)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        self.n_learn += 1
        if self.n_learn % self.sync_every == 0:
            self.sync_target()
        return loss.item()


if __name__ == "__main__":
    random.seed(20)
    np.random.seed(20)
    torch.manual_seed(20)
    env = gym.make("CartPole-v1")
    agent = DQNAgent(4, 2)
    obs, _ = env.reset(seed=20)
    length, lengths, losses = 0, [], []
    for t in range(700):
        action = agent.act(obs, eps=max(0.05, 1 - t / 400))
        nxt, reward, terminated, truncated, _ = env.step(action)
        agent.remember(obs, action, reward, nxt, terminated)
        obs = nxt
        length += 1
        if terminated or truncated:
            lengths.append(length)
            length = 0
            obs, _ = env.reset()
        if len(agent.memory) > 150:
            losses.append(agent.learn())
        if t % 140 == 139:
            print(f"t {t} loss {np.mean(losses[-50:] or [0]):.4f} lengths {lengths[-5:]}")
