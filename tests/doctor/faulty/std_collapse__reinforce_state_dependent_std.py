import torch
import torch.nn as nn
from torch.distributions import Normal


class Policy(nn.Module):
    """Mean and log-std from one trunk."""

    def __init__(self, d_obs, d_act):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(d_obs, 32), nn.Tanh())
        self.mean = nn.Linear(32, d_act)
        self.log_std = nn.Linear(32, d_act)

    def forward(self, obs):
        h = self.trunk(obs)
        std = torch.exp(self.log_std(h))  # expect: std-collapse
        return Normal(self.mean(h), std)


class DosingEnv:
    """One decision per patient: choose the dose that matches weight and age."""

    def __init__(self, batch):
        self.batch = batch

    def reset(self):
        self.patient = torch.rand(self.batch, 2)
        return self.patient

    def step(self, dose):
        ideal = 0.5 + self.patient[:, :1] - 0.5 * self.patient[:, 1:]
        return -((dose - ideal) ** 2).squeeze(1)


def main():
    torch.manual_seed(23)
    env, policy = DosingEnv(128), Policy(2, 1)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for it in range(700):
        obs = env.reset()
        dist = policy(obs)
        dose = dist.sample()
        reward = env.step(dose)
        adv = (reward - reward.mean()) / (reward.std() + 1e-8)
        loss = -(dist.log_prob(dose).squeeze(1) * adv).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if it % 100 == 0:
            print(f"{it:4d} reward {reward.mean().item():9.5f} std {dist.stddev.mean().item():.5f}")


if __name__ == "__main__":
    main()
