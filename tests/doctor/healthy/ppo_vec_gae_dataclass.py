"""PPO on a vectorised reacher with time limits (bootstrapped) and [T, N] tensors."""
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributions import Independent, Normal


@dataclass
class Cfg:
    T: int = 32
    N: int = 8
    iters: int = 15
    epochs: int = 4
    gamma: float = 0.95
    lam: float = 0.9
    clip: float = 0.2
    lr: float = 2e-3


class TimedReacher:
    LIMIT = 25

    def __init__(self, n):
        self.n, self.t = n, torch.zeros(n, dtype=torch.long)
        self.pos, self.goal = torch.zeros(n, 2), torch.rand(n, 2) * 2 - 1

    def obs(self):
        return torch.cat([self.pos, self.goal], 1)

    def step(self, a):
        self.pos = (self.pos + 0.2 * a).clamp(-2, 2)
        self.t += 1
        dist = (self.pos - self.goal).norm(dim=1)
        term, trunc = dist < 0.1, self.t >= self.LIMIT
        final = self.obs()
        reset = term | trunc
        self.pos = torch.where(reset[:, None], torch.zeros(self.n, 2), self.pos)
        self.goal = torch.where(reset[:, None], torch.rand(self.n, 2) * 2 - 1, self.goal)
        self.t[reset] = 0
        return self.obs(), -dist + term.float(), term.float(), reset.float(), final


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
        self.v = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.full((2,), -0.5))

    def dist(self, o):
        return Independent(Normal(self.mu(o), self.log_std.clamp(-2.5, 0.5).exp()), 1)


def gae(r, v, nv, term, end, gamma, lam):
    adv, run = torch.zeros_like(r), torch.zeros_like(r[0])
    for t in reversed(range(len(r))):
        delta = r[t] + gamma * (1 - term[t]) * nv[t] - v[t]
        run = delta + gamma * lam * (1 - end[t]) * run
        adv[t] = run
    return adv


def main(c=Cfg()):
    torch.manual_seed(1)
    env, net = TimedReacher(c.N), Net()
    opt = torch.optim.Adam(net.parameters(), lr=c.lr)
    sched = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.2, total_iters=c.iters)
    o = env.obs()
    for it in range(c.iters):
        keep = {k: [] for k in ("o", "a", "lp", "r", "term", "end", "v", "nv")}
        with torch.no_grad():
            for _ in range(c.T):
                d = net.dist(o)
                a = d.sample()
                o2, r, term, end, final = env.step(a.clamp(-1, 1))
                row = dict(o=o, a=a, lp=d.log_prob(a), r=r, term=term, end=end,
                           v=net.v(o).squeeze(-1), nv=net.v(final).squeeze(-1))
                for k, x in row.items():
                    keep[k].append(x)
                o = o2
        b = {k: torch.stack(x) for k, x in keep.items()}
        b["adv"] = gae(b["r"], b["v"], b["nv"], b["term"], b["end"], c.gamma, c.lam)
        b["ret"] = b["adv"] + b["v"]
        flat = {k: x.flatten(0, 1) for k, x in b.items()}
        for _ in range(c.epochs):
            for i in torch.randperm(c.T * c.N).split(64):
                ratio = (net.dist(flat["o"][i]).log_prob(flat["a"][i]) - flat["lp"][i]).exp()
                adv = flat["adv"][i]
                adv = (adv - adv.mean()) / (adv.std() + 1e-8)
                pg = -torch.min(ratio * adv, ratio.clamp(1 - c.clip, 1 + c.clip) * adv).mean()
                vf = (net.v(flat["o"][i]).squeeze(-1) - flat["ret"][i]).square().mean()
                opt.zero_grad()
                (pg + 0.5 * vf).backward()
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                opt.step()
        sched.step()
        if it % 5 == 4:
            print(it + 1, f"reward {b['r'].mean().item():.3f}")


if __name__ == "__main__":
    main()
