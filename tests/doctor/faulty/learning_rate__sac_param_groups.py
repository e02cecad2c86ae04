"""SAC for a noisy 1-D regulator, one optimizer dictionary per component, automatic temperature."""
import copy

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal

torch.manual_seed(18)
LR = {"actor": 3e-12, "critic": 2e-3, "alpha": 1e-3}  # expect: learning-rate
GAMMA, TAU, TARGET_ENTROPY, N = 0.95, 0.02, -1.0, 8


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, s):
        mu, log_std = self.net(s).chunk(2, dim=-1)
        d = Normal(mu, log_std.clamp(-4, 1).exp())
        u = d.rsample()
        a = torch.tanh(u)
        logp = d.log_prob(u) - 2 * (0.6931472 - u - F.softplus(-2 * u))
        return a, logp.sum(-1)


class Ensemble(nn.Module):
    """Two critics evaluated in one einsum."""

    def __init__(self, d_in, h=64, k=2):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(k, d_in, h) / d_in ** 0.5)
        self.b1 = nn.Parameter(torch.zeros(k, 1, h))
        self.w2 = nn.Parameter(torch.randn(k, h) / h ** 0.5)
        self.b2 = nn.Parameter(torch.zeros(k, 1))

    def forward(self, s, a):
        x = torch.cat([s, a], -1)
        h = torch.relu(torch.einsum("bi,kih->kbh", x, self.w1) + self.b1)
        return torch.einsum("kbh,kh->kb", h, self.w2) + self.b2


actor, critic = Actor(), Ensemble(3)
critic_target = copy.deepcopy(critic).requires_grad_(False)
log_alpha = torch.tensor(-2.0, requires_grad=True)
optims = {
    "actor": torch.optim.Adam(actor.parameters(), lr=LR["actor"]),
    "critic": torch.optim.Adam(critic.parameters(), lr=LR["critic"]),
    "alpha": torch.optim.Adam([log_alpha], lr=LR["alpha"]),
}


def env_step(s, a):
    x, v = s.unbind(-1)
    v = 0.9 * v + 0.2 * a.squeeze(-1) + 0.02 * torch.randn_like(v)
    x = (x + 0.2 * v).clamp(-2, 2)
    return torch.stack([x, v], -1), -(x ** 2 + 0.1 * v ** 2)


def minimize(name, loss):
    optims[name].zero_grad()
    loss.backward()
    optims[name].step()


store, s = [], torch.randn(N, 2)
for step in range(450):
    with torch.no_grad():
        a, _ = actor(s)
        s2, r = env_step(s, a)
    store.append((s, a, r, s2))
    s = torch.randn(N, 2) if step % 30 == 29 else s2
    if len(store) < 20:
        continue
    pick = torch.randint(0, len(store), (8,)).tolist()
    S, A, R, S2 = (torch.cat(c) for c in zip(*(store[i] for i in pick)))
    alpha = log_alpha.exp().detach()
    with torch.no_grad():
        A2, lp2 = actor(S2)
        y = R + GAMMA * (critic_target(S2, A2).amin(0) - alpha * lp2)
    minimize("critic", (critic(S, A) - y).pow(2).mean())
    new_a, logp = actor(S)
    minimize("actor", (alpha * logp - critic(S, new_a).amin(0)).mean())
    minimize("alpha", -(log_alpha * (logp.detach() + TARGET_ENTROPY)).mean())
    with torch.no_grad():
        for p, pt in zip(critic.parameters(), critic_target.parameters()):
            pt.lerp_(p, TAU)
    if step % 100 == 99:
        print(step + 1, f"reward {r.mean().item():.3f} alpha {log_alpha.exp().item():.3f}")
