"""Where environments stand in their episodes, and how another process takes the place of one that is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from covary.envs.faults import EnvironmentFault
from covary.envs.rebuilding import History, Place, Rebuilt
from covary.envs.workers import WorkerLost, Workers

if TYPE_CHECKING:
    from covary.envs.adapter import Adapter


def despite_losses(adapter: Adapter, workers: Workers, do: Callable[[], None]) -> None:
    """Where a process ends meanwhile and another shall follow it, that one puts its environments where they were
    and does what was to be done."""
    try:
        do()
    except WorkerLost as lost:
        if not adapter.restart_workers:
            raise
        numbers = [i for share in lost.shares for i in workers.shares[share]] if lost.stepping else []
        places = {i: place(adapter, i) for i in numbers}
        _replace(adapter, workers, lost, places, {i: adapter._shown[i] for i in numbers})
        workers.again(lost)


def rebuild(
    adapter: Adapter, workers: Workers, places: dict[int, Place], shown: NDArray[np.float32], *latest: NDArray[Any]
) -> dict[int, Rebuilt]:
    """Puts environments at these places; what each showed, by number. Where a process is lost meanwhile and another
    shall follow it, that one puts the others of its environments where they were as well.

    shown: (N, O) what the environments showed last. latest: the action that led there, where the history has not
        got it yet.
    """

    def instead(lost: WorkerLost) -> dict[int, Rebuilt]:
        if not adapter.restart_workers:
            raise lost
        numbers = [i for share in lost.shares for i in workers.shares[share]]
        others = {i: place(adapter, i, *latest) for i in numbers if i not in places}
        every = {i: places[i] for i in numbers if i in places} | others
        return _replace(adapter, workers, lost, every, {i: shown[i] for i in others})

    return workers.rebuild(places, instead)


def _replace(
    adapter: Adapter,
    workers: Workers,
    lost: WorkerLost,
    places: dict[int, Place],
    shown: dict[int, NDArray[np.float32]],
) -> dict[int, Rebuilt]:
    """Another process for each that was lost, its environments put at these places; what each showed.

    shown: (O,) what those showed last that must be where they were.
    """
    rebuilt = workers.start_again(lost, places)
    for i, obs in shown.items():
        if why := trouble(adapter, i, rebuilt[i], obs):
            start = "its seed and its actions" if places[i].state is None else "its state_dict and its actions since"
            kept = f"{History.STEPS:,} steps of an episode are kept, and {History.BYTES >> 20} MB of all"
            raise EnvironmentFault(
                "Environments of a process that is started again must be where they were.",
                given=f"environment {i}: {why}",
                cause=kept if places[i].actions is None else f"it is not decided by {start}",
                fix="--resume, from the last checkpoint; one without state_dict starts a new episode there",
            ) from lost
    where = ", and its environments are where they were" if shown else ""
    adapter.say(f"{lost.who}; another took its place{where}")
    return rebuilt


def place(adapter: Adapter, i: int, *latest: NDArray[Any]) -> Place:
    """Where environment i stands in its episode, as far as its actions tell: those of the history, and these."""
    seed, actions = adapter.seed_of(i, int(adapter.started[i]) - 1), adapter.history.since(i)
    if actions is None:
        return Place(seed, None, None)
    if latest:
        actions = np.array([*actions, *(action[i] for action in latest)])
    decoded = adapter.decode(actions) if len(actions) else actions
    return Place(seed, decoded, *adapter.history.taken_up.get(i, (None, 0.0)))


def trouble(adapter: Adapter, i: int, each: Rebuilt, obs: NDArray[np.float32], ret: float | None = None) -> str:
    """Why environment i, rebuilt, is not where it showed obs (O,) and had collected this return; empty if it is."""
    if each.trouble or each.obs is None:
        return each.trouble
    shown = adapter.encode(np.asarray(each.obs)[None])[0]
    if not np.array_equal(shown, obs):
        k = int(np.flatnonzero(shown != obs)[0])
        return f"replayed, it shows {shown[k]:.7g} in observation[{k}] and not {obs[k]:.7g}"
    wanted = adapter._return[i] if ret is None else ret
    return "" if each.ret == wanted else f"replayed, its return so far is {each.ret:.7g} and not {wanted:.7g}"
