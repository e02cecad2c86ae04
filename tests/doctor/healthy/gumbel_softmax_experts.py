# Mixture of experts with a discrete gate: each input goes to one expert, the gate learns through Gumbel-softmax.
import argparse

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--experts", type=int, default=4)
parser.add_argument("--steps", type=int, default=700)
parser.add_argument("--lr", type=float, default=5e-3)
parser.add_argument("--tau-start", type=float, default=1.0)
parser.add_argument("--tau-end", type=float, default=0.4)
args = parser.parse_args()

np.random.seed(0)
torch.manual_seed(0)


def target_fn(x):
    return np.where(x < -1, 2 * x + 3, np.where(x < 0, -x, np.where(x < 1, x * 0.5, 1.5 - x)))


def sample_batch(n):
    x = np.random.uniform(-2, 2, size=(n, 1))
    y = target_fn(x) + 0.03 * np.random.randn(n, 1)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


class MoE(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, k))
        self.experts = nn.ModuleList([nn.Linear(1, 1) for _ in range(k)])

    def forward(self, x, tau=None):
        logits = self.gate(x)
        if tau is None:                                            # evaluation: the best expert
            w = F.one_hot(logits.argmax(-1), logits.size(-1)).float()
        else:
            w = F.gumbel_softmax(logits, tau=tau, hard=True)
        outs = torch.cat([e(x) for e in self.experts], dim=1)
        return (w * outs).sum(dim=1, keepdim=True), logits


model = MoE(args.experts)
optimizer = torch.optim.RMSprop(model.parameters(), lr=args.lr)
x_val, y_val = sample_batch(512)

for step in range(args.steps):
    tau = args.tau_start * (args.tau_end / args.tau_start) ** (step / args.steps)
    x, y = sample_batch(128)
    pred, logits = model(x, tau)
    mean_gate = logits.softmax(-1).mean(0)
    balance = (mean_gate * mean_gate.log()).sum()
    loss = (pred - y).pow(2).mean() + 0.15 * balance
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

    if (step + 1) % 140 == 0:
        model.eval()
        with torch.no_grad():
            val = F.mse_loss(model(x_val)[0], y_val)
        model.train()
        print(f"step {step + 1}: train {loss.item():.4f} val {val.item():.4f} tau {tau:.2f} gate {mean_gate.tolist()}")
