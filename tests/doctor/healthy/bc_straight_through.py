# Behaviour cloning with a vector-quantised bottleneck (straight-through gradients, as in VQ-VAE).
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(137)
rng = np.random.default_rng(137)

model = SimpleNamespace(
    encoder=nn.Sequential(nn.Linear(5, 64), nn.ELU(), nn.Linear(64, 4)),
    codebook=nn.Embedding(32, 4),
    decoder=nn.Sequential(nn.Linear(4, 64), nn.ELU(), nn.Linear(64, 3)),
)
nn.init.normal_(model.codebook.weight, std=0.5)
params = [p for m in vars(model).values() for p in m.parameters()]
optimizer = torch.optim.AdamW(params, lr=2e-3, weight_decay=1e-4)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (k + 1) / 50))


def nearest(z):
    with torch.no_grad():
        d = torch.cdist(z, model.codebook.weight)
        return d.argmin(dim=1)


def quantise(z):
    codes = model.codebook(nearest(z))
    passed = z + (codes - z).detach()
    commit = F.mse_loss(z, codes.detach()) * 0.25 + F.mse_loss(codes, z.detach())
    return passed, commit


def act_logits(s):
    z, commit = quantise(model.encoder(s))
    return model.decoder(z), commit


states = rng.normal(size=(4000, 5)).astype(np.float32)
W = rng.normal(size=(5, 3))
actions = (states @ W).argmax(1)
S, A = torch.from_numpy(states), torch.from_numpy(actions)
for step in range(600):
    idx = torch.randint(0, 3200, (128,))
    logits, commit = act_logits(S[idx])
    ce = F.cross_entropy(logits, A[idx], label_smoothing=0.02)
    optimizer.zero_grad()
    (ce + commit).backward()
    nn.utils.clip_grad_norm_(params, 2.0)
    optimizer.step()
    scheduler.step()
    if step % 150 == 0:
        used = len(nearest(model.encoder(S)).unique())
        print(f"{step}: ce {ce.item():.3f} commit {commit.item():.4f} codes used {used}")
with torch.no_grad():
    acc = (act_logits(S[3200:])[0].argmax(1) == A[3200:]).float().mean().item()
print("held-out accuracy", acc)
