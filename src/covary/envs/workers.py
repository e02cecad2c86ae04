"""Environments spread over processes: this one steps the first share of them itself, each worker another.

What travels stands in shared memory; a pipe only says when. Every share is stepped by the same `Row`, so that the bits
do not depend on how many processes there are.
"""

from __future__ import annotations

import itertools
import multiprocessing
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper, batch_space
from numpy.typing import NDArray

from covary.envs.faults import EnvironmentFault
from covary.envs.rebuilding import Place, Rebuilt, rebuild, state_of
from covary.envs.spaces import Encoder
from covary.errors import UsageError

Maker = Callable[[], gymnasium.Env[Any, Any]]
_STEP, _RESET, _CLOSE, _DONE, _FAILED, _NAME, _STATES, _REBUILD = b"s", b"r", b"c", b"d", b"e", b"@", b"t", b"b"


# Seconds for which whoever waits stays awake: being woken takes as long as many an environment's step.
PATIENCE = 5e-4


def _expect(pipe: Connection) -> None:
    """Returns once there is something to read, or after PATIENCE."""
    if not hasattr(select, "poll"):  # Windows
        return
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    until = time.perf_counter() + PATIENCE
    while not poll.poll(0) and time.perf_counter() < until:
        pass


class Table:
    """What one step of N environments is made of, in memory that processes share.

    actions (N, *A), seeds (N,) of the next episodes; and back: obs (N, *O) where each step led, first (N, *O) where an
    episode that ended is followed by another, reward (N,), terminated (N,), truncated (N,).
    """

    def __init__(self, n: int, observation: gymnasium.Space[Any], action: gymnasium.Space[Any]) -> None:
        shapes = {
            "actions": ((n, *(action.shape or ())), action.dtype),
            "seeds": ((n,), np.dtype(np.int64)),
            "obs": ((n, *(observation.shape or ())), _plain(observation)),
            "first": ((n, *(observation.shape or ())), _plain(observation)),
            "reward": ((n,), np.dtype(np.float64)),
            "terminated": ((n,), np.dtype(np.bool_)),
            "truncated": ((n,), np.dtype(np.bool_)),
        }
        self.memory = {
            name: (RawArray("b", max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)), shape, np.dtype(dtype).str)
            for name, (shape, dtype) in shapes.items()
        }

    def __getattr__(self, name: str) -> NDArray[Any]:
        try:
            memory, shape, dtype = self.__dict__["memory"][name]
        except KeyError:
            raise AttributeError(name) from None
        count = int(np.prod(shape))
        array: NDArray[Any] = np.frombuffer(memory, dtype, count).reshape(shape)
        setattr(self, name, array)
        return array

    def __getstate__(self) -> dict[str, Any]:
        return {"memory": self.memory}


def _plain(space: gymnasium.Space[Any]) -> np.dtype[Any]:
    return np.dtype(np.int64 if isinstance(space, gymnasium.spaces.Discrete) else np.float32)


class Row:
    """Some of the environments, stepped one after another."""

    def __init__(self, envs: Sequence[gymnasium.Env[Any, Any]], table: Table, start: int) -> None:
        self.envs, self.table, self.start = envs, table, start

    def step(self) -> None:
        """A step of each with its action; where an episode ends, the first observation of the next one as well."""
        t = self.table
        for i, env in enumerate(self.envs, self.start):
            obs, reward, terminated, truncated, _ = env.step(t.actions[i].copy())
            t.obs[i], t.reward[i], t.terminated[i], t.truncated[i] = obs, reward, terminated, truncated
            if terminated or truncated:
                t.first[i], _ = env.reset(seed=int(t.seeds[i]))

    def reset(self) -> None:
        """Starts an episode in each."""
        for i, env in enumerate(self.envs, self.start):
            self.table.first[i], _ = env.reset(seed=int(self.table.seeds[i]))

    def states(self) -> list[list[Any] | None]:
        """What each says of its own state."""
        return [state_of(env) for env in self.envs]

    def rebuild(self, places: dict[int, Place]) -> dict[int, Rebuilt]:
        """Puts those of its environments that are named where they were."""
        numbers = range(self.start, self.start + len(self.envs))
        return {i: rebuild(self.envs[i - self.start], places[i]) for i in numbers if i in places}


def distinct(envs: list[gymnasium.Env[Any, Any]]) -> list[gymnasium.Env[Any, Any]]:
    """Raises UsageError unless every environment is an object of its own."""
    if len({id(env.unwrapped) for env in envs}) < len(envs):
        raise UsageError(
            "Every environment must be an object of its own.",
            given=f"{len(envs)} environments that are one and the same",
            cause="a callable that hands out an environment made before",
            fix="lambda: MyEnv(), which makes one at each call",
        )
    return envs


