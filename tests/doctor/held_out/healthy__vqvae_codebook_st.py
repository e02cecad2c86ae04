"""VQ auto-encoder for short waves, straight-through estimator."""
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(3)
L = 24
t = torch.linspace(0, 6.28, L)


def waves(n):
    f = torch.randint(1, 4, (n, 1)).float()
    ph = torch.randint(0, 4, (n, 1)).float() * 1.5708
    return torch.sin(f * t + ph) + 0.05 * torch.randn(n, L)


class Codebook(nn.Module):
    def __init__(self, k, d):
        super().__init__()
        self.table = nn.Embedding(k, d)

    @torch.no_grad()
    def seed(self, z):
        self.table.weight.copy_(z[torch.randperm(len(z))[: self.table.num_embeddings]])

    def forward(self, z):
        with torch.no_grad():
            code = torch.cdist(z, self.table.weight).argmin(1)
        e = self.table(code)
        book = F.mse_loss(e, z.detach())
        commit = F.mse_loss(z, e.detach())
        return z + (e - z).detach(), book + 0.25 * commit, code


enc = nn.Sequential(nn.Unflatten(1, (1, L)), nn.Conv1d(1, 8, 5, 2, 2), nn.SiLU(), nn.Conv1d(8, 8, 5, 2, 2), nn.SiLU(),
                    nn.Flatten(), nn.Linear(8 * L // 4, 6))
vq = Codebook(16, 6)
dec = nn.Sequential(nn.Linear(6, 64), nn.SiLU(), nn.Linear(64, L))
opt = torch.optim.Adam([p for m in (enc, vq, dec) for p in m.parameters()], lr=3e-3)
with torch.no_grad():
    vq.seed(enc(waves(64)))
for it in range(500):
    x = waves(64)
    zq, aux, code = vq(enc(x))
    rec = F.mse_loss(dec(zq), x)
    opt.zero_grad()
    (rec + aux).backward()
    opt.step()
    if it % 100 == 0 or it == 499:
        print(it, "rec", round(rec.item(), 4), "aux", round(aux.item(), 4), "codes", code.unique().numel())
