"""What a picture of a policy shows, as arrays: its density over one or two dimensions of the action at some
observations, the ellipses of its latent covariance, samples; exact, in the action's own units."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covary.agent import Agent, load
from covary.distributions import BoxNormal, Categorical, Choices, Kind, marginal
from covary.errors import UsageError
from covary.evaluation import walk
from covary.runs import read_checkpoint

Array = NDArray[np.floating[Any]]

CELLS = {1: 800, 2: 240}  # of the grid, along each axis
FAR = 4.0  # deviations that are shown where a dimension has no bound
FINE = {1: 160, 2: 48}  # cells over FAR deviations to both sides, where those of the grid are larger
SAMPLES = 60  # dots at each observation
DEVIATIONS = (1.0, 2.0)  # of which ellipses are drawn
PANELS, MOST_PANELS = 3, 8


@dataclass(frozen=True)
class Axis:
    """A dimension of the action. low, high: its bounds, infinite where there is none; edges: (n + 1,) of the cells,
    which are smaller where the policy is narrow."""

    dim: int
    kind: Kind
    low: float
    high: float
    edges: Array

    @property
    def grid(self) -> Array:
        """(n,) the cells' centres."""
        centres: Array = (self.edges[1:] + self.edges[:-1]) / 2
        return centres

    @property
    def cells(self) -> Array:
        """(n,) how wide each is."""
        widths: Array = np.diff(self.edges)
        return widths

    @property
    def window(self) -> tuple[float, float]:
        """What is drawn of it."""
        return float(self.edges[0]), float(self.edges[-1])


@dataclass(frozen=True)
class View:
    """The policy at one observation, over d = 1 or 2 axes; of a policy of choices only `title` and `probs`.

    Attributes:
        log_density: (n,) or, the first axis along rows, (n, n), at the cells' centres.
        masses: (d, 2) probability that the executed action lies at the lower and at the upper bound of an axis.
        rings: for each of DEVIATIONS the image of that ellipse of the latent Gaussian, (K, d), NaN where it crosses the
            seam of an angle, or (2, 1) the ends of that interval; none where the latent is no Gaussian.
        best: (d,) the deterministic action.
        samples: (S, d) actions as they are executed.
        probs: (D, K) of each choice, NaN where there is no such choice.
    """

    title: str
    log_density: Array | None = None
    masses: Array | None = None
    rings: tuple[Array, ...] = ()
    best: Array | None = None
    samples: Array | None = None
    probs: Array | None = None


@dataclass(frozen=True)
class Portrait:
    """axes: none of a policy of choices, whose least choice in each dimension is `first`, (D,)."""

    title: str
    views: tuple[View, ...]
    axes: tuple[Axis, ...] = ()
    first: tuple[int, ...] = ()


def of_checkpoint(
    checkpoint: Path, source: Callable[[], Any], dims: Sequence[int] | None, at: int | None, *, named: bool = False
) -> Portrait:
    """The policy in a checkpoint at some observations of the first evaluation episode, evenly spaced; of the last ones
    of its training where the environment cannot be built, which is said on stderr.

    Args:
        source: makes the environment's source.
        at: how many observations; three, or as many as there are, where nothing is said.
        named: whether the user named the environment, which must then be the one.

    Raises:
        UsageError: no checkpoint, no environment and no observations either, fewer of them than were asked for.
    """
    if at is not None and not 1 <= at <= MOST_PANELS:
        raise UsageError(f"--at is a number of observations, 1 to {MOST_PANELS}.", given=at, fix="--at 3")
    agent = load(checkpoint)
    try:
        made = source()
        seen, name = walk(agent, made), f"{made.name}, "
        there = f"the episode has, {len(seen)}"
    except UsageError as error:
        last = read_checkpoint(checkpoint)[0].get("envs.obs")
        if named or last is None:
            raise
        reason = str(error).replace("\n", ";")
        print(f"drawn at the last observations of training, for want of an environment: {reason}", file=sys.stderr)
        seen, name, there = last, "", f"the checkpoint holds, {len(last)}"
    at = min(PANELS, len(seen)) if at is None else at
    if at > len(seen):
        raise UsageError(f"--at asks for more observations than {there}.", given=at, fix=f"--at {len(seen)}")
    rows = [round(t) for t in np.linspace(0, len(seen) - 1, at)]
    known = {len(seen) - 1: f"last step, {len(seen) - 1}"} | {0: "start of an episode"}  # of one step, it is that
    titles = [known.get(t, f"step {t}") if name else f"environment {t} in training" for t in rows]
    title = f"{name}{agent.algo}, after {agent.steps:,} steps"
    titles = [words + _values(agent, seen[i]) for words, i in zip(titles, rows, strict=True)]
    return portray(agent, seen[rows], titles, dims, title)


