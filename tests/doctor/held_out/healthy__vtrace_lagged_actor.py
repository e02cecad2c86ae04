import copy
from collections import namedtuple

import torch
from torch import nn

torch.manual_seed(1)
N, T, GAMMA = 16, 12, 0.95
Rollout = namedtuple("Rollout", "s a mu r alive last")


class Balance(object):
    """N carts on a slippery bar; falling ends the life and a new one starts. Never-ending otherwise."""

    def __init__(self):
        self.z = self.fresh(N)

    @staticmethod
    def fresh(n):
        return torch.randn(n, 2) * 0.2

    def act(self, a):
        x, v = self.z.unbind(1)
        v = v + 0.25 * x + 0.15 * (a.float() - 1) + 0.02 * torch.randn(N)
        x = x + 0.3 * v
        fell = x.abs() > 1
        reward = torch.where(fell, -1.0, 0.1 - 0.1 * x.abs())
        self.z = torch.stack([x, v], 1)
        self.z[fell] = self.fresh(int(fell.sum()))
        return reward, ~fell


policy = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 3))
critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1), nn.Flatten(-2))
opt = torch.optim.Adam([{"params": policy.parameters(), "lr": 3e-3}, {"params": critic.parameters(), "lr": 6e-3}])
behaviour = copy.deepcopy(policy)
env = Balance()


@torch.no_grad()
def collect():
    s, a, mu, r, alive = ([] for _ in range(5))
    for _ in range(T):
        d = torch.distributions.Categorical(logits=behaviour(env.z))
        s.append(env.z.clone())
        a.append(d.sample())
        mu.append(d.log_prob(a[-1]))
        rew, ok = env.act(a[-1])
        r.append(rew)
        alive.append(ok.float())
    return Rollout(*map(torch.stack, (s, a, mu, r, alive)), env.z.clone())


for it in range(170):
    ro = collect()
    logits = policy(ro.s)
    logpi = logits.log_softmax(-1)
    lp = logpi.gather(-1, ro.a.unsqueeze(-1)).squeeze(-1)
    values = critic(ro.s)
    with torch.no_grad():
        rho = (lp - ro.mu).exp().clamp(max=1.0)
        v = values.clone()
        v_next = torch.cat([v[1:], critic(ro.last)[None]])
        delta = rho * (ro.r + GAMMA * ro.alive * v_next - v)
        acc, vs = torch.zeros(N), torch.empty_like(v)
        for t in reversed(range(T)):
            acc = delta[t] + GAMMA * ro.alive[t] * rho[t] * acc
            vs[t] = v[t] + acc
        vs_next = torch.cat([vs[1:], critic(ro.last)[None]])
        pg_adv = rho * (ro.r + GAMMA * ro.alive * vs_next - v)
    entropy = -(logpi.exp() * logpi).sum(-1).mean()
    loss = -(pg_adv * lp).mean() + 0.5 * (vs - values).square().mean() - 0.003 * entropy
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 3 == 2:
        behaviour.load_state_dict(policy.state_dict())      # actors get weights late
    if it % 50 == 0:
        print(it, f"reward {ro.r.mean():.3f} falls {1 - ro.alive.mean():.3f} entropy {entropy.item():.2f}")
