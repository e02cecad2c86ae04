# policy gradient with a linear-ish policy and softmax in plain torch, stock trading toy
import numpy as np
import torch

np.random.seed(5)
torch.manual_seed(5)

WINDOW, N_ACTIONS, LR = 5, 3, 0.02

w1 = (torch.randn(WINDOW, 16) * 0.1).requires_grad_()
b1 = torch.zeros(16, requires_grad=True)
w2 = (torch.randn(16, N_ACTIONS) * 0.1).requires_grad_()
params = [w1, b1, w2]
optimizer = torch.optim.SGD(params, lr=LR)


def policy(prices):
    h = torch.relu(prices @ w1 + b1)
    logits = h @ w2
    e = torch.exp(logits)  # expect: non-finite
    return e / e.sum(dim=1, keepdim=True)


def market(n_days, drift):
    noise = np.random.randn(n_days)
    return 20.0 + np.cumsum(drift + noise)


def windows(series):
    idx = np.arange(len(series) - WINDOW)[:, None] + np.arange(WINDOW)[None, :]
    return series[idx], series[WINDOW:] - series[WINDOW - 1:-1]


position = torch.tensor([-1.0, 0.0, 1.0])  # sell, hold, buy
for epoch in range(250):
    x, move = windows(market(60, drift=0.05 + 0.02 * epoch))
    x = torch.tensor(x, dtype=torch.float32)
    move = torch.tensor(move, dtype=torch.float32)

    probs = policy(x)
    with torch.no_grad():
        u = torch.rand(len(probs), 1)
        action = (u > probs.cumsum(dim=1)).sum(dim=1).clamp(max=N_ACTIONS - 1)
        profit = position[action] * move
    log_prob = torch.log(probs[torch.arange(len(action)), action] + 1e-6)
    loss = -(log_prob * (profit - profit.mean())).mean()

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if epoch % 25 == 0:
        print(f"epoch {epoch} profit {profit.sum().item():.2f} loss {loss.item():.4f} max price {x.max().item():.1f}")
