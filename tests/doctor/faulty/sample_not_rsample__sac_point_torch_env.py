import copy
import torch
from torch import nn
from torch.distributions import Normal

torch.manual_seed(11)


class PointMass:
    """N points on a plane that should go to the origin; never terminates, position is redrawn now and then."""

    def __init__(self, n):
        self.n = n
        self.reset()

    def reset(self):
        self.s = torch.rand(self.n, 2) * 4 - 2
        return self.s.clone()

    def step(self, a):
        self.s = (self.s + 0.3 * a).clamp(-3, 3)
        rew = -self.s.pow(2).sum(-1) - 0.01 * a.pow(2).sum(-1)
        return self.s.clone(), rew


def mlp(i, o, h=48):
    return nn.Sequential(nn.Linear(i, h), nn.SiLU(), nn.Linear(h, h), nn.SiLU(), nn.Linear(h, o))


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp(2, 4)

    def forward(self, s):
        mu, log_std = self.net(s).chunk(2, -1)
        return mu, log_std.clamp(-5, 1)

    def act(self, s):
        mu, log_std = self(s)
        d = Normal(mu, log_std.exp())
        u = d.sample()  # expect: sample-not-rsample
        a = torch.tanh(u)
        logp = (d.log_prob(u) - torch.log(1 - a.pow(2) + 1e-6)).sum(-1)
        return a, logp


pi = Policy()
q1, q2 = mlp(4, 1), mlp(4, 1)
q1t, q2t = copy.deepcopy(q1), copy.deepcopy(q2)
q_params = list(q1.parameters()) + list(q2.parameters())
opt_pi = torch.optim.Adam(pi.parameters(), 1e-3)
opt_q = torch.optim.Adam(q_params, 1e-3)
alpha, gamma, N = 0.1, 0.95, 16

env = PointMass(N)
S, A, R, S2 = [torch.zeros(8000, d) for d in (2, 2, 1, 2)]
n = 0
s = env.reset()
for it in range(450):
    with torch.no_grad():
        a, _ = pi.act(s)
    s2, r = env.step(a)
    S[n:n + N], A[n:n + N], R[n:n + N, 0], S2[n:n + N] = s, a, r, s2
    n += N
    s = env.reset() if it % 25 == 24 else s2
    if it < 20:
        continue
    k = torch.randint(0, n, (128,))
    bs, ba, br, bs2 = S[k], A[k], R[k], S2[k]
    with torch.no_grad():
        na, nlp = pi.act(bs2)
        x = torch.cat([bs2, na], 1)
        y = br + gamma * (torch.min(q1t(x), q2t(x)) - alpha * nlp[:, None])
    x = torch.cat([bs, ba], 1)
    lq = (q1(x) - y).pow(2).mean() + (q2(x) - y).pow(2).mean()
    opt_q.zero_grad(); lq.backward(); opt_q.step()

    for p in q_params:
        p.requires_grad_(False)
    a, lp = pi.act(bs)
    x = torch.cat([bs, a], 1)
    lpi = (alpha * lp - torch.min(q1(x), q2(x)).squeeze(1)).mean()
    opt_pi.zero_grad(); lpi.backward(); opt_pi.step()
    for p in q_params:
        p.requires_grad_(True)
    with torch.no_grad():
        for net, tgt in ((q1, q1t), (q2, q2t)):
            for p, pt in zip(net.parameters(), tgt.parameters()):
                pt.mul_(0.99).add_(p, alpha=0.01)
    if it % 100 == 0:
        print(it, "reward", r.mean().item(), "q loss", lq.item())
