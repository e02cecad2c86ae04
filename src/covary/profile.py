"""Where a run's time goes."""

from __future__ import annotations

import time
from typing import Any

PARTS = ("start-up", "environment", "adapter", "inference", "targets", "update", "logging")


class Profile:
    """Seconds of wall time by part. What is off costs one comparison a lap."""

    def __init__(self, on: bool = False) -> None:
        self.on = on
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        """All time since the last lap went to `part`."""
        if self.on:
            now = time.perf_counter()
            self.seconds[part] += now - self.last
            self.last = now

    def watch(self, adapter: Any) -> None:
        """Tells the environments' own time apart from what stands around them."""
        if self.on and adapter.envs is not None:
            adapter.envs = [_Timed(env, self) for env in adapter.envs]
        elif self.on and adapter.workers is not None:
            adapter.workers = _Timed(adapter.workers, self)
        elif self.on:
            adapter.venv = _Timed(adapter.venv, self)

    def record(self, steps: int) -> dict[str, Any]:
        """As profile.json keeps it."""
        return {"steps": steps, "seconds": self.seconds}

    def table(self, steps: int) -> str:
        """For the terminal: microseconds a step and shares, start-up apart."""
        running = {part: s for part, s in self.seconds.items() if part != "start-up"}
        total = sum(running.values()) or 1.0
        lines = [f"{'where the time went':<22}{'µs a step':>10}{'share':>8}"]
        for part, s in running.items():
            lines.append(f"  {part:<20}{1e6 * s / max(steps, 1):>10.1f}{s / total:>8.0%}")
        lines.append(f"  {'all of it':<20}{1e6 * total / max(steps, 1):>10.1f}")
        return "\n".join(lines)


class _Timed:
    """An environment, or a vector of them, whose steps and resets are timed."""

    def __init__(self, env: Any, profile: Profile) -> None:
        self._env, self._profile = env, profile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def _timed(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        self._profile.lap("adapter")
        result = call(*args, **kwargs)
        self._profile.lap("environment")
        return result

    def step(self, action: Any) -> Any:
        return self._timed(self._env.step, action)

    def step_all(self) -> None:
        self._timed(self._env.step_all)

    def reset(self, **kwargs: Any) -> Any:
        return self._timed(self._env.reset, **kwargs)
