"""Adapt an already cloned policy to new demonstrations, but stay near the old one (mean action distance)."""
import copy
import torch
from torch import nn

torch.manual_seed(90)


def policy_net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 2))


def teacher(obs: torch.Tensor, gain: float) -> torch.Tensor:
    return torch.stack([gain * obs[:, 0] - obs[:, 1], torch.tanh(obs[:, 2] * obs[:, 3]) + 0.5 * gain * obs[:, 4]], 1)


def clone(policy: nn.Module, gain: float, steps: int) -> None:
    opt = torch.optim.Adam(policy.parameters(), lr=2e-3)
    for _ in range(steps):
        obs = torch.randn(64, 5)
        loss = (policy(obs) - teacher(obs, gain)).abs().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    print("cloned, loss", loss.item())


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a - b) ** 2).sum(dim=1).sqrt().mean()  # expect: non-finite


policy = policy_net()
clone(policy, gain=1.0, steps=300)
prior = copy.deepcopy(policy)
for p in prior.parameters():
    p.requires_grad = False

opt = torch.optim.Adam(policy.parameters(), lr=1e-3)
for step in range(300):
    obs = torch.randn(64, 5)
    act = policy(obs)
    fit = (act - teacher(obs, 1.5)).abs().mean()
    dist = distance(act, prior(obs))
    loss = fit + 0.1 * dist
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(policy.parameters(), 5.0)
    opt.step()
    if step % 60 == 0:
        print(f"step {step} fit {fit.item():.4f} distance {dist.item():.4f}")
