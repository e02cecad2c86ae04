"""Fit V(s) of the random policy on Pendulum from discounted sums of costs."""
import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn


class ValueNet(nn.Module):
    def __init__(self, obs_dim, width=64):
        super().__init__()
        self.inp = nn.Linear(obs_dim, width)
        self.mid = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)
        self.act = nn.ReLU()

    def forward(self, obs):
        x = self.act(self.inp(obs))
        x = self.act(self.mid(x))
        x = self.act(self.out(x))  # expect: dead-relu
        return x.squeeze(-1)


def rollouts(n, gamma=0.9, seed=0):
    env = gym.make("Pendulum-v1")
    env.action_space.seed(seed)
    obs_list, ret_list = [], []
    for k in range(n):
        obs, _ = env.reset(seed=seed + k)
        states, rewards, finished = [], [], False
        while not finished:
            states.append(obs)
            obs, r, terminated, truncated, _ = env.step(env.action_space.sample())
            rewards.append(r)
            finished = terminated or truncated
        g = np.zeros(len(rewards) + 1)
        for i in range(len(rewards) - 1, -1, -1):
            g[i] = rewards[i] + gamma * g[i + 1]
        # the last fifty returns are cut short by the time limit, leave them out
        obs_list += states[:-50]
        ret_list += g[:-51].tolist()
    return np.array(obs_list, dtype=np.float32), np.array(ret_list, dtype=np.float32)


torch.manual_seed(17)
obs, ret = rollouts(12)
scale = np.abs(ret).max()
X, y = torch.from_numpy(obs), torch.from_numpy(ret / scale)
n_train = int(0.8 * len(X))

model = ValueNet(3)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
criterion = nn.MSELoss()
for epoch in range(30):
    order = torch.randperm(n_train)
    total = 0.0
    for i in range(0, n_train, 64):
        rows = order[i:i + 64]
        optimizer.zero_grad()
        loss = criterion(model(X[rows]), y[rows])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    if epoch % 5 == 4:
        model.eval()
        with torch.no_grad():
            pred = model(X[n_train:])
            val = criterion(pred, y[n_train:]).item()
        model.train()
        print(f"epoch {epoch + 1}: train {total / n_train:.4f} val {val:.4f} mean prediction {pred.mean().item():.4f} mean target {y[n_train:].mean().item():.4f}")
