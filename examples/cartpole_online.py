"""CartPole online: the actor-critic learns from one step at a time, with an update after every one."""

from __future__ import annotations

import sys

import covary


def main(steps: int = 200_000, seed: int = 0) -> None:
    agent = covary.train("CartPole-v1", "actor_critic", steps, seed, eval_every=max(steps // 10, 1))
    result = covary.evaluate(agent, "CartPole-v1", episodes=20)
    print(f"return {result.returns.mean():.0f} ± {result.returns.std():.0f} of 500, acting deterministically")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
