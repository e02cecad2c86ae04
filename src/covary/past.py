"""What algorithms that learn from the past have in common: what they remember, and which updates are due."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from covary.errors import UsageError, check_fields
from covary.policies import Policy
from covary.replay import Replay, lanes_of
from covary.returns import ReturnScale
from covary.types import Rollout


class Settings(Protocol):
    """What the config of such an algorithm has, whatever else it has."""

    @property
    def n_envs(self) -> int: ...
    @property
    def updates(self) -> float: ...
    @property
    def batch(self) -> int: ...
    @property
    def learning_starts(self) -> int: ...
    @property
    def gamma(self) -> float: ...
    @property
    def scale_rewards(self) -> bool: ...
    @property
    def replay_size(self) -> int: ...
    @property
    def replay_folder(self) -> str | None: ...
    @property
    def priority(self) -> float: ...
    @property
    def priority_beta(self) -> float: ...


def check_past(config: Settings) -> None:
    """Raises UsageError for settings of the past that do not fit each other. A Path becomes text, as config.json keeps
    it."""
    check_fields(
        config,
        sizes=("n_envs", "batch", "replay_size"),
        counts=("learning_starts",),
        positive=("updates",),
        shares=("gamma", "priority", "priority_beta"),
    )
    if config.replay_folder is not None:
        if not isinstance(config.replay_folder, str | os.PathLike):
            raise UsageError(
                "replay_folder is the path of a folder.",
                given=repr(config.replay_folder),
                fix="leave it out, and memory takes what it would",
            )
        object.__setattr__(config, "replay_folder", os.fspath(config.replay_folder))
    held = lanes_of(config.replay_size, config.n_envs) * config.n_envs
    if config.learning_starts > held:
        raise UsageError(
            "learning_starts is at most what the replay holds: it would never be reached.",
            given=f"learning_starts {config.learning_starts:,}; replay_size {config.replay_size:,} holds {held:,} "
            f"transitions of n_envs {config.n_envs:,}",
            fix=f"learning_starts {held:,} or less, or a larger replay_size",
        )


class Steps(NamedTuple):
    """B steps out of the past as networks see them: observations normalised and rewards scaled by the statistics as
    they are now."""

    x: Tensor  # (B, O)
    latent: Tensor  # (B, D)
    reward: Tensor  # (B,)
    discount: Tensor  # (B,)
    next_x: Tensor  # (B, O)
    weight: Tensor  # (B,)


class Past:
    """The ring of what happened, the scale of rewards, and the updates that are due.

    Attributes:
        updates: how many were begun.
        due: how many are still to be made; the rest of a whole one is kept.
    """

    def __init__(self, policy: Policy, observation: int, config: Settings) -> None:
        self.policy, self.config = policy, config
        geometry: Any = policy.head.geometry
        self.memory = Replay(
            config.replay_size,
            config.n_envs,
            observation,
            geometry.dim,
            folder=config.replay_folder,
            priority=config.priority,
        )
        self.reward_scale = ReturnScale(config.n_envs)
        self.kernel: Callable[[Rollout], None] | None = None  # what shows a rollout in place of `add`
        self.updates = 0
        self.due = 0.0

    def add(self, rollout: Rollout) -> None:
        """Keeps what happened, and shows it to the normaliser and to the scale of rewards."""
        c = self.config
        self.memory.add(rollout)
        if self.kernel is not None:
            self.kernel(rollout)
            return
        happened = rollout.obs if bool(rollout.valid.all()) else rollout.obs[rollout.valid > 0]
        if happened.numel():
            self.policy.observe(happened)
        if c.scale_rewards:
            self.reward_scale(rollout.reward, c.gamma, rollout.lam, rollout.valid)

    @property
    def started(self) -> bool:
        """Whether there is enough to learn from."""
        return len(self.memory) >= max(self.config.learning_starts, 1)

    def each_due(self, rollout: Rollout) -> Iterator[int]:
        """The number of every update, from 1, that is due once this rollout was added."""
        if not self.started:
            return
        self.due += self.config.updates * int(rollout.valid.sum())
        while self.due >= 1:
            self.due -= 1
            self.updates += 1
            yield self.updates

    def sample(self, progress: float, generator: torch.Generator, device: torch.device) -> tuple[Steps, NDArray[Any]]:
        """A batch, and where it lies in the ring. progress: the share of the run that is over."""
        c, normalize = self.config, self.policy.normalizer
        beta = c.priority_beta + (1 - c.priority_beta) * progress
        past = self.memory.sample(c.batch, generator, device, beta)
        reward = self.reward_scale.scaled(past.reward) if c.scale_rewards else past.reward
        x, next_x = normalize(past.obs), normalize(past.next_obs)
        return Steps(x, past.latent, reward, past.discount, next_x, past.weight), past.places

    def numbers(self) -> dict[str, Any]:
        """As JSON keeps it; the ring's own state is arrays."""
        return {"updates": self.updates, "due": self.due, "reward_scale": self.reward_scale.state()}

    def load_numbers(self, numbers: dict[str, Any]) -> None:
        self.updates, self.due = int(numbers["updates"]), float(numbers["due"])
        self.reward_scale.load_state(numbers["reward_scale"])


def means(names: Sequence[str], seen: Sequence[Sequence[float]]) -> dict[str, float]:
    """The mean of each of the named numbers over some updates; {} where there was none."""
    if not seen:
        return {}
    return {name: sum(column) / len(seen) for name, column in zip(names, zip(*seen, strict=True), strict=True)}
