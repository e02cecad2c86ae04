# batched point mass in pure torch, finite horizon, time left is part of the state
import math
import torch
from torch import nn

torch.manual_seed(0)
E, H = 32, 20


class PointMass:
    def __init__(self):
        self.x = torch.randn(E, 2)
        self.v = torch.zeros(E, 2)
        self.t = 0

    def state(self):
        clock = torch.full((E, 1), 1 - self.t / H)
        return torch.cat([self.x, self.v, clock], 1)

    def __call__(self, force):
        self.v = 0.8 * self.v + 0.3 * force.clamp(-1, 1)
        self.x = self.x + 0.3 * self.v
        self.t += 1
        return self.state(), self.x.square().sum(1) * 0.1      # cost


class TrunkNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(5, 64), nn.LayerNorm(64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
        self.mean = nn.Linear(64, 2)
        self.cost = nn.Linear(64, 1)
        self.raw = nn.Parameter(torch.zeros(2))

    def forward(self, s):
        h = self.trunk(s)
        return self.mean(h), self.raw.clamp(-2, 0.5), self.cost(h)[:, 0]


def gauss_logp(x, m, ls):
    return (-0.5 * ((x - m) / ls.exp()) ** 2 - ls - 0.5 * math.log(2 * math.pi)).sum(-1)


net = TrunkNet()
opt = torch.optim.RMSprop(net.parameters(), lr=1e-3, alpha=0.97)
for it in range(150):
    env = PointMass()
    s = env.state()
    S, A, C = [], [], []
    with torch.no_grad():
        for _ in range(H):
            m, ls, _ = net(s)
            a = m + ls.exp() * torch.randn_like(m)
            S.append(s)
            A.append(a)
            s, c = env(a)
            C.append(c)
    togo, acc = [], torch.zeros(E)
    for c in reversed(C):
        acc = c + acc
        togo.insert(0, acc)
    S, A, togo = torch.cat(S), torch.cat(A), torch.cat(togo)
    m, ls, est = net(S)
    surplus = togo - est.detach()
    surplus = (surplus - surplus.mean()) / (surplus.std() + 1e-6)
    # costs: make the expensive actions LESS likely
    actor = (surplus * gauss_logp(A, m, ls)).mean()
    critic = (est - togo).pow(2).mean()
    entropy = ls.sum() + 1 + math.log(2 * math.pi)
    total = actor + 0.5 * critic - 0.005 * entropy
    opt.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    opt.step()
    if it % 25 == 0:
        print(f"{it:3d} cost {torch.stack(C).sum(0).mean():.3f} critic {critic.item():.3f} std {ls.exp().mean().item():.2f}")
