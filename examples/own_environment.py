"""Your own environment: a class of yours, a policy that knows its geometry, a trained agent.

A crane's trolley runs on a circular rail. The action is where to send it (an angle: 0 and 2 pi are one place) and how
much rope to give (metres, between 2 and 12). Nothing has to be scaled to [-1, 1].
"""

from __future__ import annotations

import sys

import gymnasium as gym
import numpy as np

import covary


class Crane(gym.Env):
    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Box(np.array([0, 2], np.float32), np.array([2 * np.pi, 12], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.bearing, self.depth = self.np_random.uniform(0, 2 * np.pi), self.np_random.uniform(3, 11)
        self.moves = 0
        return self._obs(), {}

    def step(self, action):
        trolley, rope = action
        reward = float(np.cos(trolley - self.bearing)) - abs(float(rope) - self.depth) / 5
        self.bearing += self.np_random.normal(0, 0.1)  # the load swings on
        self.moves += 1
        return self._obs(), reward, False, self.moves >= 20, {}  # a time limit truncates, it does not terminate

    def _obs(self):
        return np.array([np.cos(self.bearing), np.sin(self.bearing), self.depth], np.float32)


def main(steps: int = 100_000) -> None:
    agent = covary.train(Crane, steps=steps, covariance="full", periodic=(0,), gamma=0.5)
    print(covary.evaluate(agent, Crane, episodes=50).summary())  # an episode is worth 20 at best

    obs, _ = Crane().reset(seed=1)
    print("load at", np.degrees(np.arctan2(obs[1], obs[0])) % 360, "degrees,", obs[2], "m down")
    bearing, rope = agent.act(obs, deterministic=True)
    print("trolley to", np.degrees(bearing), "degrees,", rope, "m of rope")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
