import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal

torch.manual_seed(4)
env = gym.make("Pendulum-v1")


class GaussianPolicy(nn.Module):
    def __init__(self, obs_dim, act_dim):
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(obs_dim, 64), nn.Tanh(), nn.Linear(64, act_dim))
        self.log_std = nn.Parameter(torch.zeros(act_dim))

    def forward(self, x):
        std = torch.exp(self.log_std.clamp(-2.0, 0.5))
        return Normal(self.mu(x), std)


policy = GaussianPolicy(3, 1)
baseline = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
pi_opt = torch.optim.Adam(policy.parameters(), lr=2e-3)
v_opt = torch.optim.Adam(baseline.parameters(), lr=5e-3)


def select_action(obs):
    dist = policy(torch.as_tensor(obs, dtype=torch.float32))
    action = dist.rsample()  # expect: rsample-in-score
    log_prob = dist.log_prob(action).sum(-1)
    return action.detach().numpy(), log_prob


def rewards_to_go(rewards, gamma=0.95):
    out = np.zeros(len(rewards), dtype=np.float32)
    acc = 0.0
    for i in range(len(rewards) - 1, -1, -1):
        acc = rewards[i] + gamma * acc
        out[i] = acc
    return torch.from_numpy(out)


for episode in range(35):
    obs, _ = env.reset(seed=episode)
    states, log_probs, rewards = [], [], []
    for _ in range(60):
        a, lp = select_action(obs)
        states.append(obs)
        log_probs.append(lp)
        obs, r, terminated, truncated, _ = env.step(np.clip(a, -2, 2))
        rewards.append(r / 10)
    states = torch.tensor(np.array(states), dtype=torch.float32)
    g = rewards_to_go(rewards)
    v = baseline(states).squeeze(-1)
    adv = (g - v).detach()
    adv = (adv - adv.mean()) / (adv.std() + 1e-6)
    policy_loss = -(torch.stack(log_probs) * adv).mean()
    value_loss = (v - g).pow(2).mean()

    pi_opt.zero_grad()
    policy_loss.backward()
    pi_opt.step()
    v_opt.zero_grad()
    value_loss.backward()
    v_opt.step()
    if episode % 5 == 0:
        print(f"ep {episode:3d} return {sum(rewards):8.2f} value loss {value_loss.item():.3f}")
