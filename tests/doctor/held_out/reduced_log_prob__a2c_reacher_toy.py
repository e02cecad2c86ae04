import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.distributions import Normal


@dataclass
class Config:
    envs: int = 16
    horizon: int = 8
    iters: int = 150
    gamma: float = 0.95
    lr: float = 2e-3
    seed: int = 8


class PointReach:
    """A point mass that should go to a target; two accelerations as actions."""

    def __init__(self, n):
        self.n = n
        self.x = torch.rand(n, 2) * 2 - 1
        self.v = torch.zeros(n, 2)
        self.goal = torch.rand(n, 2) * 2 - 1

    def observe(self):
        return torch.cat([self.goal - self.x, self.v], dim=1)

    def step(self, a):
        a = a.clamp(-1, 1)
        self.v = 0.8 * self.v + 0.2 * a
        self.x = self.x + 0.3 * self.v
        dist = (self.goal - self.x).norm(dim=1)
        hit = dist < 0.1
        reward = -dist + 2.0 * hit.float()
        final = self.observe()
        self.goal = torch.where(hit.unsqueeze(1), torch.rand(self.n, 2) * 2 - 1, self.goal)
        return final, reward, hit.float()


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.pi = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
        self.vf = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.full((2,), math.log(0.6)))

    def dist(self, o):
        return Normal(self.pi(o), self.log_std.clamp(-2.0, 0.5).exp())

    def value(self, o):
        return self.vf(o).squeeze(-1)


def train(cfg):
    torch.manual_seed(cfg.seed)
    env, net = PointReach(cfg.envs), ActorCritic()
    opt = torch.optim.Adam(net.parameters(), lr=cfg.lr)
    for it in range(cfg.iters):
        obs, acts, rews, dones, finals = [], [], [], [], []
        for _ in range(cfg.horizon):
            o = env.observe()
            with torch.no_grad():
                a = net.dist(o).sample()
            f, r, d = env.step(a)
            obs.append(o); acts.append(a); rews.append(r); dones.append(d); finals.append(f)
        with torch.no_grad():
            ret = net.value(finals[-1])
            targets = []
            for r, d in zip(reversed(rews), reversed(dones)):
                ret = r + cfg.gamma * (1 - d) * ret
                targets.insert(0, ret)
        obs, acts, targets = torch.cat(obs), torch.cat(acts), torch.cat(targets)

        values = net.value(obs)
        adv = (targets - values).detach()
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        dist = net.dist(obs)
        # independent dimensions: add up the log densities
        logp = dist.log_prob(acts).sum()  # expect: reduced-log-prob
        pg = -(logp * adv).mean() / cfg.envs
        vl = (targets - values).pow(2).mean()
        ent = dist.entropy().sum(-1).mean()
        opt.zero_grad()
        (pg + 0.5 * vl - 1e-3 * ent).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        if (it + 1) % 30 == 0:
            print(f"{it + 1:4d} reward {torch.stack(rews).mean():.3f} pg {pg.item():+.5f} v {vl.item():.3f}")


train(Config())
