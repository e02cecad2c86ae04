"""Compact SAC, Pendulum-v1, learned temperature, one tensor as replay (Pendulum has no terminal states)."""
import gymnasium as gym
import torch
import torch.nn as nn
import torch.nn.functional as F


def mlp(i, o, h=48):
    return nn.Sequential(nn.Linear(i, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, o))


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.pi = mlp(3, 2)
        self.q = nn.ModuleList([mlp(4, 1), mlp(4, 1)])
        self.qt = nn.ModuleList([mlp(4, 1), mlp(4, 1)])
        self.qt.load_state_dict(self.q.state_dict())
        self.qt.requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(-1.0))

    def act(self, s):
        mu, ls = self.pi(s).chunk(2, -1)
        ls = -3.5 + 2.5 * (torch.tanh(ls) + 1)
        d = torch.distributions.Normal(mu, ls.exp())
        u = d.rsample()
        # log det of tanh, stable form
        lp = d.log_prob(u) - 2 * (0.6931 - u - F.softplus(-2 * u))
        return torch.tanh(u), lp

    def both(self, nets, s, a):
        x = torch.cat([s, a], -1)
        return torch.cat([n(x) for n in nets], -1)


torch.manual_seed(5)
ag = Agent()
opt_q = torch.optim.Adam(ag.q.parameters(), 1e-3)
opt_pi = torch.optim.Adam(ag.pi.parameters(), 5e-4)
opt_al = torch.optim.Adam([ag.log_alpha], 1e-3)
mem = torch.zeros(2000, 3 + 1 + 1 + 3)
env = gym.make("Pendulum-v1")
s = torch.tensor(env.reset(seed=5)[0])
tot, hist = 0.0, []
for t in range(1000):
    with torch.no_grad():
        a = ag.act(s)[0] if t > 150 else torch.rand(1) * 2 - 1
    s2, r, _, timeout, _ = env.step(2 * a.numpy())
    s2 = torch.tensor(s2)
    mem[t] = torch.cat([s, a, torch.tensor([r / 10], dtype=torch.float32), s2])
    tot += r
    s = s2
    if timeout:
        s = torch.tensor(env.reset()[0])
        hist.append(round(tot))
        tot = 0.0
    if t < 150 or t % 3:
        continue
    S, A, R, S2 = mem[torch.randint(0, t + 1, (64,))].split([3, 1, 1, 3], 1)
    alpha = ag.log_alpha.exp().detach()
    with torch.no_grad():
        A2, lp2 = ag.act(S2)
        y = R + 0.98 * (ag.both(ag.qt, S2, A2).amin(1, keepdim=True) - alpha * lp2)
    lq = (ag.both(ag.q, S, A) - y.expand(-1, 2)).pow(2).mean()
    opt_q.zero_grad()
    lq.backward()
    opt_q.step()

    ag.q.requires_grad_(False)
    An, lp = ag.act(S)
    lpi = (alpha * lp - ag.both(ag.q, S, An).amin(1, keepdim=True)).mean()
    opt_pi.zero_grad()
    lpi.backward()
    opt_pi.step()
    ag.q.requires_grad_(True)

    la = -(ag.log_alpha.exp() * (lp.detach() - 1.0)).mean()
    opt_al.zero_grad()
    la.backward()
    opt_al.step()
    with torch.no_grad():
        for p, pt in zip(ag.q.parameters(), ag.qt.parameters()):
            pt.mul_(0.99).add_(p, alpha=0.01)
print("returns", hist, "alpha", ag.log_alpha.exp().item(), "lq", lq.item())
