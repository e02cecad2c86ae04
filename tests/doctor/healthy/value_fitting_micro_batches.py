"""Distil the values of a (frozen) teacher plus Monte-Carlo returns into a small net, with micro batches."""
import copy

import torch
from torch import nn, optim
import torch.nn.functional as F

torch.manual_seed(139)
ACCUM = 4


def dynamics(x):
    return 0.8 * x + 0.05 * torch.randn_like(x)


@torch.no_grad()
def mc_return(x, gamma=0.9, horizon=25):
    g = torch.zeros(len(x), 1)
    for k in range(horizon):
        g += gamma ** k * (torch.sin(2 * x[:, :1]) + 0.5 * x[:, 1:])
        x = dynamics(x)
    return g


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 48), nn.Linear(48, 48)])
        self.out = nn.Linear(48, 1)

    def forward(self, x):
        for b in self.blocks:
            x = F.silu(b(x))
        return self.out(x)


def fit(model, target_fn, updates, lr, decay=0.0):
    opt = optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
    opt.zero_grad()
    for micro in range(updates * ACCUM):
        x = 1.5 * torch.randn(48, 2)
        loss = F.mse_loss(model(x), target_fn(x)) / ACCUM
        loss.backward()
        if (micro + 1) % ACCUM:
            continue
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        opt.step()
        opt.zero_grad()
    return loss.item() * ACCUM


teacher = Student()
print("teacher", fit(teacher, mc_return, 160, 3e-3))
teacher.requires_grad_(False)


def mixed_target(x):
    return 0.5 * teacher(x) + 0.5 * mc_return(x)


student = Student()
ema = copy.deepcopy(student)
for round_ in range(4):
    err = fit(student, mixed_target, 40, 2e-3, decay=1e-2)
    with torch.no_grad():
        for p, q in zip(student.parameters(), ema.parameters()):
            q.mul_(0.2).add_(p, alpha=0.8)
    print("round", round_, "student error", round(err, 4))
with torch.no_grad():
    x = torch.randn(400, 2)
    print("average of weights, test error", F.mse_loss(ema(x), mc_return(x)).item())
