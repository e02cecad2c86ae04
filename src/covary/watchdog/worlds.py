"""Rules about what the environment gives: observations, rewards, ends, and the time it takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from covary.watchdog.known import Finding, Floats, Known

FEWEST = 20  # observations looked at, or episodes, before anything is said of them all
HUGE_OBS = 100.0  # beside weights of order one, a tanh is at its end
SPREAD_OBS = 1e3  # between the widest and the narrowest dimension: the latter is lost


def unscaled_obs(k: Known) -> Finding | None:
    if k.norm is not None or k.agent.encode.one_hot or k.count < FEWEST:
        return None
    largest, width = np.maximum(np.abs(k.low), np.abs(k.high)), k.high - k.low
    moving = width[width > 0]
    i = int(np.argmax(largest))
    if largest[i] <= HUGE_OBS and (not len(moving) or moving.max() <= SPREAD_OBS * moving.min()):
        return None
    narrowest = moving.min() if len(moving) else 0.0
    return Finding(
        f"obs[{i}] as large as {largest[i]:.3g}; the dimensions' ranges lie between {narrowest:.2g} "
        f"and {width.max():.2g}",
        "policy.normalize_obs is off, and the network sees little beside the largest",
        "policy.normalize_obs True, or observations of order one",
    )


ENOUGH = 5000  # observations that the normaliser took in: several episodes of most environments
STILL = 1e-7  # deviation beside the mean: float32 tells no two such numbers apart
COARSE = 1e-5  # deviation beside the mean: float32 leaves steps of a hundredth of a deviation


def still_obs(k: Known) -> Finding | None:
    """A dimension that never changes: by the normaliser, which saw all, or else by the observations looked at."""
    if k.agent.encode.one_hot:
        return None
    if (norm := k.norm) is None:
        if k.count < FEWEST or k.record["step"] < ENOUGH:
            return None
        still, value = k.low == k.high, k.low
    else:
        if float(norm.count) < ENOUGH:
            return None
        value = norm.mean64.cpu().numpy()
        still = _deviation(norm) <= STILL * np.abs(value)
    if not still.any():
        return None
    where = np.flatnonzero(still)
    return Finding(
        f"obs[{where[0]}] has always been {value[where[0]]:.4g}"
        + (f", and {len(where) - 1} other dimensions have not changed" if len(where) > 1 else ""),
        "a number that nothing writes to, or one that belongs to the environment's settings",
        "see that the environment fills it, or leave it out of the observation",
    )


def coarse_obs(k: Known) -> Finding | None:
    if (norm := k.norm) is None or float(norm.count) < ENOUGH:
        return None
    mean, std = np.abs(norm.mean64.cpu().numpy()), _deviation(norm)
    coarse = (std < COARSE * mean) & (std > STILL * mean)
    if not coarse.any():
        return None
    i = int(np.argmax(coarse))
    return Finding(
        f"obs[{i}] is {mean[i]:.4g} in size and varies by {std[i]:.2g}",
        "float32 has seven digits, and they go to what does not change: a clock, or a far origin",
        "subtract the part that does not change in the environment",
    )


def _deviation(norm: Any) -> Floats:
    """(O,) of all that the normaliser was shown."""
    deviation: Floats = np.sqrt(np.maximum((norm.m2 / norm.count).cpu().numpy(), 0.0))
    return deviation


CUT = 0.05  # of the observations: of a distribution that stays, at most a hundredth lies 10 deviations out (Chebyshev)


def cut_obs(k: Known) -> Finding | None:
    if k.norm is None or k.count < FEWEST or not len(k.beyond):
        return None
    i = int(np.argmax(k.beyond))
    if k.beyond[i] < 3 or k.beyond[i] < CUT * k.count:
        return None
    return Finding(
        f"obs[{i}] lies beyond {k.norm.CLIP:g} deviations, where it is cut, in {k.beyond[i] / k.count:.0%} of "
        f"{k.count} observations",
        "a value that stays put and then leaps, or that grows as training goes on",
        "a logarithm or a bound of it in the environment, or what it changes by in place of it",
    )


HUGE_REWARD, TINY_REWARD = 100.0, 1e-3  # a step, on average: the critic starts at 0 and learns errors of order one


def unscaled_reward(k: Known) -> Finding | None:
    if k.setting("scale_rewards", True) or not k.seen.episodes:
        return None
    size = float(np.mean([abs(e.ret) / max(e.length, 1) for e in k.seen.episodes]))
    if size == 0.0 or TINY_REWARD <= size <= HUGE_REWARD:
        return None
    return Finding(
        f"rewards of about {size:.2g} a step with scale_rewards off",
        "the critic's errors are as large, and its steps are not"
        if size > 1
        else "they are lost beside the critic's own noise",
        "scale_rewards True, or rewards of order one",
    )


def same_return(k: Known) -> Finding | None:
    """Of all episodes of the run: one that is solved may well give the same return for ever."""
    if not k.fresh or k.ended < FEWEST or k.returns[0] != k.returns[1]:
        return None
    return Finding(
        f"the return of all {k.ended} episodes is {k.returns[0]:g}",
        "the reward does not depend on what is done, or nothing that is worth one was ever reached",
        "see that the reward follows from the action; a denser one, or a wider policy.init_std, where it is far off",
    )


SHORT = 10  # steps: episodes of a few may well have a number of them that is part of the task


def limit_told_as_death(k: Known) -> Finding | None:
    fix = "return terminated False, truncated True where only time is up, or wrap it in gymnasium.wrappers.TimeLimit"
    cause = "a time limit that is told as a death: what would have come after it counts as nothing"
    if k.limits:
        given = f'{k.limits} episodes are terminated while info["TimeLimit.truncated"] is true'
        return Finding(given, cause, fix)
    same = k.lengths[0] == k.lengths[1] >= SHORT
    if not k.fresh or k.ended < FEWEST or k.truncated or not same:
        return None
    return Finding(f"all {k.ended} episodes are terminated after exactly {k.lengths[0]:g} steps", cause, fix)


WAITING, SLOW = 0.9, 1e-3  # share of the time; seconds a transition, below which processes cost what they save


def slow_environment(k: Known) -> Finding | None:
    inside, total = k.seen.environment_seconds, k.seen.all_seconds
    if inside <= WAITING * total or inside <= SLOW * max(k.steps, 1):
        return None
    return Finding(
        f"{inside / total:.0%} of the time goes to the environment, {1e3 * inside / max(k.steps, 1):.1f} ms a step",
        "its own code",
        "vectorization async with more n_envs where there are cores; `python -m cProfile` on its step",
    )
