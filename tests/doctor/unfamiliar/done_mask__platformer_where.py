"""One-dimensional platformer: run and jump over pits to the flag; many copies at once, ring memory as a dict of tensors."""
import copy
import torch
import torch.nn.functional as F

torch.manual_seed(64)
LEN, PITS, COPIES = 12, torch.tensor([3, 7]), 32


class Level:
    def __init__(self):
        self.x = torch.randint(0, 3, (COPIES,))

    def sense(self):
        return F.one_hot(self.x, LEN + 2).float()

    def play(self, a):                       # 0 wait, 1 run, 2 jump
        x2 = (self.x + a).clamp(max=LEN)
        fell, won = torch.isin(x2, PITS), x2 >= LEN
        r = -0.05 + won.float() - fell.float()
        before, self.x = self.sense(), x2
        after, dead = self.sense(), fell | won
        self.x = torch.where(dead, torch.randint(0, 3, (COPIES,)), x2)
        return before, a, r, after, dead


class Ring(dict):
    def __init__(self, cap, **spec):
        super().__init__({k: torch.zeros((cap, *shape), dtype=dt) for k, (shape, dt) in spec.items()})
        self.cap, self.n = cap, 0

    def put(self, **rows):
        m = len(next(iter(rows.values())))
        at = torch.arange(self.n, self.n + m) % self.cap
        for k, v in rows.items():
            self[k][at] = v
        self.n += m

    def draw(self, m):
        i = torch.randint(min(self.n, self.cap), (m,))
        return {k: v[i] for k, v in self.items()}


q = torch.nn.Sequential(torch.nn.Linear(LEN + 2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
slow = copy.deepcopy(q).requires_grad_(False)
opt = torch.optim.Adam(q.parameters(), lr=2e-3)
ring = Ring(4000, s=((LEN + 2,), torch.float), a=((), torch.long), r=((), torch.float),
            s2=((LEN + 2,), torch.float), dead=((), torch.bool))
level, gamma = Level(), 0.97

for frame in range(600):
    with torch.no_grad():
        best = q(level.sense()).argmax(1)
    a = torch.where(torch.rand(COPIES) < max(0.1, 1 - frame / 300), torch.randint(3, (COPIES,)), best)
    ring.put(**dict(zip(("s", "a", "r", "s2", "dead"), level.play(a))))
    if frame < 20:
        continue
    m = ring.draw(128)
    with torch.no_grad():
        boot = gamma * slow(m["s2"]).gather(1, q(m["s2"]).argmax(1, keepdim=True)).squeeze(1)
        y = m["r"] + torch.where(m["dead"], boot, torch.zeros_like(boot))  # expect: done-mask
    loss = F.mse_loss(q(m["s"]).gather(1, m["a"][:, None]).squeeze(1), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    with torch.no_grad():
        for p, p_slow in zip(q.parameters(), slow.parameters()):
            p_slow.lerp_(p, 0.02)
    if frame % 100 == 0:
        print(f"frame {frame} loss {loss.item():.4f} reward {m['r'].mean().item():+.3f}")

print("route:", q(torch.eye(LEN + 2)).argmax(1).tolist())
