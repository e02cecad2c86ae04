"""`make train`: PPO with a full covariance learns to point a mirror, two bounded angles, one of them a circle.

Prints the pointing error before and after, and leaves the learning curve and the learned density in the run folder.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

import covary
from covary import plots
from covary.envs.heliostat import best_action, direction

ENV = "covary/Heliostat-v0"


def report(agent: covary.Agent, when: str) -> None:
    error = covary.evaluate(agent, ENV, 100, info=("error_deg",)).info["error_deg"]
    print(f"pointing error {when}: mean {error.mean():.1f}°, median {np.median(error):.1f}°")


def main(steps: int = 200_000, seed: int = 0) -> None:
    out = Path("runs") / f"heliostat-{time.strftime('%Y%m%d-%H%M%S')}"
    options = {"covariance": "full", "periodic": (0,)}
    report(covary.untrained(ENV, "ppo", seed=seed, **options), "before training")
    agent = covary.train(ENV, "ppo", steps, seed, out=str(out), **options)
    report(agent, "after training")

    # Four states: sun and target directions whose bisector lies all around, the last one across the seam 0 = 360°.
    sun = direction(np.radians([[40.0, 130.0, 250.0, 20.0], [30.0, 60.0, 45.0, 40.0]]))
    target = direction(np.radians([[100.0, 200.0, 300.0, 336.0], [10.0, 25.0, 5.0, 15.0]]))
    mirror = direction(np.array([[0.0] * 4, [np.pi / 4] * 4]))
    obs = np.concatenate([sun, target, mirror]).T.astype(np.float32)
    best = best_action(obs)
    titles = [f"best azimuth {np.degrees(a):.0f}°" for a in best[:, 0]]
    titles[-1] += ": at the seam"
    names = ("azimuth (rad)", "elevation (rad)")
    plots.density(agent.policy, obs, out / "density.png", best=best, titles=titles, names=names)
    print(f"look at {out / 'curve.png'} and {out / 'density.png'}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
