# Minimise the expected cost of a queue over a finite horizon (policy gradient, costs not rewards).
import numpy as np
import torch

rng = np.random.RandomState(8)
torch.manual_seed(8)
H, M = 20, 32          # horizon, parallel queues


def simulate(policy):
    q = rng.randint(0, 6, M).astype(np.float32)
    logps, costs = [], []
    for t in range(H):
        feats = torch.from_numpy(np.stack([q / 10, np.full(M, t / H, np.float32)], 1).astype(np.float32))
        p = torch.sigmoid(policy(feats)).squeeze(1)
        fast = torch.bernoulli(p).detach()
        logps.append(fast * torch.log(p + 1e-8) + (1 - fast) * torch.log(1 - p + 1e-8))
        served = rng.binomial(3, 0.35 + 0.45 * fast.numpy())
        q = np.clip(q + rng.poisson(1.2, M) - served, 0, 15).astype(np.float32)
        costs.append(0.2 * q + 0.6 * fast.numpy())
    return torch.stack(logps), torch.tensor(np.array(costs), dtype=torch.float32)


policy = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
opt = torch.optim.RMSprop(policy.parameters(), lr=3e-3)
for it in range(220):
    logp, cost = simulate(policy)
    cost_to_go = torch.flip(torch.cumsum(torch.flip(cost, [0]), 0), [0])
    # baseline: mean over the queues at that time
    excess = (cost_to_go - cost_to_go.mean(1, keepdim=True)) / cost_to_go.std()
    loss = (logp * excess).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 44 == 43:
        print(it + 1, "cost", cost.sum(0).mean().item())
