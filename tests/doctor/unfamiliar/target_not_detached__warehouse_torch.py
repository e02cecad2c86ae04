"""Order-up-to control of a warehouse. 256 warehouses are simulated as one tensor, action value by gradient descent."""
import torch
import torch.nn.functional as F
from contextlib import contextmanager

CAP, ORDERS = 12, 5
gen = torch.Generator().manual_seed(6)


def feats(stock):
    return F.one_hot(stock, CAP + 1).float().cumsum(1)


def season(stock, order):
    stock = (stock + order).clamp(max=CAP)
    want = torch.poisson(torch.full(stock.shape, 2.0), generator=gen).long()
    sold = torch.minimum(stock, want)
    left = stock - sold
    gain = 1.0 * sold - 0.4 * order - 0.05 * left - 0.3 * (want - sold)
    broke = torch.rand(stock.shape, generator=gen) < 0.02
    return left, gain, broke


@contextmanager
def stepping(o, box):
    o.zero_grad()
    yield
    box["loss"].backward()
    o.step()


q1 = torch.nn.Sequential(torch.nn.Linear(CAP + 1, 48), torch.nn.Tanh(), torch.nn.Linear(48, ORDERS))
for layer in (q1[0], q1[2]):
    with torch.no_grad():
        layer.weight.copy_(0.2 * torch.randn(layer.weight.shape, generator=gen))
        layer.bias.zero_()
o = torch.optim.Adam(q1.parameters(), lr=2e-3)

s, eps, gamma, box = torch.randint(CAP + 1, (256,), generator=gen), 0.2, 0.95, {}
for t in range(700):
    with torch.no_grad():
        greedy = q1(feats(s)).argmax(1)
    wild = torch.randint(ORDERS, (256,), generator=gen)
    a = torch.where(torch.rand(256, generator=gen) < eps, wild, greedy)
    s2, r, broke = season(s, a)
    with stepping(o, box):
        now = q1(feats(s)).gather(1, a[:, None]).squeeze(1)
        later = q1(feats(s2)).amax(1)
        goal = r + gamma * torch.where(broke, torch.zeros_like(later), later)  # expect: target-not-detached
        box["loss"] = F.smooth_l1_loss(now, goal)
    s = torch.where(broke, torch.randint(CAP + 1, (256,), generator=gen), s2)
    if t % 140 == 0:
        print(f"season {t:3d} td {box['loss'].item():.4f} mean gain {r.mean().item():+.3f} q {now.mean().item():+.2f}")

with torch.no_grad():
    print("order by stock:", q1(feats(torch.arange(CAP + 1))).argmax(1).tolist())
