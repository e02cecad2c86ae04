"""A tiny transformer block written out by hand: which key carries the largest value? Warm-up from 0, then cosine."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

WARMUP, TOTAL = 40, 350
T, D = 8, 32


def lr_factor(step):
    if step < WARMUP:
        return step / WARMUP
    progress = (step - WARMUP) / (TOTAL - WARMUP)
    return 0.5 * (1 + math.cos(math.pi * progress))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, D)
        self.q, self.k, self.v = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.ff = nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))
        self.out = nn.Linear(D, 2)

    def forward(self, x):
        h = self.embed(x)
        n = self.norm1(h)
        q, k, v = self.q(n), self.k(n), self.v(n)
        # [B, T, 1, D] * [B, 1, T, D] -> sum over D gives all pairs of positions
        scores = (q.unsqueeze(2) * k.unsqueeze(1)).sum(-1) / math.sqrt(D)
        weights = scores.softmax(dim=-1)
        h = h + (weights.unsqueeze(-1) * v.unsqueeze(1)).sum(dim=2)
        h = h + self.ff(self.norm2(h))
        return self.out(h.mean(dim=1))


def batch(n):
    value = torch.randn(n, T)
    label = torch.rand(n, T) < 0.5
    x = torch.stack([value, label.float(), 1 - label.float()], dim=-1)
    y = label.gather(1, value.argmax(dim=1, keepdim=True)).squeeze(1).long()
    return x, y


def main():
    torch.manual_seed(0)
    model = Block()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor)
    hits, seen = 0, 0
    for step in range(TOTAL):
        x, y = batch(48)
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        hits += (logits.argmax(-1) == y).sum().item()
        seen += len(y)
        if (step + 1) % 70 == 0:
            print(f"step {step + 1} loss {loss.item():.3f} acc {hits / seen:.3f} lr {scheduler.get_last_lr()[0]:.5f}")
            hits, seen = 0, 0


if __name__ == "__main__":
    main()
