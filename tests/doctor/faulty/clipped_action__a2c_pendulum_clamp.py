import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal

torch.manual_seed(0)
env = gym.make("Pendulum-v1")
GAMMA = 0.95


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 64)
        self.mu = nn.Linear(64, 1)
        self.log_std = nn.Parameter(torch.full((1,), 0.7))

    def forward(self, s):
        h = torch.tanh(self.fc(s))
        return Normal(self.mu(h), self.log_std.clamp(-1, 1).exp())


class Value(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, s):
        return self.net(s).squeeze(-1)


policy, value = Policy(), Value()
opt_pi = torch.optim.Adam(policy.parameters(), lr=1e-3)
opt_v = torch.optim.Adam(value.parameters(), lr=3e-3)

obs, _ = env.reset(seed=0)
ep_ret, ep_rets = 0.0, []
for update in range(60):
    logps, rews, states, next_states = [], [], [], []
    for _ in range(20):
        s = torch.as_tensor(obs, dtype=torch.float32)
        dist = policy(s)
        action = dist.sample()
        action = torch.clamp(action, -2.0, 2.0)  # expect: clipped-action
        logps.append(dist.log_prob(action).sum())
        obs2, r, terminated, truncated, _ = env.step(action.numpy())
        states.append(s)
        rews.append(r / 8.0)
        next_states.append(torch.as_tensor(obs2, dtype=torch.float32))
        ep_ret += r
        obs = obs2
        if terminated or truncated:
            ep_rets.append(ep_ret)
            ep_ret = 0.0
            obs, _ = env.reset()

    states_t, next_t = torch.stack(states), torch.stack(next_states)
    rews_t = torch.tensor(rews, dtype=torch.float32)
    with torch.no_grad():
        # Pendulum never terminates, so always bootstrap
        target = rews_t + GAMMA * value(next_t)
    v = value(states_t)
    adv = (target - v).detach()

    v_loss = (v - target).pow(2).mean()
    opt_v.zero_grad()
    v_loss.backward()
    opt_v.step()

    pi_loss = -(torch.stack(logps) * adv).mean()
    opt_pi.zero_grad()
    pi_loss.backward()
    opt_pi.step()
    if update % 20 == 0:
        print(update, "v loss", v_loss.item(), "returns", np.round(ep_rets[-3:], 1))