def _values(agent: Agent, obs: Array) -> str:
    """A second line: what the observation is, where that is short."""
    if agent.encode.one_hot or len(obs) > 4:
        return ""
    return "\nobservation " + ", ".join(f"{x:.2g}" for x in obs).replace("-", "−")


def portray(agent: Agent, obs: Array, titles: Sequence[str], dims: Sequence[int] | None, title: str) -> Portrait:
    """The policy at some observations.

    Args:
        obs: (K, O) encoded observations, one for each title.
        dims: one or two dimensions of the flattened action; the first two where nothing is said.

    Raises:
        UsageError: dimensions that the action does not have, or one twice; any, of a policy of choices.
    """
    with torch.no_grad():
        density = agent.policy(torch.as_tensor(obs, dtype=torch.float32, device=agent.device))
        if isinstance(density, Categorical | Choices):
            return _choices(agent, density, titles, dims, title)
        return _box(agent, density, titles, _checked(dims, density.event_shape[0]), title)


def _checked(dims: Sequence[int] | None, d: int) -> list[int]:
    dims = list(dims) if dims is not None else list(range(min(d, 2)))
    if len(dims) not in (1, 2) or len(set(dims)) < len(dims) or not all(0 <= i < d for i in dims):
        some = "0" if d == 1 else f"two different ones from 0 to {d - 1}, or one"
        raise UsageError(
            f"--dims names dimensions of the action: {some}.",
            given=" ".join(map(str, dims)),
            fix="--dims 0" if d == 1 else f"--dims 0 {d - 1}",
        )
    return dims


def _choices(
    agent: Agent, density: Categorical | Choices, titles: Sequence[str], dims: Sequence[int] | None, title: str
) -> Portrait:
    if dims is not None:
        raise UsageError(
            "--dims chooses dimensions of a Box of actions; choices are all drawn.",
            given=f"{agent.action_space}",
            fix="leave --dims out",
        )
    space: Any = agent.action_space
    probs = density.probs.reshape(len(titles), -1, density.probs.shape[-1]).cpu().numpy()
    sizes = np.broadcast_to(np.ravel(space.nvec if hasattr(space, "nvec") else probs.shape[-1]), probs.shape[1:2])
    probs = np.where(np.arange(probs.shape[-1]) < sizes[:, None], probs, np.nan)
    first = np.broadcast_to(np.ravel(getattr(space, "start", 0)), probs.shape[1:2])
    views = tuple(View(t, probs=p) for t, p in zip(titles, probs, strict=True))
    return Portrait(title, views, first=tuple(int(x) for x in first))


def _box(agent: Agent, density: Any, titles: Sequence[str], dims: list[int], title: str) -> Portrait:
    law = marginal(density, dims)
    axes = tuple(_axis(agent.policy.head.geometry, marginal(density, [i]), i, len(dims)) for i in dims)
    cells = np.stack(np.meshgrid(*(_inside(axis) for axis in axes), indexing="ij"), -1).reshape(-1, 1, len(dims))
    log_density = law.log_prob(torch.as_tensor(cells, device=agent.device))
    log_density = log_density.reshape(*(len(axis.grid) for axis in axes), len(titles))
    masses = torch.stack([_masses(marginal(density, [i])) for i in dims], -2)
    generator = torch.Generator().manual_seed(0)  # the picture of an agent is always the same
    samples = density.to_action(density.sample_latent((SAMPLES,), noise=density.noise((SAMPLES,), generator)))
    drawn, best = (_executed(agent, x, dims) for x in (samples, density.deterministic_action))
    rings = [_ring(law, r) for r in DEVIATIONS] if isinstance(law, BoxNormal) else []
    views = tuple(
        View(
            t,
            log_density[..., k].cpu().numpy(),
            masses[k].cpu().numpy(),
            tuple(ring[:, k].cpu().numpy() for ring in rings),
            best[k],
            drawn[:, k],
        )
        for k, t in enumerate(titles)
    )
    return Portrait(title, views, axes)


