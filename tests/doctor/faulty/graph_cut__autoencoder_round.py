import torch
import torch.nn as nn

torch.manual_seed(11)

# sensor frames: 12 readings that come from 3 hidden causes
causes = torch.rand(1024, 3)
mixing = torch.randn(3, 12)
frames = torch.sin(causes @ mixing) + 0.02 * torch.randn(1024, 12)


class Compressor(nn.Module):
    """Encodes a frame into a few integers so that it can be sent over a slow link."""

    def __init__(self, n_in=12, n_code=4, levels=8):
        super().__init__()
        self.levels = levels
        self.enc = nn.Sequential(nn.Linear(n_in, 64), nn.ReLU(), nn.Linear(64, n_code))
        self.dec = nn.Sequential(nn.Linear(n_code, 64), nn.ReLU(), nn.Linear(64, n_in))

    def encode(self, x):
        z = torch.sigmoid(self.enc(x))
        return torch.round(z * (self.levels - 1))  # expect: graph-cut

    def decode(self, code):
        return self.dec(code / (self.levels - 1) - 0.5)

    def forward(self, x):
        return self.decode(self.encode(x))


model = Compressor()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(frames), batch_size=128, shuffle=True)

for epoch in range(40):
    running = 0.0
    for (x,) in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), x)
        loss.backward()
        optimizer.step()
        running += loss.item()
    if epoch % 10 == 9:
        print(f"epoch {epoch + 1}: reconstruction {running / len(loader):.4f}")

model.eval()
with torch.no_grad():
    print("codes in use:", torch.unique(model.encode(frames), dim=0).shape[0])