def _work(pipe: Connection, makers: Any, table: Table, start: int, others: list[Connection]) -> None:
    """A worker's life."""
    for number in (signal.SIGINT, signal.SIGTERM):  # these often reach the whole group; the first process decides
        signal.signal(number, signal.SIG_IGN)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # a forked process has none of the others, and would wait for them for ever
    for other in others:  # a forked process holds its siblings' pipes, and would keep them open after their end
        other.close()
    row: Row | None = None
    while True:
        try:
            _expect(pipe)
            word = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            if word == _CLOSE and row is None:
                return
            if row is None:
                row = Row(distinct([make() for make in makers.fn]), table, start)
            if word == _CLOSE:
                for env in row.envs:
                    env.close()
                return
            if word in (_STEP, _RESET):
                row.step() if word == _STEP else row.reset()
                pipe.send_bytes(_DONE)
                continue
            if word == _REBUILD:
                values: Any = row.rebuild(pipe.recv())
            elif word == _STATES:
                values = row.states()
            else:  # the name of an attribute
                values = [env.get_wrapper_attr(word[1:].decode()) for env in row.envs]
            pipe.send_bytes(_DONE)
            pipe.send(values)
        except Exception as error:
            told = error if isinstance(error, UsageError) else RuntimeError(f"{type(error).__name__}: {error}")
            try:
                pipe.send_bytes(_FAILED)
                pipe.send(told)
            except OSError:  # nobody is there to be told
                return


def _sent(pipe: Connection, what: bytes) -> bool:
    try:
        pipe.send_bytes(what)
    except OSError:
        return False
    return True


class WorkerLost(EnvironmentFault):
    """Some of the processes ended: `shares`, before they had done `what`."""

    def __init__(self, rule: str, *, shares: list[int], what: bytes, **told: Any) -> None:
        super().__init__(rule, **told)
        self.shares, self.what, self.stepping = shares, what, what == _STEP
        self.who = told["given"]


