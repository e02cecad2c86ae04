"""A ring of what was lived through, from which algorithms that learn from the past draw.

Every environment has its own lane, and each observation is kept once: where a step led is where the lane's next step
starts, but at the end of an episode, whose last observation is kept aside. What the policy did is kept as the density's
latent, from which the action, its coordinates for a critic and its log-probability follow without an inverse.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covary.errors import UsageError
from covary.priorities import Priorities
from covary.types import Rollout

Arrays = dict[str, NDArray[Any]]
PARTS = ("obs", "latent", "table")


class Transitions(NamedTuple):
    """B steps out of the past."""

    obs: Tensor  # (B, O) raw
    latent: Tensor  # (B, D) or (B,)
    reward: Tensor  # (B,) as the environment gave it
    discount: Tensor  # (B,)
    next_obs: Tensor  # (B, O) the one the step really led to
    weight: Tensor  # (B,) of importance, at most 1; 1 where all are drawn alike
    places: NDArray[np.int64]  # (B,) where they lie, for `prioritise`


class Replay:
    """The latest transitions of N environments.

    Args:
        size: how many are kept, over all environments; two of each at the least.
        environments: N.
        observation, latent: how many numbers each has; a latent of 0 is one choice.
        folder: where a file takes what memory need not hold; it is gone when the process ends.
        priority: alpha of prioritised replay, 0 for none (Schaul et al. 2016, arXiv:1511.05952, eq. 1).

    It takes no memory before `open` is called.

    Attributes:
        nbytes: what it takes once it is full.
    """

    obs: NDArray[np.float32]  # (lanes, N, O)
    latent: NDArray[np.float32]  # (lanes, N, D)
    table: NDArray[np.float32]  # (lanes, N, 3) reward, discount, and 1 where the step happened

    def __init__(
        self,
        size: int,
        environments: int,
        observation: int,
        latent: int,
        *,
        folder: str | None = None,
        priority: float = 0.0,
    ) -> None:
        self.n, self.lanes = environments, lanes_of(size, environments)
        self.folder, self.alpha = folder, priority
        self._shapes = {
            "obs": (self.lanes, environments, observation),
            "latent": (self.lanes, environments, *((latent,) if latent else ())),
            "table": (self.lanes, environments, 3),
        }
        self._large = sum(4 * int(np.prod(shape)) for shape in self._shapes.values())
        places = self.lanes * environments
        self._small = 8 * places + (Priorities.takes(places) if priority else 0)
        self.nbytes = self._large + self._small
        self.count = 0  # vector steps so far
        self.priorities: Priorities | None = None
        self._parts: Arrays = {}

    def check_room(self) -> None:
        """Raises UsageError where it needs more than the machine's memory, or the folder's disk, can hold."""
        check_room(self.nbytes if self.folder is None else self._small, self._large, self.folder, self.lanes * self.n)

    def open(self) -> str:
        """Takes its memory, or its file. Says what it will hold, for the log.

        Raises:
            UsageError: more than the machine's memory, or the folder's disk, can hold.
        """
        self.check_room()
        size, (observation,) = self.lanes * self.n, self._shapes["obs"][2:]
        self._parts = {name: _room(shape, self.folder) for name, shape in self._shapes.items()}
        self.obs, self.latent, self.table = (self._parts[name] for name in PARTS)
        self._apart = np.zeros((self.lanes, self.n), np.int64)  # 1 + the row of `_last`, or 0: the next step's
        self._last = np.empty((16, observation), np.float32)  # observations that episodes ended on
        self._free = list(range(len(self._last) - 1, -1, -1))  # its rows that nobody uses
        self._led = np.empty((self.n, observation), np.float32)  # where the newest steps led
        self.priorities = Priorities(size, self.alpha) if self.alpha else None
        where = "memory" if self.folder is None else f"a file in {self.folder}"
        large = in_words(self.nbytes)
        return f"replay of {size:,} transitions: {large} of {where} once it is full, and as much for each checkpoint"

    def __len__(self) -> int:
        """Transitions that are kept, those that never happened among them."""
        return min(self.count, self.lanes) * self.n

    # ---- what comes in

    def add(self, rollout: Rollout) -> None:
        """Takes in T steps of N environments."""
        if not self._parts:
            self.open()
        parts = (rollout.obs, rollout.latent, rollout.reward, rollout.discount, rollout.valid)
        obs, latent, *numbers = (part.cpu().numpy() for part in parts)
        led = rollout.next_obs.cpu().numpy()
        for t in range(len(obs)):
            self._add(obs[t], latent[t], [x[t] for x in numbers], led[t])

    def _add(self, obs: NDArray[Any], latent: NDArray[Any], numbers: list[NDArray[Any]], led: NDArray[Any]) -> None:
        row, before = self.count % self.lanes, (self.count - 1) % self.lanes
        if self.count >= self.lanes and self._apart[row].any():
            self._forget(row)
        if self.count:  # where the steps before led, unless that is where these start
            for i in np.flatnonzero((self._led != obs).any(-1)).tolist():
                self._apart[before, i] = 1 + self._keep(self._led[i])
        self.obs[row], self.latent[row], self.table[row] = obs, latent, np.stack(numbers, -1)
        self._led[:] = led
        self.count += 1
        if self.priorities is not None:
            self.priorities.welcome(np.arange(row * self.n, (row + 1) * self.n), numbers[2] > 0)

    def _forget(self, row: int) -> None:
        for i in np.flatnonzero(self._apart[row]).tolist():
            self._free.append(int(self._apart[row, i]) - 1)
        self._apart[row] = 0

    def _keep(self, obs: NDArray[np.float32]) -> int:
        if not self._free:
            old = len(self._last)
            self._last = np.concatenate([self._last, np.empty_like(self._last)])
            self._free = list(range(2 * old - 1, old - 1, -1))
        row = self._free.pop()
        self._last[row] = obs
        return row

    # ---- what goes out

    def sample(self, batch: int, generator: torch.Generator, device: torch.device, beta: float = 0.0) -> Transitions:
        """`batch` steps that happened, drawn with replacement: all alike, or by their priorities.

        Args:
            beta: how far the bias of priorities is corrected, 1 for wholly (Schaul 2016, sec. 3.4).
        """
        index, weight = self._drawn(batch, generator, beta)
        rows, lanes = np.divmod(index, self.n)
        led = self.obs[(rows + 1) % self.lanes, lanes]
        newest = rows == (self.count - 1) % self.lanes
        if newest.any():
            led[newest] = self._led[lanes[newest]]
        apart = self._apart[rows, lanes]
        if (ended := apart > 0).any():
            led[ended] = self._last[apart[ended] - 1]
        table = self.table[rows, lanes]
        parts = (self.obs[rows, lanes], self.latent[rows, lanes], table[:, 0], table[:, 1], led, weight)
        obs, latent, reward, discount, next_obs, weights = (
            torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in parts
        )
        return Transitions(obs, latent, reward, discount, next_obs, weights, index)

    def _drawn(
        self, batch: int, generator: torch.Generator, beta: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places (B,) of steps that happened, and the weight of each."""
        if self.priorities is not None:
            uniform = torch.rand(batch, generator=generator, dtype=torch.float64).numpy()
            return self.priorities.draw(uniform, beta)
        index: NDArray[np.int64] = torch.randint(len(self), (batch,), generator=generator).numpy()
        while (missing := self.table.reshape(-1, 3)[index, 2] == 0).any():  # a few steps of a reset
            again = torch.randint(len(self), (int(missing.sum()),), generator=generator)
            index[missing] = again.numpy()
        return index, np.ones(batch, np.float32)

    def prioritise(self, index: NDArray[np.int64], td_error: Tensor) -> None:
        """The sizes |delta| (B,) by which `index` (B,) will be drawn from now on; nothing where all are drawn alike."""
        if self.priorities is not None:
            self.priorities.assign(index, td_error.cpu().numpy())

    # ---- what a checkpoint keeps

    def state(self) -> Arrays:
        """What it holds as it lies, without a copy: good until something is added."""
        if not self._parts:
            self.open()
        kept = min(self.count, self.lanes)
        apart = self._apart[:kept]
        state: Arrays = {f"replay.{name}": self._parts[name][:kept] for name in PARTS}
        state |= {
            "replay.cut": apart > 0,
            "replay.last": self._last[apart[apart > 0] - 1],
            "replay.led": self._led if self.count else self._led[:0],
            "replay.count": np.array(self.count, np.int64),
        }
        if self.priorities is not None:
            state["replay.priority"] = self.priorities.kept.reshape(self.lanes, self.n)[:kept]
            state["replay.most"] = np.array(self.priorities.most)
        return state

    def load_state(self, arrays: Arrays) -> None:
        """Takes it over. Where an episode cannot be gone on with, the next one's first observation tells so.

        Raises:
            KeyError, ValueError: arrays that are of another run.
        """
        if not self._parts:
            self.open()
        self.count = int(arrays["replay.count"])
        kept, cut, last = min(self.count, self.lanes), arrays["replay.cut"], arrays["replay.last"]
        for name, part in self._parts.items():
            given = arrays[f"replay.{name}"]
            if given.shape != (kept, *part.shape[1:]) or given.dtype != part.dtype:
                raise ValueError(f"replay.{name} of {given.dtype} {given.shape}")
            part[:kept] = given
        if cut.shape != (kept, self.n) or cut.dtype != np.bool_ or last.shape != (int(cut.sum()), self._led.shape[1]):
            raise ValueError(f"replay.cut of {cut.dtype} {cut.shape}, replay.last of {last.shape}")
        led = arrays["replay.led"]
        if led.shape != (self.n if kept else 0, self._led.shape[1]):
            raise ValueError(f"replay.led of {led.shape}")
        if kept:
            self._led[:] = led
        self._apart[:] = 0
        self._last, self._free = np.concatenate([last, np.empty_like(self._last[:16])]), []
        self._free = list(range(len(self._last) - 1, len(last) - 1, -1))
        self._apart[:kept][cut] = 1 + np.arange(len(last))
        if not set(np.unique(self.table[:kept, :, 2]).tolist()) <= {0.0, 1.0}:
            raise ValueError("steps that half happened")
        if self.priorities is not None:
            given = arrays["replay.priority"]
            if given.shape != (kept, self.n) or given.dtype != np.float64:
                raise ValueError(f"replay.priority of {given.dtype} {given.shape}")
            self.priorities.kept[:] = 0.0  # of what came after it was kept
            self.priorities.kept.reshape(self.lanes, self.n)[:kept] = given
            self.priorities.rebuild(float(arrays["replay.most"]))


