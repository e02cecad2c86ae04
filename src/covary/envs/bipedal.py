"""Gymnasium's BipedalWalker, each of whose episodes begins in a world of its own.

The original keeps one Box2D world for all of its episodes, and what earlier ones left there shows in the last bits of
later ones: the same seed and the same actions give another episode. A run could not go on in the middle of one.
"""

from __future__ import annotations

from typing import Any

import gymnasium


class NewWorld(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives the walker a new world at each reset, as it has one when it is made."""

    holds_nothing = True  # that a checkpoint would have to keep

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        walker: Any = self.env.unwrapped
        walker._destroy()
        walker.world = type(walker.world)()
        return self.env.reset(seed=seed, options=options)


def with_episodes_of_their_own(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The environment, so that its episodes are decided by their seeds and actions alone."""
    walker = type(env.unwrapped).__module__ == "gymnasium.envs.box2d.bipedal_walker"
    return NewWorld(env) if walker else env
