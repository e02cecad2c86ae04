"""Sequence value fitting: hand-written LSTM gates on top of fixed random Fourier features."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence


class RandomFeatures(nn.Module):
    """Random projection, not trained."""

    def __init__(self, d, k):
        super().__init__()
        self.proj = nn.Linear(d, k)
        self.proj.requires_grad_(False)

    @torch.no_grad()
    def forward(self, x):
        return torch.cos(self.proj(x))


class MyLSTM(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.lin, self.h = nn.Linear(d + h, 4 * h), h
        self.out = nn.Linear(h, 1)

    def forward(self, x):                      # [B, T, d]
        h = c = x.new_zeros(len(x), self.h)
        ys = []
        for x_t in x.unbind(1):
            i, f, g, o = self.lin(torch.cat([x_t, h], 1)).chunk(4, 1)
            c = torch.sigmoid(f + 1.0) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            ys.append(self.out(h))
        return torch.cat(ys, 1)


torch.manual_seed(27)
seqs = [torch.randn(int(n), 2) for n in torch.randint(4, 11, (300,))]
targets = []
for s in seqs:
    acc, y = torch.zeros(()), []
    for r in s[:, 0]:
        acc = 0.8 * acc + r
        y.append(acc)
    targets.append(torch.stack(y))
lengths = torch.tensor([len(s) for s in seqs])
x, y = pad_sequence(seqs, batch_first=True), pad_sequence(targets, batch_first=True)
mask = torch.arange(x.shape[1])[None] < lengths[:, None]

features, model = RandomFeatures(2, 24), MyLSTM(24, 24)
opt = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=3)
for epoch in range(20):
    total = 0.0
    for idx in torch.randperm(len(x)).split(50):
        pred = model(features(x[idx]))
        per_step = F.smooth_l1_loss(pred, y[idx], reduction="none")
        loss = per_step[mask[idx]].mean()
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        total += loss.item()
    plateau.step(total)
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1} loss {total / 6:.4f}")