# ------------------------------------------------------------------------------------------------------ room


def lanes_of(size: int, environments: int) -> int:
    """Steps that each environment's lane holds."""
    return max(size // environments, 2)


def _room(shape: tuple[int, ...], folder: str | None) -> NDArray[np.float32]:
    """Memory that is taken when it is first written to; or a file that nobody else sees."""
    if folder is None:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(4 * int(np.prod(shape)))
        return np.memmap(file, np.float32, "r+", shape=shape)


def check_room(memory: int, disk: int, folder: str | None, size: int) -> None:
    """Raises UsageError where the machine has less memory than `memory`, or the folder's disk less room than `disk`,
    both in bytes."""
    import shutil

    if folder is not None:
        if not (Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise UsageError(
                "replay_folder is a folder that is there, and that can be written to.",
                given=folder,
                fix="make it, or name another",
            )
        if (room := shutil.disk_usage(folder).free) < disk:
            raise UsageError(
                "The replay must fit on its disk.",
                given=f"{size:,} transitions take {in_words(disk)}; {folder} has {in_words(room)}",
                fix=f"replay_size {int(0.8 * size * room / disk):,} or less",
            )
    if (room := _memory()) < memory:
        raise UsageError(
            "The replay must fit into memory.",
            given=f"{size:,} transitions take {in_words(memory)}; this machine has {in_words(room)}",
            fix=f"replay_size {int(0.5 * size * room / memory):,} or less, or replay_folder, which keeps it in a file",
        )


def _memory() -> int:
    """Bytes of memory that this machine has, or that this process may take."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**62
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such limit
        return whole


def in_words(size: float) -> str:
    """Bytes, for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
