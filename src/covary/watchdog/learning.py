"""Rules about the settings, the policy and what it learns."""

from __future__ import annotations

import math
import os

import numpy as np

from covary.watchdog.known import Finding, Known

# ----------------------------------------------------------------------------------------- what the settings tell


def idle_entropy(k: Known) -> Finding | None:
    """The entropy of a Gaussian depends on its covariance alone; squashed or clipped, on its mean as well."""
    coef, geometry = k.setting("entropy_coef", 0.0), k.geometry
    policy = k.settings.policy
    if not coef or geometry is None or policy.covariance != "fixed" or "beta" in policy.bounds:
        return None
    only_spread = set(geometry.kinds) <= {"free", "wrap"}
    return Finding(
        f"entropy_coef {coef:g} with policy.covariance fixed",
        "the bonus has no gradient: this entropy depends on the covariance alone, and that does not learn"
        if only_spread
        else "the bonus cannot widen a fixed covariance; all it does is to push the mean away from the bounds",
        "policy.covariance diagonal or full, or entropy_coef 0",
    )


def idle_learner(k: Known) -> Finding | None:
    starts, steps = k.setting("learning_starts", 0), k.settings.run.steps
    if starts < steps:
        return None
    return Finding(
        f"learning_starts {starts:,} in a run of {steps:,} steps",
        "nothing is learned before as many transitions are there, and the run ends with them",
        "learning_starts lower, or more steps",
    )


SMALL_LAYER = 256 * 256  # weights, below which handing a product to another thread takes longer than computing it


def many_threads(k: Known) -> Finding | None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if k.threads > cores:
        return Finding(f"{k.threads} threads on {cores} cores", "threads that wait for each other", _threads(cores))
    networks = (k.agent.policy, k.agent.learner.critic)
    largest = max((p.numel() for network in networks for p in network.parameters()), default=0)
    general = k.agent.fast is None and k.agent.device.type == "cpu"  # the fast path gives a second one work of its own
    if k.threads > 1 and general and "OMP_NUM_THREADS" in os.environ and largest < SMALL_LAYER:
        given = f"{k.threads} threads for networks whose largest layer has {largest:,} weights"
        return Finding(given, "OMP_NUM_THREADS is set, and is kept to", _threads(1))
    return None


def _threads(number: int) -> str:
    return f"OMP_NUM_THREADS={number}, or leave it unset: then the number that is fastest is taken"


# ------------------------------------------------------------------------------------------------- the policy

EDGE = 0.0025  # of the width: 6 units out in the sigmoid, where its slope, and all gradient, is a hundredth of the most
NEARLY_ALL = 0.95  # of the actions; what swings between its bounds, as Pendulum does, stays below
UNSCORED = 0.5  # of unclipped actions: from here on, most of what is executed is not what was scored


def saturated(k: Known) -> Finding | None:
    if (worst := _at_bounds(k, ("squash",), EDGE)) is None or worst[1] < NEARLY_ALL:
        return None
    return Finding(
        f"{worst[1]:.0%} of the latest actions lie at an edge in dimension {worst[0]}",
        "the latents are so far out in the squash that no gradient comes back: too large steps or rewards",
        "a lower learning rate, entropy_coef 0.01, or policy.init_std smaller",
    )


def clipped(k: Known) -> Finding | None:
    if (worst := _at_bounds(k, ("clip",), 0.0)) is None or worst[1] < NEARLY_ALL:
        return None
    return Finding(
        f"{worst[1]:.0%} of the latest actions are clipped in dimension {worst[0]}",
        "the mean lies beyond the bound, or the deviation is wider than the box: only the point masses are seen",
        "policy.init_std smaller, a lower learning rate, or policy.bounds squash",
    )


def unscored(k: Known) -> Finding | None:
    if (worst := _at_bounds(k, ("free",), 0.0)) is None or worst[1] < UNSCORED:
        return None
    return Finding(
        f"{worst[1]:.0%} of the latest actions lie beyond the bounds in dimension {worst[0]}",
        f"policy.bounds {k.settings.policy.bounds}: the unclipped action is scored, another one is executed",
        "policy.bounds squash or clip, or policy.init_std smaller",
    )


