import random
from collections import namedtuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

Step = namedtuple("Step", "obs act rew nxt term")


def make_net(n_in, n_out, hidden):
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, n_out),
    )


class DQNAgent:
    def __init__(self, n_obs, n_act, lr=5e-4):
        self.n_obs, self.n_act = n_obs, n_act
        self.online = make_net(n_obs, n_act, 64)
        self.target = make_net(n_obs, n_act, 64)
        self.sync()
        self.optim = torch.optim.AdamW(self.online.parameters(), lr=lr)
        self.memory = []

    def resize(self, hidden):
        """Use a different width than the default."""
        self.online = make_net(self.n_obs, self.n_act, hidden)  # expect: optimizer-mismatch
        self.target = make_net(self.n_obs, self.n_act, hidden)
        self.sync()
        return self

    def sync(self):
        self.target.load_state_dict(self.online.state_dict())

    @torch.no_grad()
    def act(self, obs, eps):
        if random.random() < eps:
            return random.randrange(self.n_act)
        return self.online(torch.from_numpy(obs)).argmax().item()

    def remember(self, *args):
        self.memory.append(Step(*args))
        if len(self.memory) > 5000:
            self.memory.pop(0)

    def train_batch(self, k=64, gamma=0.99):
        batch = Step(*zip(*random.sample(self.memory, k)))
        obs = torch.from_numpy(np.stack(batch.obs))
        nxt = torch.from_numpy(np.stack(batch.nxt))
        act = torch.tensor(batch.act).view(-1, 1)
        rew = torch.tensor(batch.rew, dtype=torch.float32)
        term = torch.tensor(batch.term, dtype=torch.float32)
        with torch.no_grad():
            goal = rew + gamma * (1.0 - term) * self.target(nxt).max(dim=1).values
        pred = self.online(obs).gather(1, act).squeeze(1)
        loss = nn.functional.huber_loss(pred, goal)
        self.optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(self.online.parameters(), 10.0)
        self.optim.step()
        return loss.item()


def main():
    random.seed(11)
    torch.manual_seed(11)
    env = gym.make("Acrobot-v1", max_episode_steps=200)
    agent = DQNAgent(6, 3).resize(hidden=48)
    obs, _ = env.reset(seed=11)
    losses, total = [], 0
    for t in range(1200):
        eps = max(0.1, 1.0 - t / 800)
        act = agent.act(obs, eps)
        nxt, rew, term, trunc, _ = env.step(act)
        agent.remember(obs, act, rew, nxt, term)
        obs = nxt
        total += rew
        if t > 200:
            losses.append(agent.train_batch())
        if t % 100 == 0:
            agent.sync()
        if term or trunc:
            print(f"t={t} return={total} loss={np.mean(losses[-100:]) if losses else float('nan'):.4f}")
            obs, _ = env.reset()
            total = 0


if __name__ == "__main__":
    main()
