# predict how long a job will wait in the queue (minutes), output must be positive
import numpy as np
import torch

rng = np.random.default_rng(5)
torch.manual_seed(5)


def softplus(x):
    return torch.log(1 + torch.exp(x))  # expect: non-finite


def make_jobs(n):
    size = rng.uniform(0, 1, n)
    load = rng.uniform(0, 1, n)
    hour = rng.integers(0, 24, n)
    wait = 10 + 150 * load * size + 40 * (np.abs(hour - 14) < 4) + rng.exponential(5, n)
    feats = np.stack([size, load, np.sin(hour / 24 * 2 * np.pi), np.cos(hour / 24 * 2 * np.pi)], axis=1)
    return torch.tensor(feats, dtype=torch.float32), torch.tensor(wait, dtype=torch.float32)


w1 = (torch.randn(4, 64) / 2).requires_grad_()
b1 = torch.zeros(64, requires_grad=True)
w2 = (torch.randn(64, 1) / 8).requires_grad_()
b2 = torch.zeros(1, requires_grad=True)
params = [w1, b1, w2, b2]
optimizer = torch.optim.Adam(params, lr=5e-3)


def forward(x):
    h = torch.tanh(x @ w1 + b1)
    return softplus(h @ w2 + b2).squeeze(1)


x_train, y_train = make_jobs(1500)
x_test, y_test = make_jobs(300)
for epoch in range(30):
    perm = torch.from_numpy(rng.permutation(len(x_train)))
    epoch_loss = 0.0
    for i in range(0, len(perm), 50):
        idx = perm[i:i + 50]
        loss = torch.nn.functional.smooth_l1_loss(forward(x_train[idx]), y_train[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        epoch_loss += loss.item() * len(idx)
    with torch.no_grad():
        mae = (forward(x_test) - y_test).abs().mean().item()
    print(f"epoch {epoch:2d} train {epoch_loss / len(perm):.3f} test mae {mae:.2f} min")
