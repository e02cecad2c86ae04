# Categorical DQN on a slippery corridor written with plain Python objects
import random
from typing import NamedTuple

import torch
import torch.nn as nn

torch.manual_seed(3)
random.seed(3)
N, ATOMS, VMIN, VMAX, GAMMA = 8, 21, -1.0, 1.0, 0.95
Z = torch.linspace(VMIN, VMAX, ATOMS)
DZ = (VMAX - VMIN) / (ATOMS - 1)


class Tr(NamedTuple):
    s: int
    a: int
    r: float
    s2: int
    over: bool


class Corridor:
    def begin(self):
        self.x = random.randrange(1, N - 1)
        return self.x

    def push(self, a):
        d = 1 if a == 1 else -1
        if random.random() < 0.1:
            d = -d
        self.x += d
        if self.x == N - 1:
            return self.x, 1.0, True
        if self.x == 0:
            return self.x, -1.0, True
        return self.x, 0.0, False


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(N, 16)
        self.f = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2 * ATOMS))

    def forward(self, s):
        return self.f(self.emb(s)).view(-1, 2, ATOMS).log_softmax(-1)


def project(p, r, over):
    """distribution of r + gamma z back on the support"""
    tz = (r[:, None] + GAMMA * (~over).float()[:, None] * Z).clamp(VMIN, VMAX)
    b = ((tz - VMIN) / DZ).clamp(0, ATOMS - 1)
    w = (1 - (b[:, :, None] - torch.arange(ATOMS).float()).abs()).clamp(min=0)
    return torch.einsum("bi,bij->bj", p, w)


net, tgt = Net(), Net()
tgt.load_state_dict(net.state_dict())
opt = torch.optim.Adam(net.parameters(), 2e-3)
mem, env = [], Corridor()
s = env.begin()
for it in range(1500):
    with torch.no_grad():
        qs = (net(torch.tensor([s])).exp() * Z).sum(-1)[0]
    a = random.randrange(2) if random.random() < 0.3 else int(qs.argmax())
    s2, r, over = env.push(a)
    mem.append(Tr(s, a, r, s2, over))
    s = env.begin() if over else s2
    if it >= 100 and it % 3 == 0:
        batch = Tr(*zip(*random.sample(mem, 32)))
        S, A, S2 = map(torch.tensor, (batch.s, batch.a, batch.s2))
        R, O = torch.tensor(batch.r), torch.tensor(batch.over)
        with torch.no_grad():
            a2 = (net(S2).exp() * Z).sum(-1).argmax(1)
            m = project(tgt(S2).exp()[range(32), a2], R, O)
        logp = net(S)[range(32), A]
        loss = -(m * logp).sum(1).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    if it % 60 == 0:
        tgt.load_state_dict(net.state_dict())
        if it > 100:
            print(it, "cross entropy", round(loss.item(), 3))
with torch.no_grad():
    print("greedy:", (net(torch.arange(N)).exp() * Z).sum(-1).argmax(1).tolist())
