# REINFORCE with a Gaussian policy, MountainCarContinuous
import gymnasium as gym
import numpy as np
import torch
from torch import nn, optim
from torch.distributions import Normal

torch.manual_seed(42)

GAMMA = 0.99
N_EPISODES = 40

env = gym.make("MountainCarContinuous-v0", max_episode_steps=100)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(2, 32)
        self.fc2 = nn.Linear(32, 1)
        self.log_std = nn.Parameter(torch.full((1,), -0.5))

    def forward(self, x):
        x = torch.tanh(self.fc1(x))
        return Normal(self.fc2(x), self.log_std.clamp(-3, 1).exp())


policy = Policy()
optimizer = optim.Adam(policy.parameters(), lr=3e-3)


def run_episode(seed):
    state, _ = env.reset(seed=seed)
    log_probs, rewards = [], []
    while True:
        dist = policy(torch.tensor(state, dtype=torch.float32))
        action = dist.rsample()  # expect: rsample-in-score
        log_probs.append(dist.log_prob(action).sum())
        # keep the force the engine can deliver
        force = action.detach().numpy().clip(-1.0, 1.0)
        pos_before = state[0]
        state, reward, terminated, truncated, _ = env.step(force)
        # shaping: reward speed, otherwise nothing is ever found
        rewards.append(float(reward) + 20.0 * abs(float(state[1])))
        if terminated or truncated:
            return log_probs, rewards


def discounted(rewards):
    out, g = [], 0.0
    for r in reversed(rewards):
        g = r + GAMMA * g
        out.append(g)
    return torch.tensor(out[::-1], dtype=torch.float32)


history = []
for ep in range(N_EPISODES):
    log_probs, rewards = run_episode(seed=ep)
    returns = discounted(rewards)
    returns = (returns - returns.mean()) / (returns.std() + 1e-6)
    loss = -(torch.stack(log_probs) * returns).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(sum(rewards))
    if ep % 10 == 9:
        print(f"{ep + 1:4d}  mean reward {np.mean(history[-10:]):8.3f}  std {policy.log_std.exp().item():.3f}")
