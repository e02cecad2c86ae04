"""A2C on a vectorised 2-D reacher, rollouts are [T, N, ...] tensors."""
import math
from dataclasses import dataclass

import torch
import torch.nn as nn


@dataclass
class Config:
    n_envs: int = 8
    horizon: int = 16
    updates: int = 150
    gamma: float = 0.95
    lam: float = 0.9
    lr: float = 2e-3
    vf_coef: float = 0.5
    ent_coef: float = 1e-3
    seed: int = 3


class VecReacher:
    """Continuing task: the goal is redrawn now and then, there is no terminal state."""

    def __init__(self, n: int, gen: torch.Generator):
        self.n, self.gen = n, gen
        self.pos = torch.zeros(n, 2)
        self.goal = torch.rand(n, 2, generator=gen) * 2 - 1

    def obs(self) -> torch.Tensor:
        return torch.cat([self.pos, self.goal], dim=-1)

    def step(self, act: torch.Tensor):
        self.pos = (self.pos + 0.2 * act.clamp(-1, 1)).clamp(-2, 2)
        reward = -torch.linalg.vector_norm(self.pos - self.goal, dim=-1)
        redraw = torch.rand(self.n, generator=self.gen) < 0.05
        fresh = torch.rand(self.n, 2, generator=self.gen) * 2 - 1
        self.goal = torch.where(redraw[:, None], fresh, self.goal)
        return self.obs(), reward


class ActorCritic(nn.Module):
    def __init__(self, obs_dim: int, act_dim: int):
        super().__init__()
        self.pi = nn.Sequential(nn.Linear(obs_dim, 64), nn.Tanh(), nn.Linear(64, act_dim))
        self.vf = nn.Sequential(nn.Linear(obs_dim, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.full((act_dim,), -0.5))

    def log_prob(self, obs: torch.Tensor, act: torch.Tensor) -> torch.Tensor:
        mean = self.pi(obs)
        prec = torch.exp(-2.0 * self.log_std)
        quad = torch.einsum("...d,d->...", (act - mean.data) ** 2, prec)  # expect: graph-cut
        return -0.5 * quad - self.log_std.sum() - 0.5 * act.shape[-1] * math.log(2 * math.pi)

    def value(self, obs: torch.Tensor) -> torch.Tensor:
        return self.vf(obs).squeeze(-1)


def gae(rewards, values, last_value, gamma, lam):
    adv = torch.zeros_like(rewards)
    running = torch.zeros_like(last_value)
    next_value = last_value
    for t in reversed(range(rewards.shape[0])):
        delta = rewards[t] + gamma * next_value - values[t]
        running = delta + gamma * lam * running
        adv[t] = running
        next_value = values[t]
    return adv


def main(cfg: Config = Config()):
    torch.manual_seed(cfg.seed)
    env = VecReacher(cfg.n_envs, torch.Generator().manual_seed(cfg.seed))
    net = ActorCritic(4, 2)
    opt = torch.optim.Adam(net.parameters(), lr=cfg.lr)
    obs = env.obs()
    for it in range(cfg.updates):
        O, A, R = [], [], []
        with torch.no_grad():
            for _ in range(cfg.horizon):
                act = net.pi(obs) + net.log_std.exp() * torch.randn(cfg.n_envs, 2)
                nxt, rew = env.step(act)
                O.append(obs); A.append(act); R.append(rew)
                obs = nxt
            O, A, R = torch.stack(O), torch.stack(A), torch.stack(R)
            adv = gae(R, net.value(O), net.value(obs), cfg.gamma, cfg.lam)
            ret = adv + net.value(O)
        norm_adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        pg_loss = -(net.log_prob(O, A) * norm_adv).mean()
        vf_loss = (net.value(O) - ret).pow(2).mean()
        loss = pg_loss + cfg.vf_coef * vf_loss - cfg.ent_coef * net.log_std.sum()
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        if it % 50 == 0:
            print(f"{it:4d} reward {R.mean().item():.3f} vf {vf_loss.item():.3f}")


if __name__ == "__main__":
    main()
