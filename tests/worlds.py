"""Small environments whose right answers are known; the tests also name them as tests/worlds.py:Class."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete


class Counting(gym.Env):
    """Says which step of which episode it is in, and what it was seeded with.

    Episode e has LENGTHS[e % 3] steps; even ones terminate, odd ones are truncated. Observation (episode, t), reward
    10 episode + t, t the number of steps after the step.
    """

    LENGTHS = (2, 3, 1)
    observation_space = Box(-1, 1000, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self):
        self.episode, self.t, self.seeds, self.actions = -1, 0, [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        self.seeds.append(seed)
        return self.obs(), {}

    def obs(self):
        return np.array([self.episode, self.t], np.float32)

    def step(self, action):
        self.actions.append(np.array(action))
        self.t += 1
        over = self.t >= self.LENGTHS[self.episode % 3]
        odd = bool(self.episode % 2)
        return self.obs(), float(10 * self.episode + self.t), over and not odd, over and odd, {"t": self.t}


class Line(gym.Env):
    """A random point to be named: reward -(a - x)^2, episodes of 5 steps, truncated."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Box(-2, 2, (1,), np.float32)
    steps = 5

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.draw(), {}

    def draw(self):
        self.x = self.np_random.uniform(-1, 1, self.observation_space.shape).astype(np.float32)
        return self.x.copy()

    def step(self, action):
        self.t += 1
        reward = -float(np.square(np.mean(action) - self.x.mean()))
        return self.draw(), reward, False, self.t >= self.steps, {}


class Plane(Line):
    """Line with two actions, each in [-2, 2]."""

    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Box(-2, 2, (2,), np.float32)


class Solid(Line):
    """Line with three actions, of which the mean counts."""

    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Box(-2, 2, (3,), np.float32)


class Crate(Line):
    """Line with actions in an array of shape (2, 3)."""

    action_space = Box(-2, 2, (2, 3), np.float32)


class Choice(Line):
    """Line with three choices, called 5, 6 and 7; the middle one is worth 1, the others nothing."""

    action_space = Discrete(3, start=5)

    def step(self, action):
        assert action in self.action_space, repr(action)
        obs, _, terminated, truncated, info = Line.step(self, 0.0)
        return obs, float(action == 6), terminated, truncated, info


class Dials(Choice):
    """Line with choices in an array of shape (2, 2); the more of them are 1 above the least, the better."""

    action_space = MultiDiscrete([[2, 3], [4, 2]], start=[[5, 0], [-3, 1]])

    def step(self, action):
        assert action in self.action_space, repr(action)
        obs, _, terminated, truncated, info = Line.step(self, 0.0)
        return obs, float((action - self.action_space.start == 1).mean()), terminated, truncated, info


class Switches(Choice):
    """Line with switches in an array of shape (2, 3); the first row should be on, the second off."""

    action_space = MultiBinary((2, 3))

    def step(self, action):
        assert action in self.action_space, repr(action)
        obs, _, terminated, truncated, info = Line.step(self, 0.0)
        return obs, float(action[0].mean() - action[1].mean()), terminated, truncated, info


class Chatty(Line):
    """Prints to stdout, as other people's environments do."""

    def step(self, action):
        print("chatter")
        return Line.step(self, action)


class Slow(Line):
    """Takes its time, so that there is a moment to be stopped in."""

    def step(self, action):
        import time

        time.sleep(0.002)
        return Line.step(self, action)


class RaisesLate(Line):
    """Divides by zero in its 1500th step."""

    count = 0

    def step(self, action):
        self.count += 1
        if self.count == 1500:
            return 1 // 0
        return Line.step(self, action)


class NanLate(Line):
    """Its reward is NaN in its 1500th step."""

    count = 0

    def step(self, action):
        self.count += 1
        obs, reward, *rest = Line.step(self, action)
        return obs, float("nan") if self.count == 1500 else reward, *rest


class RaisesAtOnce(Line):
    """Cannot be made."""

    def __init__(self):
        raise RuntimeError("no simulator found")


class NeedsArguments(Line):
    def __init__(self, size):
        self.size = size


class Swapped(Line):
    """Bounds in the wrong order."""

    def __init__(self):
        self.action_space = Box(1, -1, (2,), np.float32)


class Stuck(Line):
    """The second action cannot move."""

    action_space = Box(np.array([-1, 1], np.float32), np.array([1, 1], np.float32))


class Open(Line):
    """An action without bounds."""

    action_space = Box(-np.inf, np.inf, (1,), np.float32)


class OldStep(Line):
    """Four values, as before Gymnasium."""

    def step(self, action):
        obs, reward, terminated, truncated, info = Line.step(self, action)
        return obs, reward, terminated or truncated, info


class Regulator(gym.Env):
    """x' = A x + B u, reward -(Q x^2 + R u^2), truncated after 5 steps; the best u is linear in x."""

    A, B, Q, R = 0.9, 0.5, 1.0, 0.3
    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Box(-np.inf, np.inf, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-3, 3), 0
        return np.array([self.x]), {}

    def step(self, action):
        u = float(action[0])
        reward = -(self.Q * self.x**2 + self.R * u * u)
        self.x, self.t = self.A * self.x + self.B * u, self.t + 1
        return np.array([self.x]), reward, False, self.t >= 5, {}

    @classmethod
    def gain(cls, gamma):
        """k of the best u = -k x: the fixed point of the discounted Riccati equation."""
        p = 1.0
        for _ in range(1000):
            k = gamma * cls.A * cls.B * p / (cls.R + gamma * cls.B**2 * p)
            p = cls.Q + cls.R * k * k + gamma * (cls.A - cls.B * k) ** 2 * p
        return k


class Dial(gym.Env):
    """One action between 5 and 35 and the episode ends; 12, far from the centre, is best."""

    BEST = 12.0
    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Box(5, 35, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), -(((float(action[0]) - self.BEST) / 10) ** 2), True, False, {}


class Arms(Dial):
    """Four choices, the second of which is best."""

    BEST = 1
    action_space = Discrete(4)

    def step(self, action):
        return np.zeros(1, np.float32), (0.1, 0.9, 0.5, 0.2)[action], True, False, {}


class Stay(gym.Env):
    """0 takes 1 and ends it; 1 takes 1/2 and goes on, but the time limit is one step.

    With gamma 0.9, going on for ever is worth 5. Whoever takes the time limit for an end counts 1/2 and takes the 1.
    """

    observation_space = Discrete(1)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return 0, {}

    def step(self, action):
        self.t += 1
        if action == 0:
            return 0, 1.0, True, False, {}
        return 0, 0.5, False, self.t >= 1, {}