class Workers(VectorEnv[Any, Any, Any]):
    """N environments over some processes, of which this is the first. The adapter steps them; see `Table`.

    Args:
        makers: one for each environment; they travel to their process by cloudpickle.
        processes: how many, this one included.

    Raises:
        UsageError: spaces that have no fixed size; whatever a maker raises.
    """

    def __init__(self, makers: Sequence[Maker], processes: int) -> None:
        self.num_envs = n = len(makers)
        bounds = np.linspace(0, n, min(processes, n) + 1).round().astype(int).tolist()
        mine = distinct([make() for make in makers[: bounds[1]]])
        self.single_observation_space, self.single_action_space = mine[0].observation_space, mine[0].action_space
        Encoder(self.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        self.metadata = mine[0].metadata | {"autoreset_mode": AutoresetMode.DISABLED}
        self.table = Table(n, self.single_observation_space, self.single_action_space)
        self.row = Row(mine, self.table, 0)
        self.makers, self.shares = list(makers), [range(start, end) for start, end in itertools.pairwise(bounds[1:])]
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        for share in range(len(self.shares)):
            self._start(share)

    def _start(self, share: int) -> None:
        """A process for this share; in the place of the one before, where there was one."""
        context = multiprocessing.get_context()
        here, there = context.Pipe()
        siblings = [pipe for k, pipe in enumerate(self.pipes) if k != share]
        others = [*siblings, here] if context.get_start_method() == "fork" else []
        numbers = self.shares[share]
        some: Any = CloudpickleWrapper(self.makers[numbers.start : numbers.stop])  # type: ignore[arg-type]
        arguments = (there, some, self.table, numbers.start, others)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        there.close()
        self.pipes[share : share + 1], self.processes[share : share + 1] = [here], [process]

    def together(self, what: bytes) -> None:
        """Lets every share step or reset, this process's own as well; returns when all have.

        Raises:
            WorkerLost: a process ended; all others have done what they should.
        """
        lost = [share for share, pipe in enumerate(self.pipes) if not _sent(pipe, what)]
        fault: Exception | None = None
        try:
            self.row.step() if what == _STEP else self.row.reset()
        except Exception as error:
            fault = error
        for share, pipe in enumerate(self.pipes):  # all of them, or the next answer would be this one's
            try:
                fault = (None if share in lost else self._answer(pipe)) or fault
            except (EOFError, OSError):
                lost.append(share)
        if fault is not None:
            raise fault
        if lost:
            raise self._lost(sorted(lost), what)

    def _answer(self, pipe: Connection) -> Exception | None:
        _expect(pipe)
        if pipe.recv_bytes() == _DONE:
            return None
        error: Exception = pipe.recv()
        return error

    def _ask(self, share: int, word: bytes, *more: Any) -> Any:
        """What a process answers. Raises WorkerLost, or what its environments raised."""
        pipe = self.pipes[share]
        try:
            pipe.send_bytes(word)
            for each in more:
                pipe.send(each)
            if (fault := self._answer(pipe)) is not None:
                raise fault
            return pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost([share], word) from error

    def _lost(self, shares: list[int], what: bytes, replaced: bool = False) -> WorkerLost:
        """replaced: whether that happened to one which had only just taken another's place."""
        share = shares[0]
        process, numbers = self.processes[share], self.shares[share]
        process.join(1)
        code = process.exitcode
        how = f"was ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
        which = f"process {process.pid}, which steps environments {numbers.start} to {numbers.stop - 1}"
        soon = ", soon after it took another's place" if replaced else ""
        another = "" if replaced else "--restart-workers, which starts another in its place; "
        return WorkerLost(
            "The processes of --vectorization async must live as long as the run.",
            given=f"{which}, {how}{soon}",
            cause="killed by a signal, or for want of memory; or the environment's own code crashed the interpreter",
            fix=f"{another}--vectorization sync; or fewer environments",
            shares=shares,
            what=what,
        )

    def start_again(self, lost: WorkerLost, places: dict[int, Place]) -> dict[int, Rebuilt]:
        """Another process for each that was lost, its environments put where they were (places); what they showed. One
        that is lost meanwhile is followed by a last one."""
        rebuilt: dict[int, Rebuilt] = {}
        for share in lost.shares:
            some = {i: places[i] for i in self.shares[share] if i in places}
            try:
                rebuilt |= self._anew(share, some)
            except WorkerLost:
                try:
                    rebuilt |= self._anew(share, some)
                except WorkerLost as last:
                    raise self._lost([share], _REBUILD, replaced=True) from last
        return rebuilt

    def _anew(self, share: int, places: dict[int, Place]) -> dict[int, Rebuilt]:
        self.pipes[share].close()
        self._start(share)
        rebuilt: dict[int, Rebuilt] = self._ask(share, _REBUILD, places)
        return rebuilt

    def again(self, lost: WorkerLost) -> None:
        """Lets those that took the place of others do what the others did not."""
        for share in lost.shares:
            try:
                self.pipes[share].send_bytes(lost.what)
                fault = self._answer(self.pipes[share])
            except (EOFError, OSError) as error:
                raise self._lost([share], lost.what, replaced=True) from error
            if fault is not None:
                raise fault

    def step_all(self) -> None:
        self.together(_STEP)

    def reset_all(self) -> None:
        self.together(_RESET)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of every environment."""
        values = [env.get_wrapper_attr(name) for env in self.row.envs]
        for share in range(len(self.shares)):
            values += self._ask(share, _NAME + name.encode())
        return tuple(values)

    def states(self) -> list[list[Any] | None]:
        """What each environment says of its own state; None where it says nothing, or its process is no more."""
        values = self.row.states()
        for share, numbers in enumerate(self.shares):
            try:
                values += self._ask(share, _STATES)
            except WorkerLost:
                values += [None] * len(numbers)
        return values

    def rebuild(
        self, places: dict[int, Place], instead: Callable[[WorkerLost], dict[int, Rebuilt]]
    ) -> dict[int, Rebuilt]:
        """Puts the environments that are named where they were; what each showed, by number.

        instead: does the same for the environments of a process that is lost meanwhile, or raises.
        """
        rebuilt = self.row.rebuild(places)
        for share, numbers in enumerate(self.shares):
            if some := {i: places[i] for i in numbers if i in places}:
                try:
                    rebuilt |= self._ask(share, _REBUILD, some)
                except WorkerLost as lost:
                    done = instead(lost)
                    rebuilt |= {i: done[i] for i in some}
        return rebuilt

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the workers; those that do not answer within a second are stopped."""
        for pipe in self.pipes:
            try:
                pipe.send_bytes(_CLOSE)
                pipe.close()
            except OSError:
                pass
        for env in self.row.envs:
            env.close()
        for process in self.processes:
            process.join(1)
            if process.is_alive():
                process.kill()
                process.join()
