"""Multinomial choice model (transport modes) on a stream of surveys; the gradient is pooled over four surveys."""
import torch
from torch import nn


def surveys(seed, n=48):
    g = torch.Generator().manual_seed(seed)
    taste = torch.tensor([-1.2, -0.8, 0.5])
    while True:
        x = torch.randn(n, 4, 3, generator=g)                 # cost, time, comfort of 4 modes
        u = x @ taste + 0.4 * x[..., 0] * x[..., 1]
        gumbel = -torch.log(-torch.log(torch.rand(n, 4, generator=g).clamp(1e-9, 1 - 1e-7)))
        yield x, (u + gumbel).argmax(-1)


class Utility(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Parameter(torch.zeros(3))
        self.extra = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1, bias=False))

    def forward(self, x):
        return torch.einsum("nmk,k->nm", x, self.linear) + self.extra(x).squeeze(-1)


class Pooler:
    def __init__(self, opt, k):
        self.opt, self.k, self.seen = opt, k, 0

    def __call__(self, loss):
        (loss / self.k).backward()
        self.seen += 1
        if self.seen % self.k == 0:
            self.opt.step()
            self.opt.zero_grad()


torch.manual_seed(55)
U = Utility()
pool = Pooler(torch.optim.Adam(U.parameters(), lr=5e-3), k=4)
avg = 0.0
for t, (x, pick) in zip(range(1200), surveys(55)):
    ll = torch.log_softmax(U(x), -1)[torch.arange(len(pick)), pick].mean()
    pool(-ll)
    avg += ll.item()
    if t % 200 == 199:
        with torch.no_grad():
            hit = (U(x).argmax(-1) == pick).float().mean().item()
        print(f"{t + 1:5d} mean ll {avg / 200:.4f} hit rate {hit:.2f}")
        avg = 0.0
print("tastes", [round(v, 2) for v in U.linear.tolist()])
