"""The one adapter from Gymnasium's vector environments to what an algorithm may see.

Here, and nowhere else, the flags are settled: `discount` is gamma, or 0 where the world stopped; `lam`, by which an
algorithm multiplies its lambda, is 1, or 0 where the episode was cut; `next_obs` is the observation the step really led
to; `valid` is 0 for a step that never happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from covary.envs import replacing
from covary.envs.faults import EnvironmentFault, NonFiniteStep, not_finite
from covary.envs.rebuilding import History, Place
from covary.envs.spaces import Decoder, Encoder
from covary.envs.vectors import InProcess
from covary.envs.workers import Workers

REWARD, DISCOUNT, LAM, VALID, SPARE = range(5)


class Step(NamedTuple):
    """One step of N environments."""

    table: NDArray[np.float32]  # (5, N) the rows below, and one that the learner may use
    next_obs: NDArray[np.float32]  # (N, O) where the step led
    obs: NDArray[np.float32]  # (N, O) where the next one starts
    info: dict[str, Any]

    @property
    def reward(self) -> NDArray[np.float32]:
        return self.table[REWARD]

    @property
    def discount(self) -> NDArray[np.float32]:
        """gamma, 0 where terminated"""
        return self.table[DISCOUNT]

    @property
    def lam(self) -> NDArray[np.float32]:
        """1, 0 where cut"""
        return self.table[LAM]

    @property
    def valid(self) -> NDArray[np.float32]:
        """1, 0 where no step happened"""
        return self.table[VALID]


class Episode(NamedTuple):
    """A finished episode: its undiscounted return, its number of steps, and whether the world stopped."""

    env: int
    number: int
    ret: float
    length: int
    terminated: bool


def episode_seed(run_seed: int, env: int, episode: int) -> int:
    """The seed of one episode; any episode of a run can be had again from it."""
    return int(np.random.SeedSequence((run_seed, env, episode)).generate_state(1)[0])


class Adapter:
    """Steps a vector environment and tells its episodes truly.

    Args:
        venv: any gymnasium.vector.VectorEnv environment. With autoreset DISABLED every reset is seeded; one that resets
            itself is seeded once.
        seed_of: (environment, episode) -> the episode's seed.
        gamma: what `discount` is where the world goes on.
        wanted: keys of the environments' info to report.

    Attributes:
        action: the latest.
        episodes: the episodes that ended since the list was last emptied.
        started: (N,) how many episodes each environment has started.
        envs: the environments themselves where they are stepped one by one, else None.
        usual: the table of a step in which nothing ends.
        trusting: whether somebody else sees to it that what the environments give is finite.
        history: the actions of each environment since its episode began.
        torn: whether the latest step was taken back, which some environments have taken all the same.
        forgiving: whether a step that gives numbers that are not finite is left out.
        left_out: why, for each environment's step since the list was last emptied.
        restart_workers: whether a process that is lost is followed by another.
        say: tells the user what happened.
        always: whether every step happens: no environment resets itself on a step of its own.
    """

    def __init__(
        self,
        venv: Any,
        seed_of: Callable[[int, int], int],
        gamma: float = 1.0,
        wanted: tuple[str, ...] = (),
    ) -> None:
        self.venv = self.native = venv  # a profile may look at the first
        self.seed_of, self.gamma, self.wanted = seed_of, gamma, wanted
        self.mode = AutoresetMode(venv.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.n = venv.num_envs
        self.encode = Encoder(venv.single_observation_space)
        self.decode = Decoder(venv.single_action_space)
        self.started = np.zeros(self.n, np.int64)
        self.episodes: list[Episode] = []
        self.steps = 0  # vector steps so far, for messages
        self.history = History(self.n)
        self._over: Any = ()  # the environments whose episode ended in the latest step, where they are reset here
        self._before: tuple[Any, ...] = ()  # what the latest step changed, as it was
        self._phantom = np.zeros(self.n, bool)
        self.action: NDArray[Any] = np.zeros(0)  # the latest, for messages
        self._return: Any = np.zeros(self.n)  # lists where environments are stepped one by one
        self._length: Any = np.zeros(self.n, np.int64)
        self.usual = np.zeros((5, self.n), np.float32)
        self.usual[DISCOUNT], self.usual[LAM:SPARE] = gamma, 1.0
        self.workers = venv if isinstance(venv, Workers) else None
        self.trusting = self.restart_workers = self.forgiving = False
        self.torn = False
        self.left_out: list[NonFiniteStep] = []
        self.seconds = 0.0  # spent in `step`, by the clock
        self.say: Callable[[str], None] = lambda text: None
        self._shown: NDArray[np.float32] = np.zeros((0, 0), np.float32)  # what the environments showed last
        self.always = self.mode is not AutoresetMode.NEXT_STEP
        self.envs: Any = venv.envs if isinstance(venv, InProcess) else None
        if self.envs is not None:
            self._return, self._length = [0.0] * self.n, [0] * self.n
        self._raw_shape = (self.n, *(venv.single_observation_space.shape or ()))
        self._raw_dtype = np.int64 if self.encode.one_hot else np.float32

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Of what a policy gives for one environment."""
        space = self.venv.single_action_space
        return () if isinstance(space, gymnasium.spaces.Discrete) else (int(np.prod(space.shape)),)

    @property
    def self_resetting(self) -> bool:
        return self.mode is not AutoresetMode.DISABLED

    @property
    def longest(self) -> int:
        """Steps so far of the longest episode under way."""
        return int(max(self._length))

    def reset(self) -> NDArray[np.float32]:
        """Starts an episode in every environment. (N, O)"""
        self._phantom[:] = False
        self.history.restart(slice(None))
        for i in range(self.n):
            self._return[i], self._length[i] = 0.0, 0
        seeds = self._seeds(np.ones(self.n, bool))
        if self.workers is not None:
            t = self.workers.table
            t.seeds[:] = seeds
            replacing.despite_losses(self, self.workers, self.workers.reset_all)
            t.seeds[:] = [self.seed_of(i, int(self.started[i])) for i in range(self.n)]  # of the episodes after these
            self._shown = self._checked(self.encode(t.first), "observation", "reset")
            return self._shown
        # one that resets itself may take nothing but the one number that VectorEnv.reset speaks of
        if getattr(self.venv, "seeded", False):  # when it was made, and never again
            obs, _ = self.venv.reset()
        else:
            obs, _ = self.venv.reset(seed=seeds[0] if self.self_resetting else seeds)
        self._shown = self._checked(self.encode(obs), "observation", "reset")
        return self._shown

    def _seeds(self, starting: NDArray[np.bool_]) -> list[int | None]:
        seeds = [self.seed_of(i, int(self.started[i])) if starting[i] else None for i in range(self.n)]
        self.started = self.started + starting  # another array: a step that is taken back has the one before
        return seeds

    def step(self, action: NDArray[Any]) -> Step:
        """action: (N, D) or (N,) as the policy gave it. Where it raises, the step has not happened."""
        self.action = action
        self.steps += 1
        self._over, began = (), time.perf_counter()
        self._before = self._return.copy(), self._length.copy(), self.started, len(self.episodes)
        try:
            if self.envs is not None:
                step = self._step_each(action)
            else:
                step = self._step_all(action) if self.workers is None else self._step_shared(action, self.workers)
        except BaseException:
            self._take_back()
            raise
        self.history.add(action)
        self._shown, self.torn = step.obs, False
        if len(self._over):
            self.history.restart(self._over)
        self.seconds += time.perf_counter() - began
        return step

    def _take_back(self) -> None:
        self.torn = True
        self._return, self._length, self.started, known = self._before
        self.steps -= 1
        del self.episodes[known:]

    def refuse(self, step: Step) -> None:
        """Says which number is not finite in the latest step, which was taken on trust and has not happened then."""
        try:
            self.complain(step)
        finally:
            self._take_back()
            self.history.end -= 1

    def _step_each(self, action: NDArray[Any]) -> Step:
        """A step of environments in this process: straight into the arrays that the learner reads."""
        table = self.usual.copy()
        reward = table[REWARD]
        raw = np.empty(self._raw_shape, self._raw_dtype)
        returns, lengths, ended, stopped, infos = self._return, self._length, [], [], []
        for i, (env, one) in enumerate(zip(self.envs, self.decode(action), strict=True)):
            obs, r, terminated, truncated, info = env.step(one)
            raw[i] = obs
            reward[i] = r
            returns[i] += float(r)
            lengths[i] += 1
            if terminated or truncated:
                ended.append(i)
                table[LAM, i] = 0.0
                if terminated:
                    stopped.append(i)
                    table[DISCOUNT, i] = 0.0
            if self.wanted:
                infos.append(info)
        next_obs = obs = self._encoded(raw)
        looked_at = self.trusting and not ended  # before the next episode starts, or it would count as started
        spoiled: list[int] = []
        if not looked_at and not math.isfinite(float(np.add.reduce(next_obs, None)) + float(np.add.reduce(reward))):
            spoiled = self._leave_out(Step(table, next_obs, obs, {}))
            ended = sorted({*ended, *spoiled})
        if ended:
            obs, self._over, self.started = next_obs.copy(), ended, self.started.copy()
            for i in ended:
                if i not in spoiled:
                    self._note(i, int(self.started[i]) - 1, i in stopped)
                first, _ = self.envs[i].reset(seed=self.seed_of(i, int(self.started[i])))
                self.started[i] += 1
                obs[i] = self._checked(self.encode(np.asarray(first)[None]), "observation", "reset", [i])
        return Step(table, next_obs, obs, self._gathered(infos))

    def _step_shared(self, action: NDArray[Any], workers: Workers) -> Step:
        """The same over several processes."""
        t = workers.table
        t.actions[:] = self.decode(action)
        replacing.despite_losses(self, workers, workers.step_all)
        next_obs = obs = self.encode(t.obs)
        table = self.usual.copy()
        table[REWARD] = t.reward
        table[DISCOUNT, t.terminated] = 0.0
        self._return += t.reward
        self._length += 1
        ended = t.terminated | t.truncated
        table[LAM, ended] = 0.0
        spoiled: list[int] = []
        if not (np.isfinite(next_obs).all() and np.isfinite(table[REWARD]).all()):
            spoiled = self._leave_out(Step(table, next_obs, obs, {}))
            ended[spoiled] = True
            # those whose episode ended by itself as well: a process that is lost here takes their new one with it
            anew = {i: Place(int(t.seeds[i]), np.zeros(0), None) for i in np.flatnonzero(ended).tolist()}
            for i, each in replacing.rebuild(self, workers, anew, next_obs, action).items():
                t.first[i] = each.obs
        if ended.any():
            obs, self.started = next_obs.copy(), self.started.copy()
            where = self._over = np.flatnonzero(ended)
            for i in where.tolist():
                if i not in spoiled:
                    self._note(i, int(self.started[i]) - 1, bool(t.terminated[i]))
                self.started[i] += 1
                t.seeds[i] = self.seed_of(i, int(self.started[i]))
            obs[where] = self._checked(self.encode(t.first[where]), "observation", "reset", where)
        return Step(table, next_obs, obs, {})

    def _leave_out(self, step: Step) -> list[int]:
        """The environments in which a step gave numbers that are not finite. It counts as never happened, and its
        environment as back where it was, so that an advantage over it is 0; its episode is cut and counts as none.

        Raises:
            NonFiniteStep: unless such steps are left out, and episodes are started here.
        """
        if not self.forgiving or self.self_resetting or not np.isfinite(self.action).all():
            self.complain(step)
        bad = ~(np.isfinite(step.next_obs).all(1) & np.isfinite(step.reward))
        try:
            self.complain(step)
        except NonFiniteStep as fault:
            self.left_out += [fault] * int(bad.sum())
        step.next_obs[bad] = self._shown[bad]
        step.table[[REWARD, LAM, VALID]] = np.where(bad, 0.0, step.table[[REWARD, LAM, VALID]])
        step.table[DISCOUNT, bad] = 1.0
        spoiled = np.flatnonzero(bad).tolist()
        for i in spoiled:
            self._return[i], self._length[i] = 0.0, 0
        return spoiled

    def complain(self, step: Step) -> None:
        """Says which number of a step is not finite, if any."""
        self._checked(step.next_obs, "observation", "step")
        self._checked(step.reward, "reward", "step")

    def _encoded(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        return self.encode(raw) if self.encode.one_hot else raw.reshape(len(raw), -1)

    def _gathered(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        """The wanted keys of each environment's info, as vector environments report them: values and a mask."""
        merged: dict[str, Any] = {}
        for key in self.wanted if infos else ():
            mask = np.array([key in info for info in infos])
            if mask.any():
                merged[key] = np.array([info.get(key, 0) for info in infos])
                merged[f"_{key}"] = mask
        return merged

    def _step_all(self, action: NDArray[Any]) -> Step:
        """A step of any vector environment."""
        raw, reward, terminated, truncated, info = self.venv.step(self.decode(action))
        shape = (self.n, *(self.venv.single_observation_space.shape or ()))
        for name, value, wanted in (
            ("observation", raw, shape),
            ("reward", reward, (self.n,)),
            ("terminated", terminated, (self.n,)),
            ("truncated", truncated, (self.n,)),
        ):
            if np.shape(value) != wanted:
                raise EnvironmentFault(
                    f"A vector environment of {self.n} gives {name} of shape {wanted}.",
                    given=f"shape {np.shape(value)} in step {self.steps}",
                )
        obs = self.encode(raw)
        ended = np.logical_or(terminated, truncated)
        table = self.usual.copy()
        table[REWARD] = reward
        table[DISCOUNT, np.asarray(terminated, bool)] = 0.0
        table[LAM, ended] = 0.0
        table[VALID, self._phantom] = 0.0
        self._return += np.where(self._phantom, 0.0, reward)
        self._length += ~self._phantom
        spoiled: list[int] = []
        if not (np.isfinite(obs).all() and np.isfinite(table[REWARD]).all()):
            spoiled = self._leave_out(Step(table, obs, obs, {}))
            ended[spoiled] = True
        next_obs = obs
        if ended.any():
            next_obs, obs = self._finish(obs, ended, np.asarray(terminated, bool), spoiled, info)
        elif self.mode is AutoresetMode.NEXT_STEP:
            self._phantom[:] = False
        return Step(table, next_obs, obs, info)

    def _note(self, i: int, number: int, terminated: bool) -> None:
        """An episode of environment i has ended."""
        self.episodes.append(Episode(i, number, float(self._return[i]), int(self._length[i]), terminated))
        self._return[i], self._length[i] = 0.0, 0

    def _finish(
        self,
        obs: NDArray[np.float32],
        ended: NDArray[np.bool_],
        terminated: NDArray[np.bool_],
        spoiled: list[int],
        info: dict[str, Any],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Notes the episodes that ended; where each really ended, and where the next one starts."""
        for i in np.flatnonzero(ended).tolist():
            number = int(self.started[i]) - 1 if not self.self_resetting else -1
            if i not in spoiled:
                self._note(i, number, bool(terminated[i]))
        if self.mode is AutoresetMode.NEXT_STEP:
            self._phantom = ended.copy()  # the next step resets these and is none
            return obs, obs
        if self.mode is AutoresetMode.SAME_STEP:
            final = obs.copy()
            where = np.flatnonzero(ended)
            last = info["final_obs"]
            final[where] = self.encode(np.stack([np.asarray(last[i]) for i in where]))
            return self._checked(final, "observation", "step"), obs
        self._over = np.flatnonzero(ended)
        raw, _ = self.venv.reset(seed=self._seeds(ended), options={"reset_mask": ended})
        fresh = self._checked(self.encode(raw), "observation", "reset")
        return obs, np.where(ended[:, None], fresh, obs)

    def _checked(self, x: NDArray[np.float32], field: str, call: str, environments: Any = None) -> NDArray[np.float32]:
        """x, whose rows are of these environments (all of them when left out), if it is finite."""
        if np.isfinite(x).all():
            return x
        raise not_finite(x, field, call, environments, self.action, self.steps)

    def close(self) -> None:
        self.venv.close()
