"""Behaviour cloning of a hand-written cart controller, with a small learning rate sweep."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(6)


def expert(obs):
    push = 0.3 * obs[:, 0] + 0.5 * obs[:, 1] + 2.0 * obs[:, 2] + 1.0 * obs[:, 3]
    return (push > 0).long()


def make_policy(hidden=32):
    return nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 2))


def make_loss(policy, smoothing=0.02):
    def loss_fn(obs, act):
        return F.cross_entropy(policy(obs), act, label_smoothing=smoothing)
    return loss_fn


def agreement(policy, obs, act):
    with torch.no_grad():
        return (policy(obs).argmax(dim=1) == act).float().mean().item()


obs = torch.randn(1200, 4) * torch.tensor([1.0, 1.0, 0.2, 0.8])
act = expert(obs)
flip = torch.rand(len(act)) < 0.03
act[flip] = 1 - act[flip]
train_obs, train_act, test_obs, test_act = obs[:1000], act[:1000], obs[1000:], act[1000:]

policy = make_policy()
print("untrained agreement: %.3f" % agreement(policy, test_obs, test_act))
loss_fn = make_loss(policy)  # expect: optimizer-mismatch

results = {}
for lr in (1e-2, 3e-3, 1e-3):
    policy = make_policy()
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
    for epoch in range(12):
        perm = torch.randperm(len(train_obs))
        for idx in perm.split(50):
            optimizer.zero_grad()
            loss = loss_fn(train_obs[idx], train_act[idx])
            loss.backward()
            optimizer.step()
    results[lr] = agreement(policy, test_obs, test_act)
    print(f"lr {lr:g}: loss {loss.item():.4f}, agreement {results[lr]:.3f}")

print("best:", max(results, key=results.get))
