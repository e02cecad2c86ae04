import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser(description="Behaviour cloning of a hand-written CartPole controller")
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--lr", type=float, default=1e-11, help="learning rate")  # expect: learning-rate
parser.add_argument("--hidden", type=int, default=64)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.manual_seed(args.seed)


def expert(obs):
    return (obs[:, 2] + 0.3 * obs[:, 3] + 0.05 * obs[:, 1] > 0).long()


def make_data(n):
    obs = torch.randn(n, 4) * torch.tensor([1.0, 1.0, 0.2, 1.0])
    return obs, expert(obs)


train_x, train_y = make_data(2000)
test_x, test_y = make_data(500)

model = nn.Sequential(
    nn.Linear(4, args.hidden),
    nn.ReLU(),
    nn.Linear(args.hidden, args.hidden),
    nn.ReLU(),
    nn.Linear(args.hidden, 2),
)
optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

for epoch in range(args.epochs):
    model.train()
    perm = torch.randperm(len(train_x))
    total = 0.0
    for i in range(0, len(perm), args.batch_size):
        idx = perm[i:i + args.batch_size]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(train_x[idx]), train_y[idx])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(idx)
    model.eval()
    with torch.no_grad():
        acc = (model(test_x).argmax(dim=1) == test_y).float().mean().item()
    print(f"epoch {epoch:2d}  loss {total / len(perm):.4f}  test accuracy {acc:.3f}")
