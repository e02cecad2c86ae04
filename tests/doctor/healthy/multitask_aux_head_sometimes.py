"""
Shared encoder, two heads. Labels of the second task are rare: every fifth batch has them,
all the other batches train only the first head (and the encoder).
"""
import torch
from torch import nn
import torch.nn.functional as F


class TwoHeads(nn.Module):
    def __init__(self, d_in=10, d=48):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(d_in, d), nn.ELU(), nn.Linear(d, d), nn.ELU())
        self.regression = nn.Linear(d, 1)
        self.classes = nn.Linear(d, 3)

    def forward(self, x):
        z = self.encoder(x)
        return self.regression(z).squeeze(-1), self.classes(z)


class World:
    def __init__(self):
        self.w1 = torch.randn(10)
        self.w2 = torch.randn(10, 3)

    def batch(self, n, labelled):
        x = torch.randn(n, 10)
        y = torch.sin(x @ self.w1 / 2)
        c = (x.tanh() @ self.w2).argmax(dim=1) if labelled else None
        return x, y, c


torch.manual_seed(3)
world = World()
model = TwoHeads()
optimizer = torch.optim.Adam([
    {"params": model.encoder.parameters(), "lr": 1e-3},
    {"params": model.regression.parameters(), "lr": 2e-3},
    {"params": model.classes.parameters(), "lr": 5e-3},
])

log = {"reg": [], "cls": []}
for i in range(900):
    x, y, c = world.batch(64, labelled=(i % 5 == 0))
    pred, logits = model(x)
    loss = F.mse_loss(pred, y)
    log["reg"].append(loss.item())
    if c is not None:
        cls = F.cross_entropy(logits, c)
        log["cls"].append(cls.item())
        loss = loss + 0.5 * cls
    for p in model.parameters():
        p.grad = None
    loss.backward()
    optimizer.step()
    if i % 180 == 179:
        print(f"{i + 1:5d}  mse {sum(log['reg'][-50:]) / 50:.4f}  ce {sum(log['cls'][-10:]) / 10:.4f}")

with torch.no_grad():
    x, y, c = world.batch(1000, labelled=True)
    pred, logits = model(x)
    print("test mse", F.mse_loss(pred, y).item(), "accuracy", (logits.argmax(1) == c).float().mean().item())
