# Wasserstein GAN with weight clipping on a ring of Gaussians
import numpy as np
import torch
import torch.nn as nn

np.random.seed(0)
torch.manual_seed(0)

Z_DIM, BATCH, N_CRITIC, CLIP = 4, 64, 4, 0.1


def real_batch(n):
    k = np.random.randint(8, size=n)
    centres = np.stack([np.cos(k * np.pi / 4), np.sin(k * np.pi / 4)], axis=1)
    return torch.from_numpy((centres + 0.05 * np.random.randn(n, 2)).astype(np.float32))


G = nn.Sequential(nn.Linear(Z_DIM, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
D = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))

optG = torch.optim.RMSprop(G.parameters(), lr=5e-4)
optD = torch.optim.RMSprop(D.parameters(), lr=2e-3)

for it in range(240):
    for _ in range(N_CRITIC):
        real = real_batch(BATCH)
        fake = G(torch.randn(BATCH, Z_DIM)).detach()
        lossD = -(D(real).mean() - D(fake).mean())
        optD.zero_grad()
        lossD.backward()
        optD.step()
        for p in D.parameters():
            p.data.clamp_(-CLIP, CLIP)

    fake = G(torch.randn(BATCH, Z_DIM))
    lossG = -D(fake).mean()
    optG.zero_grad()
    lossG.backward()
    optG.step()

    if it % 40 == 39:
        radius = fake.detach().norm(dim=1)
        print(f"{it + 1:4d} W {-lossD.item():.4f} lossG {lossG.item():+.4f} radius {radius.mean().item():.3f} +- {radius.std().item():.3f}")
