"""BC: trunk pretrained by reconstructing observations, then frozen for good; only the action head is trained, grads are accumulated."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(3)
mix = torch.randn(4, 12)


def observe(z):
    return torch.tanh(z @ mix) + 0.05 * torch.randn(len(z), 12)


def expert(z):
    return (z[:, 0] > 0).long() + 2 * (z[:, 1] + 0.5 * z[:, 2] > 0).long()


trunk = nn.Sequential(nn.Linear(12, 32), nn.ELU(), nn.Linear(32, 16))
decoder = nn.Linear(16, 12)
opt = torch.optim.Adam([*trunk.parameters(), *decoder.parameters()], lr=3e-3)
for i in range(200):
    x = observe(torch.randn(64, 4))
    loss = F.mse_loss(decoder(trunk(x)), x)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
print("reconstruction", loss.item())

for p in trunk.parameters():
    p.requires_grad = False
trunk.eval()

head = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
head_opt = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
ACCUM = 4
z = torch.randn(2000, 4)
obs, act = observe(z), expert(z)
for epoch in range(10):
    head_opt.zero_grad()
    for k, idx in enumerate(torch.randperm(2000).split(25)):
        with torch.no_grad():
            feat = trunk(obs[idx])
        logits = head(feat)
        (F.cross_entropy(logits, act[idx], label_smoothing=0.02) / ACCUM).backward()
        if (k + 1) % ACCUM == 0:
            head_opt.step()
            head_opt.zero_grad()
    with torch.inference_mode():
        acc = (head(trunk(obs)).argmax(1) == act).float().mean().item()
    print(f"epoch {epoch} accuracy {acc:.3f}")
