import copy
import math
import torch
from torch import nn


def make_targets(n, g):
    s = torch.rand(n, 3, generator=g) * 2 - 1
    v = torch.sin(3 * s[:, 0]) * s[:, 1] + 0.5 * (s[:, 2] > 0).float()
    return s, v + 0.1 * torch.randn(n, generator=g)


def lr_schedule(step, warm=60, total=1500):
    if step < warm:
        return step / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / (total - warm))))


def fit(epochs=40, patience=6):
    g = torch.Generator().manual_seed(14)
    torch.manual_seed(14)
    xtr, ytr = make_targets(1600, g)
    xva, yva = make_targets(400, g)
    net = nn.Sequential(nn.Linear(3, 96), nn.ReLU(), nn.Dropout(0.05), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 1))
    decay = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim == 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 1e-2}, {"params": plain, "weight_decay": 0.0}], lr=3e-3)
    sched = torch.optim.lr_scheduler.LambdaLR(opt, lr_schedule)
    best, best_weights, bad = float("inf"), None, 0
    for epoch in range(epochs):
        net.train()
        for i in torch.randperm(len(xtr), generator=g).split(40):
            loss = (net(xtr[i]).flatten() - ytr[i]).square().mean()
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
            opt.step()
            sched.step()
        net.eval()
        with torch.no_grad():
            val = (net(xva).flatten() - yva).square().mean().item()
        if val < best - 1e-4:
            best, best_weights, bad = val, copy.deepcopy(net.state_dict()), 0
        else:
            bad += 1
        if epoch % 5 == 0:
            print(f"epoch {epoch:2d} val {val:.4f}")
        if bad > patience:
            break
    net.load_state_dict(best_weights)
    print("restored best", round(best, 4))
    return net


if __name__ == "__main__":
    fit()
