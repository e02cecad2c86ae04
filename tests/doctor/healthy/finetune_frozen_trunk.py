import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(9)


class ValueModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh())
        self.head = nn.Linear(32, 1)

    def forward(self, s):
        return self.head(self.trunk(s)).squeeze(-1)


def fit(model, params, x, y, epochs, lr):
    opt = torch.optim.Adam(params, lr=lr)
    for _ in range(epochs):
        for idx in torch.randperm(len(x)).split(64):
            loss = F.huber_loss(model(x[idx]), y[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
    return loss.item()


x = torch.rand(1024, 3) * 2 - 1
y_task1 = torch.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2]
y_task2 = 0.5 * torch.sin(3 * x[:, 0]) - 1.5 * x[:, 1] * x[:, 2] + 0.2

model = ValueModel()
print("pretrain", fit(model, model.parameters(), x, y_task1, 12, 3e-3))

# new task: the trunk is a fixed feature extractor, only the new head is trained
for p in model.trunk.parameters():
    p.requires_grad = False
model.head = nn.Linear(32, 1)
print("head only", fit(model, model.head.parameters(), x[:256], y_task2[:256], 30, 1e-2))

with torch.no_grad():
    print("test", F.huber_loss(model(x[256:]), y_task2[256:]).item())