def _at_bounds(k: Known, kinds: tuple[str, ...], margin: float) -> tuple[int, float] | None:
    """The dimension of these kinds with the largest share of actions within this share of the width of a bound, and
    that share."""
    geometry, actions = k.geometry, k.seen.actions
    if geometry is None or actions.ndim != 2 or not len(actions):
        return None
    low, high = np.array(geometry.low, np.float32), np.array(geometry.high, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        slack = np.where(np.isfinite(low) & np.isfinite(high), margin * (high - low), 0.0)
        shares = ((actions <= low + slack) | (actions >= high - slack)).mean(0)
    mine = np.isin(geometry.kinds, kinds)
    worst = int(np.argmax(np.where(mine, shares, -1.0)))
    return (worst, float(shares[worst])) if mine.any() else None


COLLAPSED = 0.01  # of the deviation at the start: runs that have learned all there is end above


def collapsed(k: Known) -> Finding | None:
    std, head = k.number("latent_std"), k.agent.policy.head
    if std is None or k.settings.policy.covariance == "fixed":
        return None
    start = float(head.base_log_std.exp().mean())  # type: ignore[operator]
    if std >= COLLAPSED * start:
        return None
    return Finding(
        f"latent_std {std:.2g}, which was {start:.2g} at the start",
        "the policy explores no more; what it has not found by now it will not find",
        "stop here if its return is good; else entropy_coef 0.01, or a lower learning rate",
    )


def one_choice(k: Known) -> Finding | None:
    actions = k.seen.actions
    if k.geometry is not None or len(actions) < 100 or (actions != actions[0]).any():
        return None
    return Finding(
        f"all of the latest {len(actions)} actions are {actions[0].astype(int).tolist()}",
        "the policy has settled on one choice and tries no other",
        "stop here if its return is good; else entropy_coef 0.01, or a lower learning rate",
    )


# ----------------------------------------------------------------------------------------------- the learning

FAINT = 1e-4  # of the advantages' scale: over a run's thousands of updates still nothing


def faint_entropy(k: Known) -> Finding | None:
    coef, critic_loss = k.setting("entropy_coef", 0.0), k.number("critic_loss")
    if not coef or critic_loss is None:
        return None
    scale = 1.0 if k.setting("normalize_advantage", False) else math.sqrt(2 * max(critic_loss, 0.0))
    if coef >= FAINT * scale:
        return None
    return Finding(
        f"entropy_coef {coef:g} beside advantages of about {scale:.2g}",
        "the bonus is too small to do anything",
        f"entropy_coef {0.01 * scale:.1g}, or 0 to do without",
    )


WORSE = -0.05  # where nothing can be explained, a right critic wavers about 0
SMALL_ERROR = 0.1  # of the critic, root mean square, in units of the return's deviation: as good as right


def worse_than_mean(k: Known) -> Finding | None:
    explained, critic_loss = k.number("explained_variance"), k.number("critic_loss")
    if explained is None or critic_loss is None or explained >= WORSE:
        return None
    if k.setting("scale_rewards", False) and math.sqrt(2 * max(critic_loss, 0.0)) < SMALL_ERROR:
        return None  # returns that hardly differ from each other, as of a task that is solved, leave none to explain
    return Finding(
        f"explained_variance {explained:.2f}",
        "the critic predicts worse than the mean return would, so the advantages are noise",
        "a longer horizon, gamma or lam lower, or a wider critic.hidden; see that obs holds what the return depends on",
    )


USUAL_KL = 0.03  # the default of target_kl, taken where there is none
FAR_KL = 4.0  # times the bound: one epoch alone overshoots it so only if the steps are too large


def far_kl(k: Known) -> Finding | None:
    kl, bound = k.number("kl"), k.setting("target_kl", 0.0)
    if kl is None or kl <= FAR_KL * (bound or USUAL_KL):
        return None
    return Finding(
        f"kl {kl:.2g} in an update, " + (f"target_kl is {bound:g}" if bound else f"{USUAL_KL:g} is usual"),
        "each update leaves the data it was computed from far behind",
        "a lower learning_rate, fewer epochs" + ("" if bound else f", or target_kl {USUAL_KL:g}"),
    )
