"""Squashed Gaussian policy, REINFORCE with moving baseline on a thermostat toy problem."""
import torch
import torch.nn as nn
from torch.distributions import Normal, Independent


class SquashedPolicy(nn.Module):
    def __init__(self, obs_dim, act_dim, hidden=32):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(obs_dim, hidden), nn.ELU(), nn.Linear(hidden, hidden), nn.ELU())
        self.mean = nn.Linear(hidden, act_dim)
        self.log_std = nn.Linear(hidden, act_dim)

    def forward(self, obs):
        h = self.trunk(obs)
        std = self.log_std(h).clamp(-2, 0.5).exp()
        return Independent(Normal(self.mean(h), std), 1)

    def sample(self, obs):
        dist = self(obs)
        raw = dist.sample()
        action = torch.tanh(raw)
        log_prob = dist.log_prob(action)  # expect: clipped-action
        return action, log_prob


def simulate(policy, n_rooms=32, steps=8):
    temp = torch.empty(n_rooms, 1).uniform_(10, 30)
    wanted = torch.empty(n_rooms, 1).uniform_(18, 24)
    log_probs, rewards = [], []
    for _ in range(steps):
        obs = torch.cat([(temp - 20) / 10, (wanted - 20) / 10], dim=1)
        action, lp = policy.sample(obs)
        temp = temp + 3.0 * action - 0.05 * (temp - 15)
        log_probs.append(lp)
        rewards.append(-((temp - wanted) / 5).pow(2).squeeze(1))
    return torch.stack(log_probs), torch.stack(rewards)


def reward_to_go(rewards, gamma=0.9):
    out = torch.zeros_like(rewards)
    acc = torch.zeros(rewards.shape[1])
    for t in range(rewards.shape[0] - 1, -1, -1):
        acc = rewards[t] + gamma * acc
        out[t] = acc
    return out


if __name__ == "__main__":
    torch.manual_seed(21)
    policy = SquashedPolicy(2, 1)
    opt = torch.optim.AdamW(policy.parameters(), lr=2e-3, weight_decay=0.0)
    for i in range(150):
        log_probs, rewards = simulate(policy)
        rtg = reward_to_go(rewards)
        adv = rtg - rtg.mean(dim=1, keepdim=True)
        adv = adv / (adv.std() + 1e-8)
        loss = -(log_probs * adv).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if i % 30 == 0:
            print(f"iter {i:3d}  mean reward {rewards.mean().item():.4f}")
