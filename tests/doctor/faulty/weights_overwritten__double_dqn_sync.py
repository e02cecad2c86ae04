import argparse
import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

ap = argparse.ArgumentParser()
ap.add_argument("--total-steps", type=int, default=1100)
ap.add_argument("--sync-every", type=int, default=25)
ap.add_argument("--learning-starts", type=int, default=150)
args = ap.parse_args()
random.seed(73)
torch.manual_seed(73)


class QNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x):
        return self.net(x)


class DoubleDQN:
    def __init__(self):
        self.models = {"q": QNet(), "target": QNet()}
        self.copy_weights(self.models["q"], self.models["target"])
        self.opt = torch.optim.RMSprop(self.models["q"].parameters(), lr=5e-4)
        self.memory = deque(maxlen=5000)
        self.count = 0

    @staticmethod
    def copy_weights(source, destination):
        destination.load_state_dict(source.state_dict())

    def maybe_sync(self):
        self.count += 1
        if self.count % args.sync_every == 0:
            self.models["q"].load_state_dict(self.models["target"].state_dict())  # expect: weights-overwritten

    def learn(self):
        s, a, r, s2, d = zip(*random.sample(self.memory, 32))
        s, s2 = torch.tensor(np.array(s)), torch.tensor(np.array(s2))
        a, r, d = torch.tensor(a)[:, None], torch.tensor(r)[:, None], torch.tensor(d)[:, None]
        with torch.no_grad():
            pick = self.models["q"](s2).argmax(1, keepdim=True)
            y = r + 0.98 * (1 - d) * self.models["target"](s2).gather(1, pick)
        loss = nn.functional.mse_loss(self.models["q"](s).gather(1, a), y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        self.maybe_sync()
        return loss.item()


env = gym.make("CartPole-v1")
agent = DoubleDQN()
obs, _ = env.reset(seed=73)
for t in range(args.total_steps):
    if random.random() < max(0.1, 1 - t / 500):
        a = random.randrange(2)
    else:
        with torch.no_grad():
            a = agent.models["q"](torch.from_numpy(obs)).argmax().item()
    nxt, r, term, trunc, _ = env.step(a)
    agent.memory.append((obs, a, float(r), nxt, float(term)))
    obs = env.reset()[0] if term or trunc else nxt
    if t > args.learning_starts:
        loss = agent.learn()
        if t % 200 == 0:
            print(t, loss)
