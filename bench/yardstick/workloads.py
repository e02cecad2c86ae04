"""The workloads, and the environment that is none of Gymnasium's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np

ACTOR_LR, CRITIC_LR = 1e-4, 5e-4  # of the online loops
LR, GAMMA, LAM, CLIP, MAX_NORM = 3e-4, 0.99, 0.95, 0.2, 0.5
A2C_LR = 7e-4
STARTS = 100  # steps that SAC acts before it learns
POINT_MASS = "point-mass"
FAST = ("covary", "covary-full", "covary-two-cores", "covary-profile")


class PointMass(gymnasium.Env[Any, Any]):
    """A mass in the plane that two forces push to the origin, in plain NumPy: about 10 µs a step.

    Observed are position and velocity, (4,); an episode is cut after 200 steps.
    """

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.state, self.t = self.np_random.uniform(-1.0, 1.0, 4), 0
        return self.state.astype(np.float32), {}

    def step(self, action: Any) -> Any:
        force = np.clip(action, -1.0, 1.0)
        velocity = 0.95 * self.state[2:] + 0.1 * force
        position = self.state[:2] + 0.1 * velocity
        self.state = np.concatenate((position, velocity))
        self.t += 1
        reward = -float(position @ position + 0.01 * (force @ force))
        return self.state.astype(np.float32), reward, False, self.t >= 200, {}


@dataclass(frozen=True)
class Workload:
    name: str
    env_id: str
    hidden: tuple[int, ...]
    n_envs: int
    horizon: int  # steps of each environment in an iteration
    minibatch: int
    epochs: int
    warm: int  # iterations before the stopwatch starts, 1 at least
    measured: int  # iterations on it
    systems: tuple[str, ...]

    @property
    def online(self) -> bool:
        return self.name.startswith("online")

    @property
    def algo(self) -> str:
        return "actor_critic" if self.online else self.name.partition(" ")[0].partition("-")[0]

    @property
    def marks(self) -> tuple[int, int, int]:
        """Steps of each environment before the first update is done, the stopwatch starts, the stopwatch stops."""
        first = STARTS + 1 if self.algo == "sac" else self.horizon
        return first, self.warm * self.horizon, (self.warm + self.measured) * self.horizon

    @property
    def total(self) -> int:
        """Transitions until the stopwatch has stopped, which the step after the last iteration does."""
        return (self.marks[-1] + 1) * self.n_envs

    def make(self) -> gymnasium.Env[Any, Any]:
        return PointMass() if self.env_id == POINT_MASS else gymnasium.make(self.env_id, disable_env_checker=True)

    def sized(self, system: str) -> Workload:
        """More iterations for what is fast, so that each is on the stopwatch for a second or more."""
        times = {"environment": 30 if self.online else 4} | dict.fromkeys(FAST, 10 if self.online else 3)
        return replace(self, measured=self.measured * times.get(system, 1))


def workloads(quick: bool = False) -> list[Workload]:
    a, b, online = ((1, 1), (1, 2), (20, 100)) if quick else ((2, 4), (4, 20), (1000, 2000))
    alone, covary = ("environment",), ("covary", "covary-general")
    profile = ("covary-profile",)
    everyone = (*alone, *covary, "hand-written", "sb3", "sbx")
    two_cores = {"HalfCheetah-v5": ("covary-two-cores",)}
    made = []
    for name, env_id, hidden in (
        ("online point-mass 32-32", POINT_MASS, (32, 32)),
        ("online point-mass 256-256", POINT_MASS, (256, 256)),
        ("online CartPole-v1 32-32", "CartPole-v1", (32, 32)),
    ):
        made.append(Workload(name, env_id, hidden, 1, 1, 1, 1, *online, (*alone, *covary, "hand-written", *profile)))
    for env_id in ("Pendulum-v1", "HalfCheetah-v5", "CartPole-v1"):
        more = two_cores.get(env_id, ())
        full = ("covary-full",) if env_id == "HalfCheetah-v5" else ()
        systems = (*everyone, *full, *more, *profile)
        made.append(Workload(f"ppo-A {env_id}", env_id, (64, 64), 8, 256, 64, 10, *a, systems))
        made.append(Workload(f"ppo-B {env_id}", env_id, (64, 64), 64, 32, 512, 4, *b, (*everyone, *more, *profile)))
    shape, pole = ((2, 20) if quick else (200, 400)), "CartPole-v1"
    systems = (*alone, *covary, "sb3", *profile)
    made.append(Workload(f"a2c {pole}", pole, (64, 64), 8, 5, 40, 1, *shape, systems))
    soft = (120, 10) if quick else (300, 500)
    systems = (*alone, *covary, "sb3", "sbx", *profile)
    made.append(Workload("sac Pendulum-v1", "Pendulum-v1", (256, 256), 1, 1, 256, 1, *soft, systems))
    return made
