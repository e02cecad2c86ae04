"""Expected SARSA with linear schedules; the lagged weights are a plain dict used through functional_call."""
import torch
from torch import nn
from torch.func import functional_call

torch.manual_seed(2)
N, EPS = 40, 0.2


class Lander:
    """a falling dot; thrust costs fuel; touching the ground ends the episode (crash or soft landing)"""

    def __init__(self, n):
        self.n = n
        self.h, self.v = self.spawn(n)

    def spawn(self, n):
        return 0.6 + 0.4 * torch.rand(n), -0.1 * torch.rand(n)

    @property
    def obs(self):
        return torch.stack([2 * self.h - 1, 5 * self.v], 1)

    def burn(self, level):                      # level in {0, 1, 2}
        self.v = (self.v - 0.02 + 0.02 * level).clamp(-0.4, 0.2)
        self.h = self.h + self.v
        down = (self.h <= 0) | (self.h >= 1.4)
        soft = (self.h <= 0) & (self.v > -0.1)
        price = 0.04 + 0.01 * level + down * torch.where(soft, -0.5, 1.0)
        after = self.obs
        h, v = self.spawn(self.n)
        self.h, self.v = torch.where(down, h, self.h), torch.where(down, v, self.v)
        return after, price, down


net = nn.Sequential(nn.Linear(2, 48), nn.Mish(), nn.Linear(48, 48), nn.Mish(), nn.Linear(48, 3))
lag = {k: v.detach().clone() for k, v in net.named_parameters()}
opt = torch.optim.NAdam(net.parameters(), lr=1e-3)
sim, store = Lander(N), []
for it in range(500):
    o = sim.obs
    with torch.no_grad():
        a = net(o).argmin(1)
    a = torch.where(torch.rand(N) < EPS, torch.randint(3, (N,)), a)
    o2, c, down = sim.burn(a)
    store.append((o, a, c, o2, down))
    store = store[-150:]
    o, a, c, o2, down = store[torch.randint(len(store), ()).item()] if it % 2 else store[-1]
    with torch.no_grad():
        q2 = functional_call(net, lag, (o2,))
        expect = (1 - EPS) * q2.min(1).values + EPS * q2.mean(1)
        y = torch.where(down, c, c + 0.95 * expect)
    pred = torch.take_along_dim(net(o), a[:, None], 1)[:, 0]
    loss = (pred - y).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    for k, v in net.named_parameters():
        lag[k] = torch.lerp(lag[k], v.detach(), 0.03)
    if it % 100 == 99:
        recent = store[-50:]
        landed = sum((t[4] & (t[2] < 0)).sum().item() for t in recent)
        ended = sum(t[4].sum().item() for t in recent)
        print(it, "loss", round(loss.item(), 4), "soft landings", landed, "of", ended)
