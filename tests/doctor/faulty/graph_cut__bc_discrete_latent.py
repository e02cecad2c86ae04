# Behaviour cloning through a small discrete bottleneck (each latent is one of 9 levels).
import numpy as np
import torch
from torch import nn
from types import SimpleNamespace

torch.manual_seed(11)
rng = np.random.default_rng(11)

states = rng.normal(size=(2048, 6)).astype(np.float32)
w = rng.normal(size=(6, 2)).astype(np.float32)
expert = np.tanh(states @ w) + 0.05 * rng.normal(size=(2048, 2)).astype(np.float32)

model = SimpleNamespace(
    encoder=nn.Sequential(nn.Linear(6, 64), nn.ELU(), nn.Linear(64, 8)),
    decoder=nn.Sequential(nn.Linear(8, 64), nn.ELU(), nn.Linear(64, 2)),
)
optimizer = torch.optim.AdamW(
    [{"params": model.encoder.parameters(), "lr": 1e-3}, {"params": model.decoder.parameters(), "lr": 1e-3}],
    weight_decay=0.0,
)


def bound(z, levels=9):
    half = (levels - 1) / 2
    return torch.tanh(z) * half


def quantise(z):
    z = bound(z)
    codes = torch.round(z)  # expect: graph-cut
    return codes / 4.0


def predict(s):
    codes = quantise(model.encoder(s))
    return model.decoder(codes)


S, A = torch.from_numpy(states), torch.from_numpy(expert.astype(np.float32))
for epoch in range(12):
    perm = torch.randperm(len(S))
    running = 0.0
    for i in range(0, len(S), 64):
        idx = perm[i:i + 64]
        loss = nn.functional.mse_loss(predict(S[idx]), A[idx])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.decoder.parameters(), 5.0)
        optimizer.step()
        running += loss.item()
    print(f"epoch {epoch}: loss {running / 32:.4f}")

with torch.no_grad():
    print("train mse", (predict(S) - A).pow(2).mean().item())
