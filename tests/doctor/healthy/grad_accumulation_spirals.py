import math

import torch
from torch import nn

torch.manual_seed(42)

# three interleaved spirals
n_per_class, n_classes = 200, 3
xs, ys = [], []
for c in range(n_classes):
    r = torch.linspace(0.1, 1.0, n_per_class)
    t = torch.linspace(0, 3.0, n_per_class) + c * 2 * math.pi / n_classes + 0.1 * torch.randn(n_per_class)
    xs.append(torch.stack([r * torch.cos(t), r * torch.sin(t)], dim=1))
    ys.append(torch.full((n_per_class,), c))
X, Y = torch.cat(xs), torch.cat(ys)

loader = torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(X, Y), batch_size=25, shuffle=True, drop_last=True
)

model = nn.Sequential(
    nn.Linear(2, 64), nn.ReLU(), nn.LayerNorm(64), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.05), nn.Linear(64, 3)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
criterion = nn.CrossEntropyLoss()
accum_steps = 4

optimizer.zero_grad()
for epoch in range(40):
    running, correct = 0.0, 0
    for i, (x, y) in enumerate(loader):
        logits = model(x)
        loss = criterion(logits, y) / accum_steps
        loss.backward()
        running += loss.item() * accum_steps
        correct += (logits.argmax(dim=1) == y).sum().item()

        if (i + 1) % accum_steps == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            optimizer.zero_grad()
    scheduler.step()
    if epoch % 8 == 7:
        print(f"epoch {epoch + 1:3d} loss {running / len(loader):.4f} acc {correct / len(X):.3f} "
              f"lr {scheduler.get_last_lr()[0]:.2e}")
