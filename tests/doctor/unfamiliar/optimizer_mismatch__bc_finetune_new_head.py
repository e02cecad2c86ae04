"""Behaviour cloning: pretrain on a two-action task, then fine-tune on a five-action task."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(2)


class Policy(nn.Module):
    def __init__(self, obs_dim=6, n_act=2, width=64):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(obs_dim, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
        )
        self.head = nn.Linear(width, n_act)

    def forward(self, x):
        return self.head(self.body(x))


def expert_two(obs):
    return (obs[:, 0] + obs[:, 1] * obs[:, 2] > 0).long()


def expert_five(obs):
    score = obs[:, 0] + obs[:, 1] * obs[:, 2] + 0.5 * obs[:, 3]
    return torch.bucketize(score, torch.tensor([-1.0, -0.3, 0.3, 1.0]))


def epoch(policy, opt, obs, act, batch=64):
    total = 0.0
    for idx in torch.randperm(len(obs)).split(batch):
        loss = F.cross_entropy(policy(obs[idx]), act[idx])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        total += loss.item() * len(idx)
    return total / len(obs)


def accuracy(policy, obs, act):
    policy.eval()
    with torch.no_grad():
        acc = (policy(obs).argmax(1) == act).float().mean().item()
    policy.train()
    return acc


policy = Policy()
opt = torch.optim.SGD(policy.parameters(), lr=0.05, momentum=0.9)

print("== pretraining ==")
obs_a = torch.randn(2048, 6)
act_a = expert_two(obs_a)
for e in range(8):
    loss = epoch(policy, opt, obs_a, act_a)
    print(f"epoch {e} loss {loss:.3f} acc {accuracy(policy, obs_a, act_a):.3f}")

print("== fine-tuning on the larger action set ==")
obs_b = torch.randn(2048, 6)
act_b = expert_five(obs_b)
policy.head = nn.Linear(64, 5)  # expect: optimizer-mismatch
for group in opt.param_groups:
    group["lr"] = 0.02
for e in range(25):
    loss = epoch(policy, opt, obs_b, act_b)
    if e % 4 == 0:
        print(f"epoch {e} loss {loss:.3f} acc {accuracy(policy, obs_b, act_b):.3f}")
