# Clone an LQR controller with a Gaussian policy (to be fine-tuned by RL later), maximum likelihood.
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(67)
rng = np.random.default_rng(67)
A = np.array([[1.0, 0.1], [0.0, 1.0]])
B = np.array([[0.0], [0.1]])


def lqr_gain(q=1.0, r=0.1, iters=300):
    P = np.eye(2)
    for _ in range(iters):
        K = np.linalg.solve(r * np.eye(1) + B.T @ P @ B, B.T @ P @ A)
        P = q * np.eye(2) + A.T @ P @ (A - B @ K)
    return K


def demonstrations(K, episodes=40, T=40):
    S, U = [], []
    for _ in range(episodes):
        x = rng.normal(size=2)
        for _ in range(T):
            u = -K @ x
            S.append(x)
            U.append(u)
            x = A @ x + B @ u + 0.02 * rng.normal(size=2)
    return torch.tensor(np.array(S), dtype=torch.float32), torch.tensor(np.array(U), dtype=torch.float32)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Linear(2, 1)
        self.log_std = nn.Parameter(torch.zeros(1))

    def _scale(self):
        return self.log_std.exp()  # expect: std-collapse

    def dist(self, s):
        return torch.distributions.Normal(self.mean(s), self._scale())

    def nll(self, s, u):
        return -self.dist(s).log_prob(u).mean()


S, U = demonstrations(lqr_gain())
policy = Policy()

# start the mean from the least-squares solution, then maximise the likelihood of everything
with torch.no_grad():
    policy.mean.weight.copy_(torch.linalg.lstsq(S, U).solution.T)
    policy.mean.bias.zero_()
opt = torch.optim.Adam([{"params": policy.mean.parameters(), "lr": 1e-6}, {"params": [policy.log_std], "lr": 1e-2}])
for it in range(1500):
    idx = torch.randint(0, len(S), (128,))
    loss = policy.nll(S[idx], U[idx])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 250 == 0:
        print(it, "nll", loss.item(), "log_std", policy.log_std.item())
print("final nll", loss.item())
