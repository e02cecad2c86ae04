"""Stage 1 trains an auto-encoder; stage 2 keeps its encoder fixed and trains a small head with a warm-up schedule."""
import torch
from torch import nn

torch.manual_seed(4)
mix = torch.randn(3, 20)


def sample(n):
    z = torch.randn(n, 3)
    return torch.tanh(z @ mix * 0.5) + 0.05 * torch.randn(n, 20), (z[:, 0] * z[:, 1] + z[:, 2])


class Pretrained(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(20, 48), nn.SiLU(), nn.Linear(48, 5))
        self.decoder = nn.Sequential(nn.Linear(5, 48), nn.SiLU(), nn.Linear(48, 20))

    def fit(self, steps):
        opt = torch.optim.Adam(self.parameters(), lr=3e-3)
        for k in range(steps):
            x, _ = sample(64)
            err = (self.decoder(self.encoder(x)) - x).pow(2).mean()
            opt.zero_grad()
            err.backward()
            opt.step()
        print("reconstruction", err.item())
        return self


class Head(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone.eval()
        for p in self.backbone.parameters():
            p.requires_grad_(False)
        self.top = nn.Sequential(nn.Linear(5, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x):
        with torch.no_grad():
            f = self.backbone(x)
        return self.top(f).squeeze(-1)


model = Head(Pretrained().fit(300).encoder)
opt = torch.optim.AdamW(filter(lambda p: p.requires_grad, model.parameters()), lr=5e-3)
warm = torch.optim.lr_scheduler.LambdaLR(opt, lambda k: min(1.0, (k + 1) / 30) * 0.996 ** k)
best, best_state = 1e9, None
xv, yv = sample(500)
for k in range(500):
    x, y = sample(64)
    loss = nn.functional.mse_loss(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    warm.step()
    if k % 25 == 24:
        with torch.no_grad():
            v = nn.functional.mse_loss(model(xv), yv).item()
        if v < best:
            best, best_state = v, {n: t.clone() for n, t in model.state_dict().items()}
model.load_state_dict(best_state)
print("best validation", best, "variance of the target", yv.var().item())
