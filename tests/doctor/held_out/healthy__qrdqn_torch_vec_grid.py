import torch
from torch import nn

torch.manual_seed(0)
W, B, K = 5, 32, 11
TAUS = (torch.arange(K) + 0.5) / K


class Grid:
    """B grid worlds as one tensor; step gives (state, reward, dead) and restarts dead ones itself."""
    moves = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])

    def __init__(self):
        self.pos = torch.randint(0, W, (B, 2))

    def see(self):
        return self.pos.float() / (W - 1) * 2 - 1

    def advance(self, a):
        self.pos = (self.pos + self.moves[a]).clamp(0, W - 1)
        goal = (self.pos == W - 1).all(1)
        reached = self.see()
        reward = goal.float() + 0.05 * torch.randn(B) - 0.02
        self.pos[goal] = torch.randint(0, W - 1, (int(goal.sum()), 2))
        return reached, reward, goal


class Quantiles(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.inp = nn.Linear(2, width)
        self.mid = nn.Linear(width, width)
        self.out = nn.Linear(width, 4 * K)

    def forward(self, x):
        x = torch.nn.functional.elu(self.inp(x))
        x = x + torch.nn.functional.elu(self.mid(x))
        return self.out(x).unflatten(-1, (4, K))


def huber_quantile(pred, target):
    # pred [B, K], target [B, K] -> all pairs on purpose
    u = target.unsqueeze(1) - pred.unsqueeze(2)
    h = torch.where(u.abs() <= 1, 0.5 * u * u, u.abs() - 0.5)
    w = (TAUS.view(1, K, 1) - (u.detach() < 0).float()).abs()
    return (w * h).mean(2).sum(1).mean()


world, net, slow = Grid(), Quantiles(), Quantiles()
slow.load_state_dict(net.state_dict())
for p in slow.parameters():
    p.requires_grad = False
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
buf = {k: [] for k in ("s", "a", "r", "n", "d")}
for it in range(500):
    s = world.see()
    with torch.no_grad():
        a = net(s).mean(-1).argmax(-1)
    a = torch.where(torch.rand(B) < 0.2, torch.randint(0, 4, (B,)), a)
    n, r, d = world.advance(a)
    for k, v in zip(buf, (s, a, r, n, d)):
        buf[k].append(v)
        del buf[k][:-200]
    ij = torch.randint(0, len(buf["s"]), (3,)).tolist()
    s, a, r, n, d = (torch.cat([buf[k][i] for i in ij]) for k in buf)
    rows = torch.arange(len(a))
    with torch.no_grad():
        nq = slow(n)
        nq = nq[rows, nq.mean(-1).argmax(-1)]
        y = r[:, None] + 0.95 * (~d)[:, None] * nq
    loss = huber_quantile(net(s)[rows, a], y)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
    if it % 25 == 0:
        slow.load_state_dict(net.state_dict())
    if it % 100 == 0:
        print(it, f"loss {loss.item():.4f} mean value {y.mean():.3f}")
