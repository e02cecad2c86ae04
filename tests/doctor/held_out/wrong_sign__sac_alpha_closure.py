"""Soft actor-critic on a 1-D tracking task; builder function returning closures."""
import copy
import numpy as np
import torch
from torch import nn
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform


class Tracker:
    """Follow a slowly moving reference with a first-order lag."""
    def __init__(self, seed):
        self.rng = np.random.RandomState(seed)
        self.reset()

    def reset(self):
        self.y, self.ref, self.k = 0.0, self.rng.uniform(-1, 1), 0
        return self.obs()

    def obs(self):
        return np.array([self.y, self.ref, self.ref - self.y], dtype=np.float32)

    def step(self, u):
        self.y += 0.3 * (1.5 * float(u) - self.y)
        self.ref = np.clip(self.ref + 0.05 * self.rng.randn(), -1, 1)
        self.k += 1
        return self.obs(), -abs(self.ref - self.y), self.k % 100 == 0


def build(obs_dim, act_dim, alpha=0.1, gamma=0.95, tau=0.02, lr=1e-3):
    actor = nn.Sequential(nn.Linear(obs_dim, 64), nn.ReLU(), nn.Linear(64, 2 * act_dim))
    critics = nn.ModuleList([nn.Sequential(nn.Linear(obs_dim + act_dim, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(2)])
    frozen = copy.deepcopy(critics)
    for p in frozen.parameters():
        p.requires_grad = False
    actor_opt = torch.optim.Adam(actor.parameters(), lr=lr)
    critic_opt = torch.optim.Adam(critics.parameters(), lr=lr)

    def dist(s):
        mu, ls = actor(s).chunk(2, dim=-1)
        base = Normal(mu.clamp(-4, 4), ls.clamp(-3, 1).exp())
        return TransformedDistribution(base, TanhTransform(cache_size=1))

    def act(s):
        with torch.no_grad():
            return dist(torch.from_numpy(s)).sample().numpy()

    def qmin(nets, s, a):
        x = torch.cat([s, a], -1)
        return torch.min(nets[0](x), nets[1](x)).squeeze(-1)

    def update(s, a, r, s2):
        with torch.no_grad():
            d2 = dist(s2)
            a2 = d2.sample()
            soft_v = qmin(frozen, s2, a2) - alpha * d2.log_prob(a2).sum(-1)
            y = r + gamma * soft_v
        x = torch.cat([s, a], -1)
        critic_loss = sum((c(x).squeeze(-1) - y).pow(2).mean() for c in critics)
        critic_opt.zero_grad()
        critic_loss.backward()
        critic_opt.step()

        d = dist(s)
        new_a = d.rsample()
        logp = d.log_prob(new_a).sum(-1)
        actor_loss = (-alpha * logp - qmin(critics, s, new_a)).mean()  # expect: wrong-sign
        actor_opt.zero_grad()
        actor_loss.backward()
        actor_opt.step()

        for p, q in zip(critics.parameters(), frozen.parameters()):
            q.data.copy_((1 - tau) * q.data + tau * p.data)
        return critic_loss.item(), actor_loss.item(), -logp.mean().item()

    return act, update


torch.manual_seed(21)
env, mem = Tracker(21), []
act, update = build(3, 1)
s, rewards = env.reset(), []
for t in range(900):
    a = act(s)
    s2, r, time_up = env.step(a[0])
    mem.append((s, a, np.float32(r), s2))
    rewards.append(r)
    s = env.reset() if time_up else s2
    if t >= 100:
        ids = env.rng.randint(0, len(mem), 64)
        cols = [torch.as_tensor(np.stack(c)) for c in zip(*[mem[i] for i in ids])]
        c, al, ent = update(*cols)
        if t % 100 == 99:
            print(f"{t + 1}: reward {np.mean(rewards[-100:]):.3f} critic {c:.3f} actor {al:.3f} entropy {ent:.2f}")
