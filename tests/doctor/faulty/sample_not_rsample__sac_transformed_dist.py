"""SAC on a tracking toy with TransformedDistribution(Normal, Tanh)."""
import copy
import random
from collections import deque

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform


def tracking_env(seed: int):
    """Generator: receives an action, yields (next_obs, reward). No terminal states."""
    g = torch.Generator().manual_seed(seed)
    x, ref = torch.zeros(1), torch.rand(1, generator=g) * 2 - 1
    reward = 0.0
    while True:
        action = yield torch.cat([x, ref]), reward
        x = (x + 0.3 * action).clamp(-2, 2)
        reward = -float((x - ref) ** 2)
        ref = (ref + 0.1 * torch.randn(1, generator=g)).clamp(-1.5, 1.5)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, 64), nn.ReLU())
        self.mu, self.log_std = nn.Linear(64, 1), nn.Linear(64, 1)

    def forward(self, obs):
        h = self.trunk(obs)
        base = Independent(Normal(self.mu(h), self.log_std(h).clamp(-5, 2).exp()), 1)
        return TransformedDistribution(base, [TanhTransform(cache_size=1)])


class TwinQ(nn.Module):
    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList([nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(2)])

    def forward(self, obs, act):
        x = torch.cat([obs, act], -1)
        return torch.stack([q(x).squeeze(-1) for q in self.nets])


def main():
    torch.manual_seed(7); random.seed(7)
    pi, q = Policy(), TwinQ()
    q_targ = copy.deepcopy(q).requires_grad_(False)
    pi_opt = torch.optim.Adam(pi.parameters(), lr=1e-3)
    q_opt = torch.optim.Adam(q.parameters(), lr=1e-3)
    alpha, gamma, tau = 0.05, 0.95, 0.01
    memory = deque(maxlen=5000)
    env = tracking_env(7)
    obs, _ = next(env)
    for step in range(600):
        with torch.no_grad():
            act = pi(obs.unsqueeze(0)).sample().squeeze(0)
        nxt, rew = env.send(act)
        memory.append((obs, act, torch.tensor(rew), nxt))
        obs = nxt
        if len(memory) < 128:
            continue
        o, a, r, o2 = map(torch.stack, zip(*random.sample(memory, 64)))
        with torch.no_grad():
            d2 = pi(o2)
            a2 = d2.sample()
            y = r + gamma * (q_targ(o2, a2).min(0).values - alpha * d2.log_prob(a2))
        q_loss = F.mse_loss(q(o, a), y.expand(2, -1))
        q_opt.zero_grad(); q_loss.backward(); q_opt.step()

        dist = pi(o)
        new_a = dist.sample()  # expect: sample-not-rsample
        logp = dist.log_prob(new_a)
        pi_loss = (alpha * logp - q(o, new_a).min(0).values).mean()
        pi_opt.zero_grad(); pi_loss.backward(); pi_opt.step()

        with torch.no_grad():
            for p, tp in zip(q.parameters(), q_targ.parameters()):
                tp.lerp_(p, tau)
        if step % 150 == 0:
            print(step, f"q {q_loss.item():.3f} pi {pi_loss.item():.3f}")


main()
