"""Policy gradient for a dart thrower: the state tells the wind, the action is the aim."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal


class DartEnv:
    def __init__(self, batch):
        self.batch = batch

    def reset(self):
        self.wind = torch.rand(self.batch, 1) * 2 - 1
        return self.wind

    def step(self, aim):
        landed = aim + 1.5 * self.wind
        return -(landed - 1.0).abs().squeeze(1)


class Thrower(nn.Module):
    def __init__(self, init_std=0.5):
        super().__init__()
        self.fc = nn.Linear(1, 32)
        self.mu = nn.Linear(32, 1)
        self.std = nn.Parameter(torch.full((1,), init_std))

    def forward(self, s):
        mu = self.mu(torch.tanh(self.fc(s)))
        std = self.std.clamp(min=1e-6, max=2.0)  # expect: std-collapse
        return Normal(mu, std.expand_as(mu))


class Trainer:
    def __init__(self, lr=1e-2, batch=64):
        self.env = DartEnv(batch)
        self.policy = Thrower()
        self.value = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
        self.optim = torch.optim.Adam([
            {"params": self.policy.parameters(), "lr": lr},
            {"params": self.value.parameters(), "lr": 1e-2},
        ])

    def iterate(self):
        s = self.env.reset()
        dist = self.policy(s)
        a = dist.sample()
        reward = self.env.step(a)
        v = self.value(s).squeeze(1)
        adv = reward - v.detach()
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        pg_loss = -(dist.log_prob(a).squeeze(1) * adv).mean()
        v_loss = F.mse_loss(v, reward)
        self.optim.zero_grad()
        (pg_loss + v_loss).backward()
        self.optim.step()
        return reward.mean().item(), dist.stddev.mean().item(), pg_loss.item()


if __name__ == "__main__":
    torch.manual_seed(6)
    trainer = Trainer()
    for i in range(500):
        reward, std, loss = trainer.iterate()
        if i % 50 == 0 or i == 499:
            print(f"{i:4d} reward {reward:.4f} std {std:.2e} loss {loss:.3f}")
