import torch
import torch.nn as nn
import torch.optim as optim

torch.manual_seed(0)

# three noisy spirals
n = 200
xs, ys = [], []
for k in range(3):
    r = torch.linspace(0.1, 1, n)
    t = torch.linspace(4 * k, 4 * (k + 1), n) + 0.2 * torch.randn(n)
    xs.append(torch.stack([r * torch.sin(t), r * torch.cos(t)], dim=1))
    ys.append(torch.full((n,), k))
x = torch.cat(xs)
y = torch.cat(ys)
weights = torch.where(y == 0, 1.5, 1.0)     # class 0 counts more for us

model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 3))
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=1e-2)


def accuracy():
    with torch.no_grad():
        return (model(x).argmax(dim=1) == y).float().mean().item()


for epoch in range(20):
    order = torch.randperm(len(x))
    total = 0.0
    for b in range(0, len(x), 60):
        idx = order[b:b + 60]
        optimizer.zero_grad()
        outputs = model(x[idx])
        losses = []
        for o, t, w in zip(outputs, y[idx], weights[idx]):
            losses.append(w * criterion(o.unsqueeze(0), t.unsqueeze(0)))
        loss = torch.tensor(losses, requires_grad=True).mean()  # expect: graph-cut
        loss.backward()
        optimizer.step()
        total += loss.item()
    print("epoch", epoch, "loss", round(total / 10, 4), "acc", round(accuracy(), 3))
