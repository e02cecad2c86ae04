import argparse
import random

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

p = argparse.ArgumentParser()
p.add_argument("--lr", type=float, default=1e-3)
p.add_argument("--gamma", type=float, default=0.99)
p.add_argument("--steps", type=int, default=1200)
p.add_argument("--hidden", type=int, nargs="+", default=[64, 64])
args = p.parse_args()

random.seed(0)
np.random.seed(0)
torch.manual_seed(0)


class QNetwork(nn.Module):
    def __init__(self, n_obs, n_act, hidden):
        super().__init__()
        sizes = [n_obs] + list(hidden)
        self.hidden = [nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:])]  # expect: optimizer-mismatch
        self.out = nn.Linear(sizes[-1], n_act)

    def embed(self, x):
        for layer in self.hidden:
            x = F.relu(layer(x))
        return x

    def forward(self, x):
        return self.out(self.embed(x))


env = gym.make("CartPole-v1")
q = QNetwork(4, 2, args.hidden)
q_target = QNetwork(4, 2, args.hidden)


def sync():
    q_target.load_state_dict(q.state_dict())
    for src, dst in zip(q.hidden, q_target.hidden):
        dst.load_state_dict(src.state_dict())


sync()
optimizer = torch.optim.Adam(q.parameters(), lr=args.lr)
N = 5000
S, S2 = np.zeros((N, 4), np.float32), np.zeros((N, 4), np.float32)
A, R, D = np.zeros(N, np.int64), np.zeros(N, np.float32), np.zeros(N, np.float32)

obs, _ = env.reset(seed=0)
ret, history = 0.0, []
for t in range(args.steps):
    eps = max(0.05, 1 - t / 600)
    if random.random() < eps:
        a = env.action_space.sample()
    else:
        with torch.no_grad():
            a = q(torch.from_numpy(obs)).argmax().item()
    nxt, r, terminated, truncated, _ = env.step(a)
    S[t], A[t], R[t], S2[t], D[t] = obs, a, r, nxt, terminated
    obs = nxt
    ret += r
    if terminated or truncated:
        history.append(ret)
        ret, (obs, _) = 0.0, env.reset()
    if t < 200:
        continue
    i = np.random.randint(0, t + 1, size=32)
    with torch.no_grad():
        target = torch.from_numpy(R[i]) + args.gamma * q_target(torch.from_numpy(S2[i])).amax(1) * torch.from_numpy(1 - D[i])
    pred = q(torch.from_numpy(S[i])).gather(1, torch.from_numpy(A[i])[:, None])[:, 0]
    loss = F.smooth_l1_loss(pred, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if t % 100 == 0:
        sync()
    if t % 300 == 0:
        print(t, "loss", round(loss.item(), 4), "return", np.mean(history[-10:]))
