"""Transfer: a small conv net learns to tell stripes' orientation, then its features are frozen for a new task."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)


def stripes(n, size=12):
    angle = torch.rand(n) * torch.pi
    freq = 0.8 + 0.8 * torch.rand(n)
    yy, xx = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    phase = freq[:, None, None] * (xx * torch.cos(angle)[:, None, None] + yy * torch.sin(angle)[:, None, None])
    img = torch.sin(phase + 6.28 * torch.rand(n, 1, 1)) + 0.2 * torch.randn(n, size, size)
    orientation = (angle / torch.pi * 4).long().clamp(max=3)
    coarse = freq < 1.2
    return img.unsqueeze(1), orientation, coarse.float()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.features(x))


net = Net()

# 1. pretraining
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
for step in range(120):
    x, y, _ = stripes(64)
    loss = F.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 40 == 39:
        print(f"pretrain {step + 1} loss {loss.item():.3f}")

# 2. new task on top of frozen features
for p in net.features.parameters():
    p.requires_grad = False
net.head = nn.Linear(64, 1)
opt = torch.optim.SGD(filter(lambda p: p.requires_grad, net.parameters()), lr=0.05, momentum=0.9)
x_test, _, y_test = stripes(256)
for step in range(200):
    x, _, y = stripes(64)
    loss = F.binary_cross_entropy_with_logits(net(x).squeeze(1), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 50 == 49:
        net.eval()
        with torch.no_grad():
            acc = ((net(x_test).squeeze(1) > 0).float() == y_test).float().mean().item()
        net.train()
        print(f"probe {step + 1} loss {loss.item():.3f} test acc {acc:.3f}")
