"""REINFORCE for a 2D reaching task, written with NumPy rollouts."""
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal

torch.manual_seed(0)
np.random.seed(0)


def make_policy():
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))


policy = make_policy()
log_std = nn.Parameter(torch.full((2,), -0.5))
optim = torch.optim.Adam([*policy.parameters(), log_std], lr=5e-3)


def get_dist(obs):
    return Normal(policy(obs), log_std.clamp(-2.0, 0.5).exp())


def rollout(steps=10):
    pos = np.random.uniform(-1, 1, 2)
    goal = np.random.uniform(-1, 1, 2)
    obs, acts, rews = [], [], []
    for _ in range(steps):
        o = np.concatenate([pos, goal]).astype(np.float32)
        with torch.no_grad():
            a = get_dist(torch.from_numpy(o)).sample().numpy()
        pos = pos + 0.3 * np.tanh(a)
        obs.append(o)
        acts.append(a)
        rews.append(-np.linalg.norm(pos - goal))
    # rewards to go
    rtg = np.cumsum(rews[::-1])[::-1]
    return np.array(obs), np.array(acts), rtg, float(np.sum(rews))


for it in range(60):
    data = [rollout() for _ in range(8)]
    obs = torch.as_tensor(np.concatenate([d[0] for d in data]), dtype=torch.float32)
    acts = torch.as_tensor(np.concatenate([d[1] for d in data]), dtype=torch.float32)
    weights = torch.as_tensor(np.vstack([d[2].reshape(-1, 1) for d in data]), dtype=torch.float32)
    weights = (weights - weights.mean()) / (weights.std() + 1e-8)

    logp = get_dist(obs).log_prob(acts).sum(dim=-1)
    loss = -(logp * weights).mean()  # expect: broadcast

    optim.zero_grad()
    loss.backward()
    optim.step()
    if it % 10 == 0:
        print("iter %d  return %.2f  loss %.4f" % (it, np.mean([d[3] for d in data]), loss.item()))
