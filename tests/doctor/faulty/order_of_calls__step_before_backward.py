import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)

x = torch.rand(800, 2) * 4 - 2
y = (torch.sin(2 * x[:, :1]) + 0.5 * x[:, 1:] ** 2) + 0.05 * torch.randn(800, 1)
train_set = TensorDataset(x[:640], y[:640])
val_x, val_y = x[640:], y[640:]
loader = DataLoader(train_set, batch_size=32, shuffle=True)


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 64),
            nn.ReLU(),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Linear(64, 1),
        )

    def forward(self, x):
        return self.layers(x)


def train_one_epoch(model, loader, loss_fn, optimizer):
    model.train()
    total = 0.0
    for xb, yb in loader:
        pred = model(xb)
        loss = loss_fn(pred, yb)
        optimizer.zero_grad()
        optimizer.step()  # expect: order-of-calls
        loss.backward()
        total += loss.item() * len(xb)
    return total / len(loader.dataset)


def validate(model, loss_fn):
    model.eval()
    with torch.no_grad():
        return loss_fn(model(val_x), val_y).item()


model = Regressor()
loss_fn = nn.MSELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(1, 21):
    train_loss = train_one_epoch(model, loader, loss_fn, optimizer)
    if epoch % 5 == 0:
        print(f"Epoch {epoch:2d} | train {train_loss:.4f} | val {validate(model, loss_fn):.4f}")
