import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, SWALR, update_bn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
np.random.seed(0)


def spiral(n_per, classes=3):
    xs, ys = [], []
    for c in range(classes):
        r = np.linspace(0.1, 1, n_per)
        th = np.linspace(c * 2.1, c * 2.1 + 4, n_per) + 0.15 * np.random.randn(n_per)
        xs.append(np.c_[r * np.sin(th), r * np.cos(th)])
        ys.append(np.full(n_per, c))
    return torch.tensor(np.concatenate(xs), dtype=torch.float32), torch.tensor(np.concatenate(ys))


class Residual(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.bn, self.a, self.b = nn.BatchNorm1d(d), nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x):
        return x + self.b(torch.relu(self.a(self.bn(x))))


train = DataLoader(TensorDataset(*spiral(150)), batch_size=50, shuffle=True)
xt, yt = spiral(60)
net = nn.Sequential(nn.Linear(2, 40), Residual(40), Residual(40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 3))
avg = AveragedModel(net)
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
cos = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=30)
swa = SWALR(opt, swa_lr=0.03, anneal_epochs=3)
crit = nn.CrossEntropyLoss(label_smoothing=0.05)
for epoch in range(45):
    net.train()
    for x, y in train:
        opt.zero_grad()
        loss = crit(net(x), y)
        loss.backward()
        opt.step()
    if epoch >= 30:
        avg.update_parameters(net)
        swa.step()
    else:
        cos.step()
    if epoch % 10 == 0:
        print(epoch, loss.item(), opt.param_groups[0]["lr"])
update_bn(train, avg)
net.eval()
avg.eval()
with torch.no_grad():
    for name, m in (("last", net), ("averaged", avg)):
        print(name, (m(xt).argmax(1) == yt).float().mean().item())
