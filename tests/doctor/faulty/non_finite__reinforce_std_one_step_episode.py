import random

import torch
import torch.nn as nn
from torch.distributions import Categorical


class CorridorEnv:
    """A corridor of 7 cells. Step off either end to finish. Right end pays more."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.episodes = 0

    def reset(self):
        # start in the middle at first, anywhere later
        self.pos = 3 if self.episodes < 60 else self.rng.randrange(7)
        self.episodes += 1
        return self._obs()

    def _obs(self):
        o = [0.0] * 7
        o[min(max(self.pos, 0), 6)] = 1.0
        return torch.tensor(o)

    def step(self, action):
        self.pos += 1 if action == 1 else -1
        done = self.pos < 0 or self.pos > 6
        reward = -0.02
        if done:
            reward = 1.0 if self.pos > 6 else 0.2
        return self._obs(), reward, done


class Agent:
    def __init__(self, lr=3e-3, gamma=0.95):
        self.policy = nn.Sequential(nn.Linear(7, 32), nn.Tanh(), nn.Linear(32, 2))
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=lr)
        self.gamma = gamma
        self.saved_log_probs, self.rewards = [], []

    def act(self, obs):
        dist = Categorical(logits=self.policy(obs))
        a = dist.sample()
        self.saved_log_probs.append(dist.log_prob(a))
        return a.item()

    def finish_episode(self):
        R, returns = 0.0, []
        for r in self.rewards[::-1]:
            R = r + self.gamma * R
            returns.insert(0, R)
        returns = torch.tensor(returns)
        returns = (returns - returns.mean()) / (returns.std() + 1e-9)  # expect: non-finite
        loss = torch.stack([-lp * g for lp, g in zip(self.saved_log_probs, returns)]).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.saved_log_probs.clear()
        self.rewards.clear()
        return loss.item()


def main():
    torch.manual_seed(1)
    env, agent = CorridorEnv(seed=1), Agent()
    for episode in range(300):
        obs, done, total, n = env.reset(), False, 0.0, 0
        while not done:
            obs, r, done = env.step(agent.act(obs))
            agent.rewards.append(r)
            total += r
            n += 1
        loss = agent.finish_episode()
        if episode % 20 == 0:
            print(f"episode {episode} steps {n} reward {total:.2f} loss {loss:.4f}")


if __name__ == "__main__":
    main()
