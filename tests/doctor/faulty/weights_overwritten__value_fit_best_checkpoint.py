"""Fit a value function by regression on Monte Carlo returns, with early stopping helper."""
import copy

import torch
import torch.nn as nn
import torch.nn.functional as F


class BestKeeper:
    """Remembers the best weights seen on the validation set."""

    def __init__(self, model):
        self.best = float("inf")
        self.state = copy.deepcopy(model.state_dict())
        self.bad_epochs = 0

    def update(self, model, score):
        if score < self.best - 0.5:
            self.best, self.bad_epochs = score, 0
            self.state = copy.deepcopy(model.state_dict())
        else:
            self.bad_epochs += 1
            model.load_state_dict(self.state)  # expect: weights-overwritten
        return self.bad_epochs


def monte_carlo(n, seed, gamma=0.95, horizon=50):
    g = torch.Generator().manual_seed(seed)
    s0 = 2 * torch.rand(n, 2, generator=g) - 1
    s, ret, disc = s0.clone(), torch.zeros(n), 1.0
    for _ in range(horizon):
        u = -0.8 * s[:, 0] - 0.5 * s[:, 1]
        ret += disc * -(s.square().sum(1) + 0.1 * u ** 2)
        s = torch.stack([s[:, 0] + 0.1 * s[:, 1], s[:, 1] + 0.1 * u], 1) + 0.01 * torch.randn(n, 2, generator=g)
        disc *= gamma
    return s0, ret


def main():
    torch.manual_seed(30)
    x, y = monte_carlo(1024, 1)
    xv, yv = monte_carlo(256, 2)
    mean, std = y.mean(), y.std()
    y, yv = (y - mean) / std, (yv - mean) / std
    model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    keeper = BestKeeper(model)
    for epoch in range(40):
        model.train()
        for idx in torch.randperm(len(x)).split(128):
            loss = F.huber_loss(model(x[idx]).squeeze(-1), y[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
        model.eval()
        with torch.no_grad():
            val = F.huber_loss(model(xv).squeeze(-1), yv).item()
        waited = keeper.update(model, val)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1} val {val:.4f} best {keeper.best:.4f} no improvement for {waited}")


if __name__ == "__main__":
    main()
