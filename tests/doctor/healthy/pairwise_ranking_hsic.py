# Learning to rank: all pairs of a batch at once, plus a kernel penalty so that the score ignores a nuisance feature
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(13)
B = 48


def draw(n):
    x = torch.randn(n, 6)
    nuisance = x[:, 5]
    relevance = x[:, 0] * x[:, 1] + torch.sin(2 * x[:, 2]) + 0.8 * nuisance
    return x, relevance, nuisance


def rbf(u, width=1.0):
    d = u.unsqueeze(0) - u.unsqueeze(1)            # [B, B]
    return torch.exp(-d.pow(2) / (2 * width**2))


def hsic(u, v):
    k, m = rbf(u), rbf(v)
    k = k - k.mean(0, keepdim=True) - k.mean(1, keepdim=True) + k.mean()
    return (k * m).mean()


scorer = nn.Sequential(nn.Linear(6, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1, bias=False))
opt = torch.optim.Adam(scorer.parameters(), lr=3e-3)

for step in range(1, 601):
    x, rel, nuis = draw(B)
    s = scorer(x).flatten()                          # [B]
    diff = s[:, None] - s[None, :]                   # s_i - s_j
    better = (rel[:, None] > rel[None, :]).float()
    off_diagonal = ~torch.eye(B, dtype=torch.bool)
    rank_loss = F.binary_cross_entropy_with_logits(diff[off_diagonal], better[off_diagonal])
    loss = rank_loss + 2.0 * hsic(s, nuis)
    opt.zero_grad()
    loss.backward()
    opt.step()

    if step % 100 == 0:
        with torch.no_grad():
            agree = ((diff > 0).float() == better)[off_diagonal].float().mean()
        print(f"{step} rank {rank_loss.item():.3f} loss {loss.item():.3f} pairs in order {agree.item():.3f}")
