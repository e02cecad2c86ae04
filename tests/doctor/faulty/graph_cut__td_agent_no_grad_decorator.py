import argparse

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Categorical


def mlp(n_in, n_out, hidden):
    return nn.Sequential(nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, n_out))


class TDAgent:
    def __init__(self, obs_dim, n_actions, args):
        self.gamma = args.gamma
        self.policy = mlp(obs_dim, n_actions, args.hidden)
        self.value = mlp(obs_dim, 1, args.hidden)
        self.optimizer = torch.optim.Adam([
            {"params": self.policy.parameters(), "lr": args.lr},
            {"params": self.value.parameters(), "lr": 5 * args.lr},
        ])
        self.last_log_prob = None

    @torch.no_grad()  # expect: graph-cut
    def choose_action(self, obs):
        logits = self.policy(torch.as_tensor(obs))
        dist = Categorical(logits=logits)
        action = dist.sample()
        self.last_log_prob = dist.log_prob(action)
        return action.item()

    @torch.no_grad()
    def evaluate(self, obs):
        return self.value(torch.as_tensor(obs)).item()

    def learn(self, obs, reward, next_obs, terminated):
        target = reward
        if not terminated:
            target += self.gamma * self.evaluate(next_obs)
        v = self.value(torch.as_tensor(obs)).squeeze(-1)
        td_error = target - v
        policy_loss = -self.last_log_prob * td_error.detach()
        value_loss = td_error.pow(2)
        self.optimizer.zero_grad()
        (policy_loss + value_loss).backward()
        self.optimizer.step()
        return td_error.item()


def run(args):
    torch.manual_seed(args.seed)
    env = gym.make("CartPole-v1")
    agent = TDAgent(4, 2, args)
    lengths = []
    for episode in range(args.episodes):
        obs, _ = env.reset(seed=args.seed + episode)
        errors, over = [], False
        while not over:
            a = agent.choose_action(obs)
            next_obs, reward, terminated, truncated, _ = env.step(a)
            errors.append(agent.learn(obs, reward, next_obs, terminated))
            obs = next_obs
            over = terminated or truncated
        lengths.append(len(errors))
        if (episode + 1) % 10 == 0:
            print(f"{episode + 1:4d}  length {np.mean(lengths[-10:]):6.1f}  |td| {np.mean(np.abs(errors)):.3f}")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--episodes", type=int, default=40)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--gamma", type=float, default=0.99)
    p.add_argument("--hidden", type=int, default=64)
    p.add_argument("--seed", type=int, default=7)
    run(p.parse_args())
