import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim import Adam

torch.manual_seed(10)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(4, 64)
        self.l2 = nn.Linear(64, 2)

    def forward(self, x):
        return F.log_softmax(self.l2(torch.tanh(self.l1(x))), dim=-1)


class Baseline(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(4, 64)
        self.l2 = nn.Linear(64, 1)

    def forward(self, x):
        return self.l2(torch.tanh(self.l1(x))).squeeze(-1)


policy, baseline = Policy(), Baseline()
policy_opt = Adam(policy.parameters(), lr=3e-3)
baseline_opt = Adam(baseline.parameters(), lr=1e-2)
env = gym.make("CartPole-v1")


def run_episode(seed):
    obs, _ = env.reset(seed=seed)
    O, A, R = [], [], []
    while True:
        with torch.no_grad():
            p = policy(torch.from_numpy(obs)).exp().numpy().astype(np.float64)
        a = np.random.choice(2, p=p / p.sum())
        O.append(obs)
        A.append(a)
        obs, r, terminated, truncated, _ = env.step(int(a))
        R.append(r)
        if terminated or truncated:
            return torch.tensor(np.array(O)), torch.tensor(np.array(A)), R


np.random.seed(10)
history = []
for episode in range(100):
    O, A, R = run_episode(episode)
    G = torch.tensor([sum(0.99 ** k * r for k, r in enumerate(R[t:])) for t in range(len(R))], dtype=torch.float32)

    values = baseline(O)
    advantage = (G - values).detach()
    logp = policy(O)[torch.arange(len(A)), A]
    policy_loss = -(logp * advantage).mean()
    baseline_loss = F.mse_loss(values, G)

    policy_opt.zero_grad()
    baseline_opt.zero_grad()
    policy_loss.backward()
    baseline_opt.step()  # expect: order-of-calls
    baseline_loss.backward()
    baseline_opt.step()

    history.append(len(R))
    if (episode + 1) % 25 == 0:
        print(f"{episode + 1:4d} mean length {np.mean(history[-25:]):.1f} baseline loss {baseline_loss.item():.2f}")
