import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(33)


def spirals(n):
    """two noisy spirals"""
    t = torch.rand(n, 1) * 3.0
    label = torch.randint(0, 2, (n, 1)).float()
    angle = 2 * t + label * 3.14159
    x = torch.cat([t * torch.cos(angle), t * torch.sin(angle)], dim=1)
    return x + 0.05 * torch.randn_like(x), label


class Block(nn.Module):
    def __init__(self, n_in, n_out, bias):
        super().__init__()
        self.lin = nn.Linear(n_in, n_out)
        nn.init.kaiming_normal_(self.lin.weight, nonlinearity="relu")
        nn.init.constant_(self.lin.bias, bias)

    def forward(self, x):
        return self.lin(x)


class SpiralNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.b1 = Block(2, 64, 0.0)
        self.b2 = Block(64, 64, -25.0)
        self.out = nn.Linear(64, 1)

    def forward(self, x):
        h = F.leaky_relu(self.b1(x))
        h = F.relu(self.b2(h))  # expect: dead-relu
        return self.out(h)


x_train, y_train = spirals(1000)
x_val, y_val = spirals(300)
net = SpiralNet()
optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.0)
criterion = nn.BCEWithLogitsLoss()

for epoch in range(20):
    perm = torch.randperm(1000)
    for chunk in perm.chunk(16):
        optimizer.zero_grad()
        loss = criterion(net(x_train[chunk]), y_train[chunk])
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
    with torch.no_grad():
        val_acc = ((net(x_val) > 0).float() == y_val).float().mean().item()
    if epoch % 4 == 0:
        print(f"epoch {epoch:2d} | loss {loss.item():.4f} | val acc {val_acc:.3f}")
