"""Targets and advantages against arrays worked by hand and against loops that are too slow to be wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from covary.returns import ReturnScale, backward_sum, gae, td_error

HALF = 0.5


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(1)


def test_td_error_by_hand():
    """Step 1 terminates (discount 0: what the next observation is worth does not matter), step 2 is truncated (it
    bootstraps from the value of where it really ended)."""
    reward = column(1, 2, 3, 4)
    discount = column(HALF, 0, HALF, HALF)
    value, next_value = column(10, 20, 30, 40), column(20, 1000, 8, 6)
    assert td_error(reward, discount, value, next_value).squeeze(1).tolist() == [1.0, -18.0, -23.0, -33.0]


def test_gae_by_hand():
    """Two environments. In the first, step 1 terminates and step 3 is truncated; in the second nothing ends.

    gamma 1/2, lambda 1/2, so that discount lam is 1/4 where an episode goes on. First environment:
        delta = (1 + 10 - 10, 2 - 20, 3 + 20 - 30, 4 + 4 - 40, 5 + 3 - 50) = (1, -18, -7, -32, -42)
        A_4 = -42;  A_3 = -32 (cut);  A_2 = -7 + A_3 / 4 = -15;  A_1 = -18 (cut);  A_0 = 1 + A_1 / 4 = -3.5
    Second environment: delta = (1, 1, 1, 1, 1), A = 1 + A_next / 4.
    """
    reward = torch.tensor([[1.0, 1], [2, 1], [3, 1], [4, 1], [5, 1]])
    discount = torch.tensor([[0.5, 0.5], [0, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    cut = torch.tensor([[1.0, 1], [0, 1], [1, 1], [0, 1], [1, 1]])
    value = torch.tensor([[10.0, 0], [20, 0], [30, 0], [40, 0], [50, 0]])
    next_value = torch.tensor([[20.0, 0], [1e6, 0], [40, 0], [8, 0], [6, 0]])
    advantage = gae(reward, discount, 0.5 * cut, value, next_value)
    assert advantage[:, 0].tolist() == [-3.5, -18.0, -15.0, -32.0, -42.0]
    assert advantage[:, 1].tolist() == [1.33203125, 1.328125, 1.3125, 1.25, 1.0]


def test_gae_ends_are_td_and_monte_carlo():
    """lambda 0 is the TD error; lambda 1 is the discounted sum of rewards to the cut, less the value."""
    reward, value = torch.tensor([[1.0], [2], [4]]), torch.tensor([[3.0], [5], [7]])
    discount, next_value = torch.tensor([[0.5], [0.5], [0]]), torch.tensor([[5.0], [7], [9]])
    nothing, everything = torch.zeros(3, 1), torch.ones(3, 1)
    assert torch.equal(gae(reward, discount, nothing, value, next_value), td_error(reward, discount, value, next_value))
    assert (gae(reward, discount, everything, value, next_value) + value).tolist() == [[3.0], [4.0], [4.0]]


@pytest.mark.parametrize("t", [1, 2, 3, 7, 8, 9, 64, 127, 257])
def test_backward_sum_is_the_loop(t):
    generator = np.random.default_rng(t)
    x = generator.normal(size=(t, 5))
    weight = generator.uniform(0, 1, (t, 5)) * (generator.random((t, 5)) < 0.7)
    wanted, total = np.zeros_like(x), np.zeros(5)
    for i in reversed(range(t)):
        total = x[i] + weight[i] * total
        wanted[i] = total
    given = torch.from_numpy(x), torch.from_numpy(weight)
    np.testing.assert_allclose(backward_sum(*given).numpy(), wanted, rtol=1e-12, atol=1e-12)
    assert np.array_equal(given[0].numpy(), x), "the arguments are the caller's"


@pytest.mark.parametrize("seed", range(5))
def test_gae_is_the_loop_with_many_cuts(seed):
    g = np.random.default_rng(seed)
    t, n, gamma, lam = 200, 7, 0.97, 0.9
    terminated = g.random((t, n)) < 0.1
    cut = terminated | (g.random((t, n)) < 0.1)
    reward, value, next_value = g.normal(size=(3, t, n))
    wanted, advantage = np.zeros((t, n)), np.zeros(n)
    for i in reversed(range(t)):
        for k in range(n):
            delta = reward[i, k] + (0 if terminated[i, k] else gamma * next_value[i, k]) - value[i, k]
            advantage[k] = delta + (0 if cut[i, k] else gamma * lam * advantage[k])
        wanted[i] = advantage
    got = gae(
        *(
            torch.from_numpy(np.asarray(x, np.float64))
            for x in (reward, np.where(terminated, 0, gamma), lam * ~cut, value, next_value)
        )
    )
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-11)


def test_reward_scale_is_the_loop():
    """Every discounted return of every environment up to now, phantom steps left out; a cut starts at 0 again."""
    g = np.random.default_rng(0)
    t, n, gamma = 40, 3, 0.9
    scale, seen, running = ReturnScale(n), [], np.zeros(n)
    for _ in range(4):
        reward = g.normal(2, 5, (t, n)).astype(np.float32)
        lam, valid = (g.random((t, n)) < 0.8).astype(np.float32), (g.random((t, n)) < 0.9).astype(np.float32)
        lam[valid == 0], reward[valid == 0] = 1, 0
        for i in range(t):
            for k in range(n):
                running[k] = reward[i, k] + gamma * running[k]
                if valid[i, k]:
                    seen.append(running[k])
                if not lam[i, k]:
                    running[k] = 0.0
        scaled = scale(*(torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in (reward, gamma, lam, valid)))
        np.testing.assert_allclose(scaled.numpy(), reward / np.std(seen), rtol=1e-6)
    assert scale.state()["count"] == len(seen)


def test_rewards_that_never_vary_are_left_alone():
    scale, ones = ReturnScale(2), torch.ones(10, 2)
    assert torch.equal(scale(ones * 3, 0.0, ones, ones), ones * 3)
