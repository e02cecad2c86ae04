import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

torch.manual_seed(5)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, s):
        mu, ls = self.body(s).chunk(2, -1)
        base = Independent(Normal(mu, ls.clamp(-4, 1).exp()), 1)
        return TransformedDistribution(base, TanhTransform(cache_size=1))


def qnet():
    return nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))


def env_step(s, a):
    x, ref = s[:, :1], s[:, 1:]
    x = (x + 0.3 * a).clamp(-2, 2)
    r = -(x - ref).square().squeeze(1)
    ref = (ref + 0.05 * torch.randn_like(ref)).clamp(-1.5, 1.5)
    return torch.cat([x, ref], 1), r


pi, qs = Policy(), nn.ModuleList([qnet(), qnet()])
qs_t = copy.deepcopy(qs)
for p in qs_t.parameters():
    p.requires_grad = False
pi_opt = torch.optim.Adam(pi.parameters(), lr=1e-3)
q_opt = torch.optim.Adam(qs.parameters(), lr=2e-3)
log_alpha = nn.Parameter(torch.tensor(-2.0))
alpha_opt = torch.optim.Adam([log_alpha], lr=1e-3)
mem, s = [], torch.randn(8, 2).clamp(-1, 1)


def min_q(nets, s, a):
    x = torch.cat([s, a], 1)
    return torch.min(nets[0](x), nets[1](x)).squeeze(1)


for step in range(450):
    with torch.no_grad():
        a = pi(s).sample()
        s2, r = env_step(s, a)
    mem.append((s, a, r, s2))
    s = s2
    if step < 20:
        continue
    S, A, R, S2 = map(torch.cat, zip(*(mem[i] for i in torch.randint(len(mem), (8,)).tolist())))
    alpha = log_alpha.exp().item()
    with torch.no_grad():
        d2 = pi(S2)
        a2 = d2.sample()
        y = R + 0.95 * (min_q(qs_t, S2, a2) - alpha * d2.log_prob(a2))
    x = torch.cat([S, A], 1)
    q_loss = sum(F.mse_loss(q(x).squeeze(1), y) for q in qs)
    q_opt.zero_grad()
    q_loss.backward()
    q_opt.step()

    for p in qs.parameters():
        p.requires_grad_(False)
    d = pi(S)
    new_a = d.rsample()
    logp = d.log_prob(new_a)
    pi_loss = (alpha * logp - min_q(qs, S, new_a)).mean()
    pi_opt.zero_grad()
    pi_loss.backward()
    pi_opt.step()
    for p in qs.parameters():
        p.requires_grad_(True)

    alpha_loss = -(log_alpha * (logp.detach() - 1.0)).mean()
    alpha_opt.zero_grad()
    alpha_loss.backward()
    alpha_opt.step()
    with torch.no_grad():
        for p, t in zip(qs.parameters(), qs_t.parameters()):
            t.mul_(0.98).add_(p, alpha=0.02)
    if step % 100 == 0:
        print(step, f"reward {r.mean().item():.3f} q {q_loss.item():.3f} alpha {alpha:.3f}")
