"""What the rules of the watchdog look at, and what they find."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from covary.agent import Agent
from covary.settings import Settings

Floats = NDArray[np.float64]


class Episode(Protocol):
    """A finished episode."""

    @property
    def ret(self) -> float: ...
    @property
    def length(self) -> int: ...
    @property
    def terminated(self) -> bool: ...


class Seen(NamedTuple):
    """What went by since the last line of metrics."""

    actions: NDArray[Any]  # (K, D), or (K,) of choices: the policy's latest, before they are clipped to the box
    obs: NDArray[Any]  # (N, O) the latest raw observations
    episodes: Sequence[Episode]  # that finished
    environment_seconds: float = 0.0  # spent in the environments; 0 where nobody measured
    all_seconds: float = 0.0
    limits: int = 0  # episodes so far told as terminated while info["TimeLimit.truncated"] was true


class Finding(NamedTuple):
    given: str
    cause: str
    fix: str


@dataclass
class Known:
    """What the rules may look at: the run, its latest line, and what all lines so far have shown."""

    agent: Agent
    settings: Settings
    threads: int
    record: dict[str, Any] = field(default_factory=dict)
    seen: Seen = field(default_factory=lambda: Seen(np.zeros(0), np.zeros((0, 0)), ()))
    steps: int = 0  # transitions since the last line
    fresh: bool = True  # whether all lines of the run were looked at, and not only those since it was resumed
    count: int = 0  # observations looked at
    low: Floats = field(default_factory=lambda: np.zeros(0))  # (O,) their range
    high: Floats = field(default_factory=lambda: np.zeros(0))
    beyond: Floats = field(default_factory=lambda: np.zeros(0))  # (O,) how many the normaliser's clip cut
    ended: int = 0  # episodes
    truncated: int = 0
    limits: int = 0
    returns: tuple[float, float] = (math.inf, -math.inf)
    lengths: tuple[float, float] = (math.inf, -math.inf)

    def take(self, record: dict[str, Any], seen: Seen) -> None:
        """Adds a line to what is known."""
        self.steps = int(record["step"]) - int(self.record.get("step", 0))
        self.record, self.seen, self.limits = record, seen, max(self.limits, seen.limits)
        obs = np.asarray(seen.obs, np.float64).reshape(len(seen.obs), -1)
        if len(obs):
            first = self.count == 0
            self.low = obs.min(0) if first else np.minimum(self.low, obs.min(0))
            self.high = obs.max(0) if first else np.maximum(self.high, obs.max(0))
            if (norm := self.norm) is not None:
                deviations = np.abs(obs - norm.mean.cpu().numpy()) * norm.inv_std.cpu().numpy()
                self.beyond = (0 if first else self.beyond) + (deviations > norm.CLIP).sum(0)
            self.count += len(obs)
        for episode in seen.episodes:
            self.ended += 1
            self.truncated += not episode.terminated
            self.returns = min(self.returns[0], episode.ret), max(self.returns[1], episode.ret)
            self.lengths = min(self.lengths[0], episode.length), max(self.lengths[1], episode.length)

    @property
    def norm(self) -> Any:
        """The policy's normaliser of observations, or None."""
        norm = self.agent.policy.normalizer
        return norm if hasattr(norm, "inv_std") else None

    @property
    def geometry(self) -> Any:
        """Of a Box of actions; None of choices."""
        return getattr(self.agent.policy.head, "geometry", None)

    def setting(self, name: str, default: Any = None) -> Any:
        """Of the algorithm; the default where it has no such thing."""
        return getattr(self.settings.config, name, default)

    def number(self, name: str) -> float | None:
        """Of the latest line; None where it has none."""
        value = self.record.get(name)
        return float(value) if isinstance(value, int | float) else None
