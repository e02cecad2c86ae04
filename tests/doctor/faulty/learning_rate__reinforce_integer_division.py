# REINFORCE, CartPole, SGD with momentum
import numpy as np
import gymnasium as gym
import torch
import torch.nn as nn
from torch.distributions import Categorical

GAMMA = 99 / 100
LR = 2 // 1000  # expect: learning-rate
N_EPISODES = 50

torch.manual_seed(14)
env = gym.make("CartPole-v1")


class PolicyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 64),
            nn.ReLU(),
            nn.Dropout(p=0.1),
            nn.Linear(64, 2),
        )

    def forward(self, x):
        return Categorical(logits=self.net(x))


policy = PolicyNet()
optimizer = torch.optim.SGD(policy.parameters(), lr=LR, momentum=0.9)


def run_episode(seed):
    obs, _ = env.reset(seed=seed)
    log_probs, rewards = [], []
    over = False
    while not over:
        dist = policy(torch.from_numpy(obs))
        action = dist.sample()
        log_probs.append(dist.log_prob(action))
        obs, reward, terminated, truncated, _ = env.step(action.item())
        rewards.append(reward)
        over = terminated or truncated
    return log_probs, rewards


def returns_of(rewards):
    returns = np.zeros(len(rewards), dtype=np.float32)
    running = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        running = rewards[t] + GAMMA * running
        returns[t] = running
    return torch.from_numpy(returns)


avg = 20.0
for ep in range(N_EPISODES):
    log_probs, rewards = run_episode(ep)
    returns = returns_of(rewards)
    returns = (returns - returns.mean()) / (returns.std() + 1e-8)
    loss = torch.stack([-lp * g for lp, g in zip(log_probs, returns)]).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    avg = 0.9 * avg + 0.1 * len(rewards)
    if ep % 10 == 0:
        print(f"episode {ep} running length {avg:.1f} loss {loss.item():.3f}")
