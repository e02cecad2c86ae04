"""Advantage actor critic on a batch of little 1D 'stay near the origin' worlds."""
import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(0)

N_ENVS, HORIZON, GAMMA = 16, 12, 0.95


class PointWorld:
    """x' = x + 0.3 * (a - 1) + noise, cost |x|."""

    def __init__(self, n):
        self.n = n

    def reset(self):
        self.x = torch.empty(self.n, 1).uniform_(-2, 2)
        return self.x.clone()

    def step(self, a):
        self.x = self.x + 0.3 * (a.float().unsqueeze(1) - 1) + 0.05 * torch.randn(self.n, 1)
        return self.x.clone(), -self.x.abs().squeeze(1)


actor = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 3))
critic = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(list(actor.parameters()) + list(critic.parameters()), lr=5e-3)

env = PointWorld(N_ENVS)
for update in range(120):
    obs_list, act_list, rew_list = [], [], []
    obs = env.reset()
    with torch.no_grad():
        for t in range(HORIZON):
            action = Categorical(logits=actor(obs)).sample()
            nxt, rew = env.step(action)
            obs_list.append(obs)
            act_list.append(action)
            rew_list.append(rew)
            obs = nxt
        # bootstrap from the last state
        ret = critic(obs).squeeze(1)
        returns = []
        for rew in reversed(rew_list):
            ret = rew + GAMMA * ret
            returns.insert(0, ret)

    obs_b = torch.cat(obs_list)
    act_b = torch.cat(act_list)
    ret_b = torch.cat(returns)

    dist = Categorical(logits=actor(obs_b))
    values = critic(obs_b).squeeze(-1)
    advantage = ret_b - values  # expect: target-not-detached
    policy_loss = -(dist.log_prob(act_b) * advantage).mean()
    value_loss = nn.functional.mse_loss(values, ret_b)
    entropy = dist.entropy().mean()
    loss = policy_loss + 0.5 * value_loss - 0.01 * entropy

    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(actor.parameters(), 0.5)
    optimizer.step()

    if update % 20 == 0:
        print(update, "mean reward", torch.stack(rew_list).mean().item(), "v loss", value_loss.item())
