"""Targets and advantages: pure functions over time-major (T, N) tensors; and the scale of rewards.

`discount` is gamma, or 0 where the episode terminated; `lam` is lambda, or 0 where the episode was cut for whatever
reason, so that nothing crosses a reset and a truncated episode bootstraps from the value of its true last observation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def td_error(reward: Tensor, discount: Tensor, value: Tensor, next_value: Tensor) -> Tensor:
    """delta_t = r_t + discount_t V(next_obs_t) - V(obs_t), any shape (Sutton & Barto 2018, eq. 6.5)."""
    return reward + discount * next_value - value


def gae(reward: Tensor, discount: Tensor, lam: Tensor, value: Tensor, next_value: Tensor) -> Tensor:
    """Generalised advantage estimate A_t = delta_t + discount_t lam_t A_{t+1} (Schulman 2016, eq. 16). All (T, N).

    A_t + V(obs_t) is the lambda-return, the critic's target.
    """
    return backward_sum(td_error(reward, discount, value, next_value), discount * lam)


def backward_sum(x: Tensor, weight: Tensor) -> Tensor:
    """y_t = x_t + weight_t y_{t+1}, y_T = 0, over the first dimension of (T, N).

    By doubling (Hillis & Steele 1986): log2 T steps over whole tensors in place of T small ones.
    """
    y, w = x.clone(), weight.clone()
    shift = 1
    while shift < x.shape[0]:
        y[:-shift] = y[:-shift] + w[:-shift] * y[shift:]
        w[:-shift] = w[:-shift] * w[shift:]
        w[-shift:] = 0
        shift *= 2
    return y


def running_return(reward: Tensor, gamma: float, cut: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
    """G_t = r_t + gamma G_{t-1}, restarting after a cut: (T, N) sums up to each step, and the (N,) carry to go on with.

    cut: (T, N) 1 where the episode ended with this step. carry: (N,) G before the first step, 0 after a reset.
    """
    open_ = gamma * (1 - cut)
    weight = torch.cat([torch.zeros_like(open_[:1]), open_[:-1]])  # what G_{t-1} counts for in G_t, t > 0
    first = torch.cat([reward[:1] + gamma * carry, reward[1:]])
    total = backward_sum(first.flip(0), weight.flip(0)).flip(0)
    return total, total[-1] * (1 - cut[-1])


class ReturnScale:
    """Divides rewards by the running standard deviation of the discounted return, so that values stay of order one
    (OpenAI Baselines' VecNormalize; Engstrom 2020, sec. 3). The mean is left alone."""

    def __init__(self) -> None:
        self.count, self.mean, self.m2 = 0.0, 0.0, 0.0
        self.carry: list[float] = []  # each environment's return so far

    def __call__(self, reward: Tensor, gamma: float, lam: Tensor, valid: Tensor) -> Tensor:
        """Takes in (T, N) rewards and scales them. lam: 0 where an episode was cut; valid: 0 where no step happened."""
        carry = torch.tensor(self.carry or [0.0] * reward.shape[1], dtype=reward.dtype, device=reward.device)
        returns, carry = running_return(reward, gamma, 1 - lam, carry)
        self.carry = carry.tolist()
        x = returns[valid > 0].to(torch.float64)
        if n := x.numel():
            mean = float(x.mean())
            total, delta = self.count + n, mean - self.mean
            self.m2 += float((x - mean).square().sum()) + delta * delta * self.count * n / total
            self.mean += delta * n / total
            self.count = total
        return reward * self.scale

    @property
    def scale(self) -> float:
        std = math.sqrt(self.m2 / self.count) if self.count > 1 else 0.0
        return 1.0 / std if std > 1e-8 else 1.0
