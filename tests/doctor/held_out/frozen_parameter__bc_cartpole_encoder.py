"""Behaviour cloning of a hand-coded CartPole controller."""
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


def expert(o):
    return int(o[2] + 0.5 * o[3] + 0.05 * o[0] + 0.1 * o[1] > 0)


def collect(n_steps, noise=0.2, seed=0):
    env = gym.make("CartPole-v1")
    rng = np.random.default_rng(seed)
    X, Y = [], []
    o, _ = env.reset(seed=seed)
    for _ in range(n_steps):
        label = expert(o)
        X.append(o)
        Y.append(label)
        # some random moves so that the data covers more states
        a = label if rng.random() > noise else int(rng.integers(2))
        o, _, terminated, truncated, _ = env.step(a)
        if terminated or truncated:
            o, _ = env.reset()
    return torch.tensor(np.array(X)), torch.tensor(Y)


class ClonedPolicy(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, hidden), nn.ELU(), nn.Linear(hidden, hidden), nn.ELU())
        self.head = nn.Linear(hidden, 2)

    def forward(self, x):
        return self.head(self.encoder(x))


torch.manual_seed(5)
X, Y = collect(2500)
Xtest, Ytest = collect(500, seed=99)
policy = ClonedPolicy()

# short warm-up of the head
policy.encoder.requires_grad_(False)  # expect: frozen-parameter
warm = torch.optim.SGD(policy.head.parameters(), lr=0.1)
for _ in range(20):
    pick = torch.randint(len(X), (128,))
    warm_loss = nn.functional.cross_entropy(policy(X[pick]), Y[pick])
    warm.zero_grad()
    warm_loss.backward()
    warm.step()

# then train the whole thing end to end
opt = torch.optim.Adam(policy.parameters(), lr=2e-3, weight_decay=0.0)
loader = DataLoader(TensorDataset(X, Y), batch_size=64, shuffle=True)
for epoch in range(8):
    running = 0.0
    for xb, yb in loader:
        loss = nn.functional.cross_entropy(policy(xb), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
        running += loss.item() * len(xb)
    with torch.no_grad():
        acc = (policy(Xtest).argmax(1) == Ytest).float().mean().item()
    print(f"epoch {epoch}: loss {running / len(X):.4f} test acc {acc:.3f}")
