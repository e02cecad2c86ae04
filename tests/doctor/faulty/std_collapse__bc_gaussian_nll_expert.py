"""Behaviour cloning of a linear-quadratic expert with a Gaussian head (negative log-likelihood)."""
import math
import numpy as np
import torch
from torch import nn, optim


def lqr_gain(A, B, Q, R, iters=200):
    P = Q
    for _ in range(iters):
        K = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        P = Q + A.T @ P @ (A - B @ K)
    return K


def collect(K, A, B, episodes=60, horizon=40, seed=0):
    rng = np.random.default_rng(seed)
    xs, us = [], []
    for _ in range(episodes):
        x = rng.normal(size=2)
        for _ in range(horizon):
            u = -K @ x
            xs.append(x.copy())
            us.append(u.copy())
            x = A @ x + B @ u + 0.05 * rng.normal(size=2)
    return np.array(xs, dtype=np.float32), np.array(us, dtype=np.float32)


class GaussianClone(nn.Module):
    def __init__(self, d_obs, d_act):
        super().__init__()
        self.mean = nn.Linear(d_obs, d_act)
        self.log_std = nn.Parameter(torch.zeros(d_act))

    def nll(self, x, u):
        mu = self.mean(x)
        sigma = self.log_std.exp()  # expect: std-collapse
        z = (u - mu) / sigma
        return (0.5 * z ** 2 + sigma.log() + 0.5 * math.log(2 * math.pi)).sum(-1).mean()


if __name__ == "__main__":
    torch.manual_seed(0)
    A, B = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.0], [0.1]])
    K = lqr_gain(A, B, np.eye(2), np.array([[0.1]]))
    X, U = map(torch.from_numpy, collect(K, A, B))
    model = GaussianClone(2, 1)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(60):
        perm = torch.randperm(len(X))
        for i in range(0, len(X), 64):
            j = perm[i:i + 64]
            loss = model.nll(X[j], U[j])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch % 10 == 9:
            with torch.no_grad():
                mae = (model.mean(X) - U).abs().mean()
            print(f"epoch {epoch + 1} nll {loss.item():.2f} mae {mae:.5f}")
