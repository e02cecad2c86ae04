# Stochastic policy improved through a learned reward model (one-step control of a thermostat)
import torch
import torch.nn as nn
import torch.distributions as D

g = torch.Generator().manual_seed(0)
torch.manual_seed(0)

BUFFER = 1024
obs_buf = torch.zeros(BUFFER, 3)
act_buf = torch.zeros(BUFFER, 2)
rew_buf = torch.zeros(BUFFER, 1)


def new_obs(n):
    return torch.rand(n, 3, generator=g) * 2 - 1


def plant(obs, act):
    """reward: how near heating and fan come to what the room needs"""
    need = torch.stack([0.8 * obs[:, 0] - 0.3 * obs[:, 1], 0.5 * obs[:, 2]], dim=1)
    return -(act - need).pow(2).sum(dim=1, keepdim=True) + 0.02 * torch.randn(len(obs), 1, generator=g)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 48), nn.Tanh())
        self.mean = nn.Linear(48, 2)
        self.raw_std = nn.Linear(48, 2)

    def forward(self, obs):
        h = self.trunk(obs)
        std = 0.1 + 0.4 * torch.sigmoid(self.raw_std(h))
        return D.Independent(D.Normal(self.mean(h), std), 1)


policy = Policy()
model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 1))
policy_opt = torch.optim.Adam(policy.parameters(), lr=2e-3)
model_opt = torch.optim.Adam(model.parameters(), lr=4e-3)

for it in range(250):
    # act
    obs = new_obs(16)
    with torch.no_grad():
        act = policy(obs).sample()
    rew = plant(obs, act)
    rows = torch.arange(it * 16, (it + 1) * 16) % BUFFER
    obs_buf[rows], act_buf[rows], rew_buf[rows] = obs, act, rew

    # fit the reward model
    idx = torch.randint(0, min(BUFFER, (it + 1) * 16), (128,))
    pred = model(torch.cat([obs_buf[idx], act_buf[idx]], dim=1))
    model_loss = nn.functional.mse_loss(pred, rew_buf[idx])
    model_opt.zero_grad()
    model_loss.backward()
    model_opt.step()

    # improve the policy through the model
    dist = policy(obs_buf[idx])
    a = dist.sample()  # expect: sample-not-rsample
    value = model(torch.cat([obs_buf[idx], a], dim=1)).squeeze(1)
    policy_loss = -(value + 0.01 * dist.entropy()).mean()
    policy_opt.zero_grad()
    policy_loss.backward()
    policy_opt.step()

    if it % 50 == 49:
        print(f"{it + 1:4d}  reward {rew.mean().item():.3f}  model loss {model_loss.item():.4f}")