def _inside(axis: Axis) -> Array:
    """(n,) the grid in float32, none of it at a bound, where a clipped policy has no density but a mass."""
    low, high = np.array(axis.window, np.float32)
    inside: Array = np.clip(axis.grid.astype(np.float32), np.nextafter(low, high), np.nextafter(high, low))
    return inside


def _executed(agent: Agent, action: Tensor, dims: list[int]) -> Array:
    """(..., D) actions of the policy -> (..., d) what the environment gets of them."""
    flat = action.reshape(-1, action.shape[-1]).cpu().numpy()
    chosen: Array = agent.decode(flat).reshape(*action.shape)[..., dims]
    return chosen


def _axis(geometry: Any, law: Any, dim: int, d: int) -> Axis:
    """law: of this dimension alone, at all observations; (K,)."""
    kind, low, high = geometry.kinds[dim], geometry.low[dim], geometry.high[dim]
    left, right = low, high
    if kind in ("free", "half"):
        latent = torch.stack([law.loc - FAR * law.scale, law.loc + FAR * law.scale])
        reach = law.to_action(latent)
        left, right = float(reach.min()), float(reach.max())
        if kind == "half":
            left, right = (low, right) if math.isfinite(low) else (left, high)
        elif math.isfinite(high - low):
            left, right = min(left, low), max(right, high)
    elif not math.isfinite(high - low):  # clipped on one side, or on none
        left = low if math.isfinite(low) else float((law.loc - FAR * law.scale).min())
        right = high if math.isfinite(high) else float((law.loc + FAR * law.scale).max())
    least = 1e-5 * max(abs(left), abs(right))  # what float32 can tell apart
    if right - left < least:
        left, right = left if left == low else left - least, right if right == high else right + least
    edges = left + np.arange(CELLS[d] + 1) / CELLS[d] * (right - left)
    points = _around(law, FINE[d])
    finer = points[1:][np.abs(np.diff(points, axis=0)) < edges[1] - edges[0]]
    return Axis(dim, kind, low, high, np.unique([*edges, *finer[(finer > left) & (finer < right)]]))


def _around(law: Any, steps: int) -> Array:
    """(steps + 1, K) actions that lie, evenly in the latent, over FAR deviations to both sides of its mean; of a Beta,
    over those of the action."""
    deviations = torch.linspace(-FAR, FAR, steps + 1)[:, None, None]
    if isinstance(law, BoxNormal):
        points = law.to_action(law.geometry.to_latent(law.loc + law.scale * deviations.to(law.loc.device)))
    else:
        points = law.mean + law.variance.sqrt() * deviations.to(law.alpha.device)
    around: Array = points[..., 0].double().cpu().numpy()
    return around


def _masses(law: Any) -> Tensor:
    """(K, 2) probability that the only dimension of a law is executed at its lower and its upper bound."""
    geometry = law.geometry
    if geometry.kinds[0] not in ("free", "clip"):
        return torch.zeros(*law.batch_shape, 2)
    low, high = (torch.special.ndtr((bound - law.loc) / law.scale) for bound in (geometry.low[0], geometry.high[0]))
    return torch.cat([low, 1 - high], -1)


def _ring(law: BoxNormal, deviations: float) -> Tensor:
    """(K, B, d) where the points that many deviations from the latent's mean come to lie."""
    if law.event_shape[0] == 1:
        steps = torch.tensor([-1.0, 1.0], device=law.loc.device)[:, None, None]
        ends = law.to_action(law.geometry.to_latent(law.loc + deviations * law.scale * steps))
        if law.geometry.kinds == ("wrap",):  # as far as the other side, and it is all of the circle
            c = law.geometry.constants(ends)
            around = deviations * law.scale >= math.pi
            ends = torch.where(around, torch.stack([c.low, c.high]).unsqueeze(1), ends)
        return ends
    angle = torch.linspace(0, 2 * math.pi, 721, device=law.loc.device)
    circle = deviations * torch.stack([angle.cos(), angle.sin()], -1)
    around = law.loc + (law.scale_tril @ circle[:, None, :, None])[..., 0]
    action = law.to_action(law.geometry.to_latent(around))
    for i in law.geometry.columns("wrap"):
        turns = torch.floor(around[..., i] / (2 * math.pi))
        action[1:][turns[1:] != turns[:-1]] = torch.nan
    return action
