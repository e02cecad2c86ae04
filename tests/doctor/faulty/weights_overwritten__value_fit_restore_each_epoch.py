import copy
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(77)
np.random.seed(77)


# discounted return of a pendulum-like decay, value as function of (x, v)
def rollout_return(x, v, gamma=0.95, n=60):
    g = np.zeros_like(x)
    for k in range(n):
        g += gamma ** k * -(x ** 2 + 0.1 * v ** 2)
        v = v - 0.1 * np.sin(2 * x) - 0.02 * v
        x = x + 0.1 * v
    return g


X = np.random.uniform(-1.5, 1.5, (1500, 2))
Y = rollout_return(X[:, 0].copy(), X[:, 1].copy())
Y = (Y - Y.mean()) / Y.std()
X, Y = torch.tensor(X, dtype=torch.float32), torch.tensor(Y, dtype=torch.float32).unsqueeze(1)
train_dl = DataLoader(TensorDataset(X[:1200], Y[:1200]), batch_size=50, shuffle=True)
val_x, val_y = X[1200:], Y[1200:]

model = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.GELU(), torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
mse = torch.nn.MSELoss()

best = float("inf")
best_state = copy.deepcopy(model.state_dict())
for epoch in range(20):
    model.train()
    for xb, yb in train_dl:
        optimizer.zero_grad()
        mse(model(xb), yb).backward()
        optimizer.step()
    # always go on from the best weights
    model.load_state_dict(best_state)  # expect: weights-overwritten
    model.eval()
    with torch.no_grad():
        val = mse(model(val_x), val_y).item()
    if val < best:
        best = val
        best_state = copy.deepcopy(model.state_dict())
    print(f"epoch {epoch} validation {val:.4f} best {best:.4f}")
