"""Learn a 2D embedding of graph nodes whose distances match shortest-path lengths."""
import numpy as np
import torch
from torch import nn, optim

torch.manual_seed(0)
np.random.seed(0)

N = 12
ring = torch.arange(N)
gap = (ring[:, None] - ring[None, :]).abs()
hops = torch.minimum(gap, N - gap).float()


class Embedder(nn.Module):
    def __init__(self, n, dim=2):
        super().__init__()
        self.table = nn.Embedding(n, 8)
        self.proj = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, dim))

    def forward(self, i):
        return self.proj(self.table(i))


def distance(u, v):
    diff = u - v
    sq = diff.pow(2).sum(dim=-1)
    return torch.sqrt(sq)  # expect: non-finite


def sample_pairs(step, size=32):
    i = np.random.randint(0, N, size)
    if step < 40:
        # warm-up on neighbours only
        j = (i + np.random.choice([-1, 1], size)) % N
    else:
        j = np.random.randint(0, N, size)
    return torch.from_numpy(i), torch.from_numpy(j)


model = Embedder(N)
optimizer = optim.Adam(model.parameters(), lr=5e-3)
for step in range(400):
    i, j = sample_pairs(step)
    d = distance(model(i), model(j))
    stress = (d - hops[i, j]).pow(2).mean()
    optimizer.zero_grad()
    stress.backward()
    optimizer.step()
    if step % 40 == 0:
        print("step", step, "stress", stress.item())
