"""Behaviour cloning of a braking controller from raw sensor readings."""
import torch
import torch.nn as nn
import torch.nn.functional as F


def collect(n=1600, seed=40):
    g = torch.Generator().manual_seed(seed)
    distance_mm = 2e3 + 8e4 * torch.rand(n, generator=g)
    speed_mmps = 3e4 * torch.rand(n, generator=g)
    grade_ppm = 1e4 * torch.randn(n, generator=g)
    needed = speed_mmps ** 2 / (2 * distance_mm) / 5e3 + grade_ppm / 1e5
    brake = torch.sigmoid(3 * (needed - 0.6))
    return torch.stack([distance_mm, speed_mmps, grade_ppm], 1), brake


class BrakePolicy(nn.Module):
    def __init__(self, d: int = 3, h: int = 64):
        super().__init__()
        self.encoder = nn.Linear(d, h)
        self.mixer = nn.Linear(h, h)
        self.out = nn.Linear(h, 1)

    def forward(self, x):
        z = torch.tanh(self.encoder(x))  # expect: saturation
        z = F.relu(self.mixer(z))
        return self.out(z).squeeze(-1)


def main():
    torch.manual_seed(40)
    x, y = collect()
    train, test = slice(0, 1400), slice(1400, None)
    policy = BrakePolicy()
    opt = torch.optim.Adam(policy.parameters(), lr=1e-3)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=15)
    for epoch in range(15):
        for idx in torch.randperm(1400).split(70):
            logits = policy(x[train][idx])
            loss = F.binary_cross_entropy_with_logits(logits, y[train][idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
        sched.step()
        if epoch % 5 == 4:
            with torch.no_grad():
                err = (policy(x[test]).sigmoid() - y[test]).abs().mean()
            print(f"epoch {epoch + 1}: loss {loss.item():.4f} test abs error {err.item():.4f}")


if __name__ == "__main__":
    main()
