"""Stage 1: self-supervised encoder with an EMA teacher. Stage 2: cloning on the frozen encoder.
Stage 3: everything is released at a smaller rate. Stage 4: LBFGS polishes the head; the best weights are kept."""
import copy
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(31)
MIX = torch.randn(4, 12) / 2


def observe(n):
    latent = torch.randn(n, 4)
    return torch.tanh(latent @ MIX), latent


def expert(latent):
    return torch.stack([torch.sin(latent[:, 0]) + 0.3 * latent[:, 1], latent[:, 2] * latent[:, 3].tanh()], 1)


def augment(x):
    return x + 0.1 * torch.randn_like(x)


encoder = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 16))
predictor = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
teacher = copy.deepcopy(encoder).requires_grad_(False)
opt = torch.optim.AdamW([*encoder.parameters(), *predictor.parameters()], lr=2e-3, weight_decay=1e-4)
for it in range(200):
    x, _ = observe(128)
    z = predictor(encoder(augment(x)))
    with torch.no_grad():
        t = teacher(augment(x))
    spread = F.relu(1 - encoder(x).std(0)).mean()
    loss = 1 - F.cosine_similarity(z, t, dim=1).mean() + spread
    opt.zero_grad()
    loss.backward()
    opt.step()
    with torch.no_grad():
        for p, q in zip(encoder.parameters(), teacher.parameters()):
            q.lerp_(p, 0.02)
print("stage 1", round(loss.item(), 4))

head = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 2))
val_x, val_l = observe(800)


def validate():
    with torch.no_grad():
        return F.mse_loss(head(encoder(val_x)), expert(val_l)).item()


def clone(steps, optimizer):
    for _ in range(steps):
        x, l = observe(128)
        loss = F.mse_loss(head(encoder(x)), expert(l))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


encoder.requires_grad_(False)
clone(250, torch.optim.Adam(head.parameters(), lr=3e-3))
print("stage 2", round(validate(), 4))

for p in encoder.parameters():
    p.requires_grad = True
clone(350, torch.optim.Adam([{"params": head.parameters()}, {"params": encoder.parameters(), "lr": 5e-4}], lr=1e-3))
print("stage 3", round(validate(), 4))

encoder.eval()
with torch.no_grad():
    fx, fl = observe(1500)
    feats, goal = encoder(fx), expert(fl)
best, best_val = copy.deepcopy(head.state_dict()), validate()
lbfgs = torch.optim.LBFGS(head.parameters(), lr=0.5, max_iter=6, line_search_fn="strong_wolfe")


def closure():
    lbfgs.zero_grad()
    value = F.mse_loss(head(feats), goal)
    value.backward()
    return value


for _ in range(8):
    lbfgs.step(closure)
    now = validate()
    if now < best_val:
        best, best_val = copy.deepcopy(head.state_dict()), now
head.load_state_dict(best)
print("stage 4", round(validate(), 4))
