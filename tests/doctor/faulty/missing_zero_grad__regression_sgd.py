import numpy as np
import torch

np.random.seed(0)
torch.manual_seed(0)

# boston-like toy data
n, d = 600, 8
X = np.random.randn(n, d)
coef = np.random.randn(d)
prices = X @ coef + 0.8 * np.maximum(X[:, 0] * X[:, 1], 0) + 0.1 * np.random.randn(n)
X = torch.from_numpy(X).float()
prices = torch.from_numpy(prices).float().reshape(-1, 1)

model = torch.nn.Sequential(
    torch.nn.Linear(d, 32),
    torch.nn.Tanh(),
    torch.nn.Linear(32, 1),
)
loss_fn = torch.nn.MSELoss(reduction="mean")
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

best = float("inf")
for epoch in range(25):
    perm = torch.randperm(480)
    for start in range(0, 480, 40):
        rows = perm[start:start + 40]
        y_pred = model(X[rows])
        loss = loss_fn(y_pred, prices[rows])
        loss.backward()
        optimizer.step()  # expect: missing-zero-grad

    with torch.no_grad():
        held_out = loss_fn(model(X[480:]), prices[480:]).item()
    best = min(best, held_out)
    if epoch % 5 == 4:
        print(epoch + 1, "train", loss.item(), "held out", held_out)
print("best held out loss", best)
