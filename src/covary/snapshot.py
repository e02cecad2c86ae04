"""Everything that a run is, between two steps: what a checkpoint keeps so that a resumed run ends in the same bits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from covary.agent import Agent
from covary.envs import resuming
from covary.envs.adapter import Adapter
from covary.errors import UsageError

Arrays = dict[str, NDArray[Any]]


class Iterating(Protocol):
    """`covary.iterations.Iterations`, or that of a device."""

    obs: Any

    def state(self) -> Arrays: ...
    def load_state(self, arrays: Arrays, fresh: NDArray[np.bool_]) -> None: ...


class Reporting(Protocol):
    """Who gathers what the next line of metrics will say."""

    def state(self) -> tuple[Arrays, dict[str, Any]]: ...
    def load_state(self, arrays: Arrays, numbers: dict[str, Any]) -> None: ...


def take(agent: Agent, adapter: Adapter, iterate: Iterating, report: Reporting) -> tuple[Arrays, dict[str, Any]]:
    """All of it: named arrays, and the rest as JSON."""
    arrays, meta = agent.state()
    obs = iterate.obs.cpu().numpy() if isinstance(iterate.obs, torch.Tensor) else iterate.obs
    where, envs = resuming.describe(adapter, obs)
    gathered, line = report.state()
    drawn, generators = _generators()
    if agent.learner.memory is not None:
        arrays |= agent.learner.memory.state()
    arrays |= where | iterate.state() | gathered | drawn
    return arrays, meta | {"run": {"envs": envs, "report": line, "generators": generators}}


def put_back(
    arrays: Arrays,
    meta: dict[str, Any],
    agent: Agent,
    adapter: Adapter,
    iterate: Iterating,
    report: Reporting,
    say: Callable[[str], None],
) -> None:
    """Takes over what `take` gave, but for the agent's own part, which `Agent.restore` has taken.

    Raises:
        UsageError: where it is of another run; whatever the environments raise.
    """
    kept = meta["run"]
    try:
        resumed = resuming.resume(adapter, arrays, kept["envs"])
        iterate.obs = resumed.obs
        iterate.load_state(arrays, resumed.fresh)
        report.load_state(arrays, kept["report"])
        if agent.learner.memory is not None:
            agent.learner.memory.load_state(arrays)
        for name in ("reward_scale", "traces"):
            if (remembered := getattr(agent.learner, name, None)) is not None:
                remembered.start_anew(resumed.fresh)
        _set_generators(arrays, kept["generators"])
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError, OverflowError) as error:
        raise UsageError(
            "A checkpoint must say where its run stood.",
            given=f"{type(error).__name__}: {error}",
            cause="other settings, another environment, or a file that was changed",
        ) from error
    for line in resumed.lines:
        say(line)


@contextmanager
def generators_kept_on_error() -> Iterator[None]:
    """The process's own generators are as they were if what is done within is broken off."""
    before = _generators()
    try:
        yield
    except BaseException:
        _set_generators(*before)
        raise


def _generators() -> tuple[Arrays, dict[str, Any]]:
    """The state of the process's own generators, from which environments may draw."""
    version, words, gauss = random.getstate()
    arrays = {"generators.python": np.array(words, np.int64), "generators.torch": torch.get_rng_state().numpy()}
    numbers: dict[str, Any] = {"python": [version, gauss]}
    kind, *rest = np.random.get_state()  # noqa: NPY002 (the one that environments draw from)
    if kind == "MT19937":
        arrays["generators.numpy"] = np.asarray(rest[0])
        numbers["numpy"] = rest[1:]
    return arrays, numbers


def _set_generators(arrays: Arrays, numbers: dict[str, Any]) -> None:
    version, gauss = numbers["python"]
    words = arrays["generators.python"]
    if words.dtype != np.int64 or words.shape != (625,) or not 0 <= int(words[-1]) <= 624:
        raise ValueError(f"the state of Python's generator, {words.dtype} {words.shape}")
    random.setstate((version, tuple(words.tolist()), gauss))
    state = torch.from_numpy(np.array(arrays["generators.torch"]))
    if state.dtype != torch.uint8 or state.shape != torch.get_rng_state().shape:
        raise ValueError(f"the state of torch's generator, {state.dtype} {tuple(state.shape)}")
    torch.set_rng_state(state)
    if "numpy" in numbers:
        words = arrays["generators.numpy"]
        if words.dtype != np.uint32 or words.shape != (624,) or not 0 <= int(numbers["numpy"][0]) <= 624:
            raise ValueError(f"the state of NumPy's generator, {words.dtype} {words.shape}")
        np.random.set_state(("MT19937", words, *numbers["numpy"]))  # noqa: NPY002
