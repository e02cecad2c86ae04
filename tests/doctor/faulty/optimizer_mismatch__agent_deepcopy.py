import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical


def build_policy(obs_dim=4, n_actions=2, hidden=64):
    return nn.Sequential(nn.Linear(obs_dim, hidden), nn.ReLU(), nn.Linear(hidden, n_actions))


class Reinforce:
    def __init__(self, policy, lr=5e-3, gamma=0.99):
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
        self.policy = copy.deepcopy(policy)  # expect: optimizer-mismatch
        self.best_policy = copy.deepcopy(policy)
        self.best_score = -float("inf")
        self.gamma = gamma
        self.reset()

    def reset(self):
        self.log_probs, self.rewards = [], []

    def act(self, obs):
        dist = Categorical(logits=self.policy(torch.from_numpy(obs)))
        action = dist.sample()
        self.log_probs.append(dist.log_prob(action))
        return action.item()

    def finish_episode(self):
        score = sum(self.rewards)
        if score > self.best_score:
            self.best_score = score
            self.best_policy.load_state_dict(self.policy.state_dict())

        returns, g = [], 0.0
        for r in reversed(self.rewards):
            g = r + self.gamma * g
            returns.insert(0, g)
        returns = torch.tensor(returns)
        returns = (returns - returns.mean()) / (returns.std() + 1e-8)
        loss = -(torch.stack(self.log_probs) * returns).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.reset()
        return score


if __name__ == "__main__":
    torch.manual_seed(0)
    env = gym.make("CartPole-v1")
    agent = Reinforce(build_policy())
    scores = []
    for episode in range(100):
        obs, _ = env.reset(seed=episode)
        done = False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(agent.act(obs))
            agent.rewards.append(reward)
            done = terminated or truncated
        scores.append(agent.finish_episode())
        if episode % 25 == 24:
            print(f"episode {episode + 1}: mean {np.mean(scores[-25:]):.1f}, best {agent.best_score:.0f}")
