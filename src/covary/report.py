"""Gathers what an interval of training brought and writes it as a line of metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from covary.agent import Agent
from covary.distributions import BoxNormal, Geometry
from covary.envs.adapter import Episode
from covary.errors import UsageError
from covary.iterations import Losses
from covary.policies import mean_entropy
from covary.progress import Progress
from covary.runs import Run


class Report:
    """Attributes: step, of the last line; sums, of the losses since, to which iterations add.

    Args:
        look: is shown each line, the observations at that time and the episodes that finished.
    """

    def __init__(
        self, run: Run, progress: Progress, look: Callable[[dict[str, Any], Any, list[Episode]], None]
    ) -> None:
        self.run, self.progress, self.look = run, progress, look
        self.step, self.episodes = progress.start, 0
        self.sums: Losses = {}
        self.finished: list[Episode] = []
        self.began = time.perf_counter()
        for line in run.lines():
            self.episodes = int(line.get("episodes", 0))

    def add(self, episodes: list[Episode]) -> None:
        """These episodes ended; the list is emptied."""
        self.finished += episodes
        episodes.clear()

    def write(self, agent: Agent, obs: Any, extra: dict[str, float]) -> None:
        """A line, and the next interval begins."""
        record = self.record(agent, obs) | extra
        self._append(record)
        self.look(record, obs, self.finished)
        self.step, self.sums, self.finished = agent.steps, {}, []
        self.episodes = record["episodes"]
        if bad := [name for name, value in record.items() if isinstance(value, float) and not np.isfinite(value)]:
            raise diverged(bad, agent.steps)

    def close(self, agent: Agent, obs: Any) -> None:
        """A last line for an interval that was not over. A resumed run takes it back and goes on with the interval."""
        if agent.steps > self.step:
            record = self.record(agent, obs)
            self._append(record)
            self.look(record, obs, self.finished)

    def record(self, agent: Agent, obs: Any) -> dict[str, Any]:
        """What the line says."""
        record: dict[str, Any] = {"step": agent.steps, "episodes": self.episodes + len(self.finished)}
        record["return"] = float(np.mean([e.ret for e in self.finished])) if self.finished else None
        record["length"] = float(np.mean([e.length for e in self.finished])) if self.finished else None
        record |= {name: float(total) / count for name, (total, count) in self.sums.items()}
        if agent.learner.skipped:
            record["skipped"] = agent.learner.skipped
        return record | _spread(agent, obs)

    def _append(self, record: dict[str, Any]) -> None:
        self.run.append("metrics", record)
        rate = self.progress.update(record["step"], record)
        seconds = time.perf_counter() - self.began
        self.run.append(
            "timing", {"step": record["step"], "seconds": seconds, "time": time.time(), "steps_per_second": rate}
        )

    # ---- what a checkpoint keeps

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The interval so far."""
        sums = {
            f"report.{name}": x.cpu().numpy() if isinstance(x, torch.Tensor) else np.array(x, np.float64)
            for name, (x, _) in self.sums.items()
        }
        finished = [list(episode) for episode in self.finished]
        counts = {name: count for name, (_, count) in self.sums.items()}
        return sums, {"step": self.step, "episodes": self.episodes, "finished": finished, "counts": counts}

    def load_state(self, arrays: dict[str, NDArray[Any]], numbers: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError where it is none."""
        over = numbers.get("counts")
        if over is None:  # of the first runs, which had one for all
            over = dict.fromkeys(numbers["sums"], numbers["count"])
        self.sums = {name: (torch.from_numpy(np.array(arrays[f"report.{name}"])), n) for name, n in over.items()}
        if any(x.shape or not x.is_floating_point() for x, _ in self.sums.values()):
            raise ValueError("sums that are no numbers")
        if {f"report.{name}" for name in over} != {name for name in arrays if name.startswith("report.")}:
            raise ValueError("sums without a count")
        counts = [numbers["step"], numbers["episodes"], *over.values()]
        if not all(type(x) is int and 0 <= x < 2**62 for x in counts) or not all(over.values()):
            raise ValueError(f"step, episodes and counts {counts}")
        self.step, self.episodes = counts[:2]
        self.finished = [
            Episode(int(env), int(number), float(ret), int(length), bool(terminated))
            for env, number, ret, length, terminated in numbers["finished"]
        ]


DRAWN = 256  # actions, of which the share at a bound is told
EDGE = 0.01  # of the width, that near a bound is at it


@torch.no_grad()
def _spread(agent: Agent, obs: Any) -> dict[str, float]:
    """Entropy of the policy at the present observations; for Gaussian ones, the latent's standard deviation and the
    extreme eigenvalues of its covariance; for boxes with bounds, the share of actions at one."""
    density = agent.policy(torch.as_tensor(obs, device=agent.device))
    generator = torch.Generator(agent.device).manual_seed(agent.steps)
    spread = {"entropy": float(mean_entropy(density, generator))}
    if isinstance(density, BoxNormal):
        variances = density.latent_variances
        spread["latent_std"] = float(density.scale.mean())
        spread["latent_var_min"] = float(variances[..., 0].mean())
        spread["latent_var_max"] = float(variances[..., -1].mean())
    geometry = getattr(agent.policy.head, "geometry", None)
    if geometry is not None and (near := _near_bound(density, geometry, generator)) is not None:
        spread["at_bound"] = near
    return spread


def _near_bound(density: Any, geometry: Geometry, generator: torch.Generator) -> float | None:
    """The share of drawn numbers at a bound, or beyond, among those of dimensions that have two."""
    with np.errstate(over="ignore"):  # a width that float32 cannot hold has no edge of so many percent
        width = np.subtract(geometry.high, geometry.low, dtype=np.float32)
    held = [i for i, kind in enumerate(geometry.kinds) if kind != "wrap" and np.isfinite(width[i])]
    if not held:
        return None
    draws = (-(-DRAWN // density.batch_shape[0]),)
    action = density.to_action(density.sample_latent(draws, noise=density.noise(draws, generator)))
    c = geometry.constants(action)
    slack = EDGE * (c.high - c.low)
    near = (action < c.low + slack) | (action > c.high - slack)
    return float(near[..., held].double().mean())


def diverged(names: list[str], step: int) -> UsageError:
    """What was not finite, for the user."""
    return UsageError(
        "Training must stay finite.",
        given=f"{', '.join(names[:3])} at step {step:,}",
        cause="a learning rate that is too high, or rewards of a very large scale",
        fix="a learning rate ten times lower; the checkpoints before this step are good",
    )
