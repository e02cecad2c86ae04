# reach a goal on the plane, batch of particles simulated with numpy
import numpy as np
import torch
from torch import nn
from torch.distributions import Independent, Normal

rng = np.random.default_rng(0)
torch.manual_seed(0)


def reset(n):
    pos = rng.uniform(-1, 1, (n, 2))
    goal = rng.uniform(-1, 1, (n, 2))
    return pos, goal


def obs_of(pos, goal):
    return torch.as_tensor(np.concatenate([pos, goal], 1), dtype=torch.float32)


def env_step(pos, goal, act):
    pos = pos + 0.25 * np.clip(act, -1, 1)
    return pos, -np.linalg.norm(pos - goal, axis=1)


def make_policy():
    mean_net = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
    log_std = nn.Parameter(torch.full((2,), -0.5))

    def policy(obs):
        return Independent(Normal(mean_net(obs), log_std.exp()), 1)

    return policy, list(mean_net.parameters()) + [log_std]


def run_batch(policy, n=64, T=10):
    pos, goal = reset(n)
    logps, rews = [], []
    for _ in range(T):
        dist = policy(obs_of(pos, goal))
        act = dist.rsample()  # expect: rsample-in-score
        logps.append(dist.log_prob(act))
        pos, r = env_step(pos, goal, act.detach().numpy())
        rews.append(r)
    return torch.stack(logps), np.stack(rews)


def reward_to_go(rews, gamma=0.9):
    out = np.zeros_like(rews)
    acc = np.zeros(rews.shape[1])
    for t in range(len(rews) - 1, -1, -1):
        acc = rews[t] + gamma * acc
        out[t] = acc
    return out


policy, params = make_policy()
opt = torch.optim.Adam(params, lr=5e-3)
for it in range(150):
    logps, rews = run_batch(policy)
    G = reward_to_go(rews)
    G = (G - G.mean(1, keepdims=True)) / (G.std(1, keepdims=True) + 1e-6)
    loss = -(logps * torch.as_tensor(G, dtype=torch.float32)).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 30 == 0:
        print(it, 'mean return', rews.sum(0).mean().round(3), 'std', params[-1].exp().tolist())
