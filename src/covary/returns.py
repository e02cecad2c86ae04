"""Targets and advantages: pure functions over time-major (T, N) tensors; and the scale of rewards.

`discount` is gamma, or 0 where the episode terminated; `lam` is lambda, or 0 where the episode was cut for whatever
reason, so that nothing crosses a reset and a truncated episode bootstraps from the value of its true last observation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
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
        shift *= 2
    return y


class ReturnScale:
    """Divides rewards by the running standard deviation of the discounted return, so that values stay of order one
    and clips them to +-10 (OpenAI Baselines' VecNormalize; Engstrom 2020, sec. 3). The mean is left alone."""

    CLIP = 10.0

    def __init__(self, environments: int) -> None:
        self.running = np.zeros(3)  # of all returns so far: how many, their mean, their squared deviations
        self.carry = np.zeros(environments)  # each environment's return so far

    def __call__(self, reward: Tensor, gamma: float, lam: Tensor, valid: Tensor) -> Tensor:
        """Takes in (T, N) rewards and scales them. lam: 0 where an episode was cut; valid: 0 where no step happened."""
        returns, goes_on = reward.cpu().double().numpy(), lam.cpu().numpy()
        total = self.carry
        for t, r in enumerate(returns):
            returns[t] = total = r + gamma * total
            total = total * goes_on[t]
        self.carry[:] = total
        x = returns[valid.cpu().numpy() > 0]
        if n := len(x):
            before, mean, m2 = self.running
            count, new = before + n, x.mean()
            delta = new - mean
            m2 += np.square(x - new).sum() + delta * delta * before * n / count
            self.running[:] = count, mean + delta * n / count, m2
        return self.scaled(reward)

    def scaled(self, reward: Tensor) -> Tensor:
        """Rewards by the scale as it is."""
        return (reward * self.scale).clamp(-self.CLIP, self.CLIP)

    def state(self) -> dict[str, Any]:
        """As JSON keeps it, to the bit."""
        numbers = dict(zip(("count", "mean", "m2"), self.running.tolist(), strict=True))
        return {**numbers, "carry": self.carry.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Raises ValueError where it is of another number of environments. The first runs kept no `carry`."""
        carry = np.array(state["carry"] if "carry" in state else np.zeros_like(self.carry), np.float64)
        if carry.shape != self.carry.shape:
            raise ValueError(f"the returns of {len(carry)} environments, not {len(self.carry)}")
        self.running[:], self.carry[:] = [float(state[k]) for k in ("count", "mean", "m2")], carry

    def start_anew(self, environments: Any) -> None:
        """These environments have begun an episode."""
        self.carry[environments] = 0.0

    @property
    def scale(self) -> float:
        count, _, m2 = self.running.tolist()
        std = math.sqrt(m2 / count) if count > 1 else 0.0
        return 1.0 / std if std > 1e-8 else 1.0
