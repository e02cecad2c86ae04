"""Contextual bandit: a critic is fitted on random dosages, a stochastic actor climbs it."""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal


class DoseActor(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.trunk = nn.Linear(2, hidden)
        self.mu_head = nn.Linear(hidden, 1)
        self.std_head = nn.Linear(hidden, 1)

    def forward(self, s):
        h = torch.tanh(self.trunk(s))
        mu = self.mu_head(h)
        sigma = F.softplus(self.std_head(h))  # expect: std-collapse
        return Normal(mu, sigma)


class DoseCritic(nn.Module):
    """Q(s, a) = V(s) - k(s) * (a - m(s))^2, a normalised-advantage form"""

    def __init__(self, hidden=32):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 3))

    def forward(self, s, a):
        v, m, k = self.net(s).split(1, dim=1)
        return v - F.softplus(k) * (a - m).pow(2)


def effect(patients, dose):
    age, weight = patients[:, :1], patients[:, 1:]
    best = 0.6 * weight - 0.4 * age
    return -(dose - best).pow(2) + 0.1 * torch.randn_like(dose)


def main():
    torch.manual_seed(25)
    actor, critic = DoseActor(), DoseCritic()
    opt_actor = torch.optim.RMSprop(actor.parameters(), lr=4e-3, alpha=0.9)
    opt_critic = torch.optim.Adam(critic.parameters(), lr=5e-3)
    effects = []
    for it in range(1000):
        patients = torch.empty(64, 2).uniform_(-1, 1)
        dose = torch.empty(64, 1).uniform_(-2, 2)
        outcome = effect(patients, dose)
        critic_loss = F.mse_loss(critic(patients, dose), outcome)
        opt_critic.zero_grad()
        critic_loss.backward()
        opt_critic.step()

        if it < 200:
            continue
        dist = actor(patients)
        suggested = dist.rsample()
        actor_loss = -critic(patients, suggested).mean()
        opt_actor.zero_grad()
        actor_loss.backward()
        opt_actor.step()
        effects.append(effect(patients, suggested.detach()).mean().item())
        if it % 200 == 199:
            print(f"{it} critic {critic_loss.item():.4f} effect {np.mean(effects[-50:]):.4f} entropy {dist.entropy().mean().item():.2f} s {dist.stddev.mean().item():.2e}")


if __name__ == "__main__":
    main()
