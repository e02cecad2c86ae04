# contextual bandit, REINFORCE with a learned baseline
import numpy as np
import torch
import torch.nn.functional as F
np.random.seed(8)
torch.manual_seed(8)

K, D = 5, 6
W_true = np.random.randn(D, K)

def pull(ctx, arm):
    means = ctx @ W_true
    return means[np.arange(len(arm)), arm] + 0.1*np.random.randn(len(arm))

policy = torch.nn.Linear(D, K)
baseline = torch.nn.Sequential(torch.nn.Linear(D, 24), torch.nn.ReLU(), torch.nn.Linear(24, 1))
opt = torch.optim.Adam([{'params': policy.parameters(), 'lr': 5e-3},
                       {'params': baseline.parameters(), 'lr': 2e-3}], lr=1e-3)

hist = []
for i in range(900):
    ctx = np.random.randn(32, D)
    x = torch.tensor(ctx, dtype=torch.float32)
    dist = torch.distributions.Categorical(logits=policy(x))
    arm = dist.sample()
    rew = torch.tensor(pull(ctx, arm.numpy()), dtype=torch.float32)
    b = baseline(x).squeeze(-1)
    adv = rew - b.detach()
    loss = -(dist.log_prob(arm)*adv).mean() + 0.5*F.mse_loss(b, rew)
    loss.backward()
    opt.step()  # expect: missing-zero-grad
    hist.append(rew.mean().item())
    if (i+1) % 150 == 0:
        print(i+1, 'avg reward', np.mean(hist[-150:]), 'best possible', (ctx @ W_true).max(1).mean())
