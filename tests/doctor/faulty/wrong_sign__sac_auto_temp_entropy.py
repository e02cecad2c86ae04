"""SAC with automatic temperature; the task: match a sinusoid with a first-order lag plant."""
import copy
import math
import torch
import torch.nn as nn


def trunk(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, n_out))


class LagPlant:
    def __init__(self, n):
        self.n = n

    def reset(self):
        self.y, self.ph = torch.zeros(self.n), torch.rand(self.n) * 2 * math.pi
        return self.observe()

    def observe(self):
        return torch.stack([self.y, self.ph.sin(), self.ph.cos()], 1)

    def step(self, u):
        self.y = 0.7 * self.y + 0.5 * u[:, 0]
        self.ph = self.ph + 0.3
        return self.observe(), -(self.y - self.ph.sin()).pow(2)


class SquashedActor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = trunk(3, 2)

    def forward(self, o):
        m, ls = self.net(o).split(1, -1)
        d = torch.distributions.Normal(m, ls.clamp(-5, 1).exp())
        td = torch.distributions.TransformedDistribution(d, [torch.distributions.TanhTransform(cache_size=1)])
        u = td.rsample()
        return u, td.log_prob(u)


torch.manual_seed(44)
actor, q1, q2 = SquashedActor(), trunk(4, 1), trunk(4, 1)
q1_t, q2_t = copy.deepcopy(q1), copy.deepcopy(q2)
log_alpha = torch.tensor([-2.0], requires_grad=True)
target_entropy = -1.0
a_opt = torch.optim.Adam(actor.parameters(), 7e-4)
c_opt = torch.optim.Adam([*q1.parameters(), *q2.parameters()], 1e-3)
t_opt = torch.optim.Adam([log_alpha], 3e-4)

plant, pool = LagPlant(8), []
o = plant.reset()
for i in range(500):
    with torch.no_grad():
        u, _ = actor(o)
    o2, r = plant.step(u)
    pool.append((o, u, r, o2))
    o = plant.reset() if i % 40 == 39 else o2
    if i < 30:
        continue
    picks = torch.randint(len(pool), (12,)).tolist()
    bo, bu, br, bo2 = (torch.cat([pool[k][j] for k in picks]) for j in range(4))
    alpha = log_alpha.exp().detach()
    with torch.no_grad():
        u2, lp2 = actor(bo2)
        z = torch.cat([bo2, u2], 1)
        target = br[:, None] + 0.9 * (torch.min(q1_t(z), q2_t(z)) - alpha * lp2)
    z = torch.cat([bo, bu], 1)
    c_loss = nn.functional.mse_loss(q1(z), target) + nn.functional.mse_loss(q2(z), target)
    c_opt.zero_grad()
    c_loss.backward()
    c_opt.step()

    un, lp = actor(bo)
    z = torch.cat([bo, un], 1)
    a_loss = (-alpha * lp - torch.min(q1(z), q2(z))).mean()  # expect: wrong-sign
    a_opt.zero_grad()
    a_loss.backward()
    a_opt.step()

    t_loss = -(log_alpha * (lp.detach() + target_entropy)).mean()
    t_opt.zero_grad()
    t_loss.backward()
    t_opt.step()
    with torch.no_grad():
        for a, b in ((q1, q1_t), (q2, q2_t)):
            for p, pt in zip(a.parameters(), b.parameters()):
                pt.copy_(0.98 * pt + 0.02 * p)
    if i % 100 == 99:
        print(i + 1, "reward", round(r.mean().item(), 3), "entropy", round(-lp.mean().item(), 2), "alpha", round(alpha.item(), 3))
