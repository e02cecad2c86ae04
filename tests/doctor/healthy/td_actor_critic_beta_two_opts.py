import torch
import torch.nn as nn
from torch.distributions import Beta

torch.manual_seed(16)


class Tank:
    """Keep N water tanks at their set level; the valve opening is in (0, 1). Runs forever."""

    def __init__(self, n):
        self.level, self.ref = torch.rand(n), 0.3 + 0.4 * torch.rand(n)

    def obs(self):
        return torch.stack([self.level, self.ref], 1)

    def step(self, valve):
        self.level = (self.level + 0.15 * valve - 0.08 * (0.2 + self.level)).clamp(0, 1)
        r = -(self.level - self.ref).abs()
        swap = torch.rand_like(self.ref) < 0.03
        self.ref = torch.where(swap, 0.3 + 0.4 * torch.rand_like(self.ref), self.ref)
        return self.obs(), r


class BetaActor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))

    def forward(self, x):
        c = 1.0 + nn.functional.softplus(self.net(x)).clamp(max=30.0)
        return Beta(c[:, 0], c[:, 1])


actor, critic = BetaActor(), nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
opts = [torch.optim.Adam(actor.parameters(), lr=1e-3), torch.optim.Adam(critic.parameters(), lr=5e-3)]
schedulers = [torch.optim.lr_scheduler.ExponentialLR(o, 0.9995) for o in opts]
env = Tank(32)
o, avg = env.obs(), None
for step in range(700):
    dist = actor(o)
    a = dist.sample().clamp(1e-6, 1 - 1e-6)
    o2, r = env.step(a)
    v = critic(o).squeeze(1)
    with torch.no_grad():
        td_target = r + 0.9 * critic(o2).squeeze(1)
    td = td_target - v
    critic_loss = td.square().mean()
    actor_loss = -(dist.log_prob(a) * td.detach()).mean() - 1e-3 * dist.entropy().mean()
    for opt in opts:
        opt.zero_grad()
    (actor_loss + critic_loss).backward()
    for opt, sch in zip(opts, schedulers):
        opt.step()
        sch.step()
    o = o2
    avg = r.mean().item() if avg is None else 0.98 * avg + 0.02 * r.mean().item()
    if step % 200 == 199:
        print(step + 1, f"reward {avg:.4f}")
