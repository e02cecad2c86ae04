"""The numbers to reach: what each compares, and the reach."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Round = dict[tuple[str, str], Row]  # the rows of one round, by workload and system

SKRL = 24_300 / 20_125  # skrl 2.1.1 beside Stable-Baselines3 2.9.2 in PPO B on Pendulum-v1, as measured in one run


@dataclass(frozen=True)
class Goal:
    what: str
    text: str
    of: Callable[[Round], float | None]  # None where the round lacks a row for it
    reach: float
    most: bool = False  # whether `reach` may not be exceeded


def rate(rows: Round, workload: str, system: str, clock: str = "cpu") -> float | None:
    return rows.get((workload, system), {}).get(f"steps_per_{clock}_second")


def times(workload: str, other: str, system: str = "covary", clock: str = "cpu") -> Callable[[Round], float | None]:
    """How many times as fast a system is as another."""

    def of(rows: Round) -> float | None:
        a, b = rate(rows, workload, system, clock), rate(rows, workload, other, clock)
        return a / b if a and b else None

    return of


def added(workload: str, system: str = "covary") -> Callable[[Round], float | None]:
    """µs a step beside the environment's own."""

    def of(rows: Round) -> float | None:
        a, b = rate(rows, workload, system), rate(rows, workload, "environment")
        return 1e6 / a - 1e6 / b if a and b else None

    return of


def best_peer(workload: str) -> Callable[[Round], float | None]:
    """How many times as fast as the fastest peer known: SBX in this round, or skrl by what it was beside SB3."""

    def of(rows: Round) -> float | None:
        own, sb3, sbx = (rate(rows, workload, system) for system in ("covary", "sb3", "sbx"))
        return own / max(SKRL * sb3, sbx or 0.0) if own and sb3 else None

    return of


def memory(workload: str) -> Callable[[Round], float | None]:
    """Peak memory beside Stable-Baselines3's; online, where it has no such algorithm, beside its leanest PPO."""

    def of(rows: Round) -> float | None:
        own = rows.get((workload, "covary"), {}).get("rss_mb")
        peers = {name: row["rss_mb"] for (name, system), row in rows.items() if system == "sb3" and row["rss_mb"]}
        beside = peers.get(workload) or (min(peers.values(), default=None) if workload.startswith("online") else None)
        return own / beside if own and beside else None

    return of


def slowest_start(name: str) -> Callable[[Round], float | None]:
    """Seconds from the command to the first update, of the workload where that takes longest."""

    def of(rows: Round) -> float | None:
        seconds = [row.get(name) for (_, system), row in rows.items() if system == "covary"]
        return max((s for s in seconds if s is not None), default=None)

    return of


def goals(names: list[str]) -> list[Goal]:
    """Of the workloads with these names."""
    small, large = "online point-mass 32-32", "online point-mass 256-256"
    pole, a, b = "online CartPole-v1 32-32", "ppo-A {}-v1".format, "ppo-B {}".format
    cheetah_a, cheetah_b, pendulum_b = "ppo-A HalfCheetah-v5", b("HalfCheetah-v5"), b("Pendulum-v1")
    made = [
        Goal(small, "≥ 25 × hand-written", times(small, "hand-written"), 25),
        Goal(small, "≤ 35 µs added a step", added(small), 35, most=True),
        Goal(large, "≥ 4 × hand-written", times(large, "hand-written"), 4),
        Goal(pole, "≥ 15 × hand-written", times(pole, "hand-written"), 15),
        Goal(a("Pendulum"), "≥ 6 × SB3", times(a("Pendulum"), "sb3"), 6),
        Goal(a("Pendulum"), "≥ 2.8 × SBX", times(a("Pendulum"), "sbx"), 2.8),
        Goal(cheetah_a, "≥ 4 × SB3", times(cheetah_a, "sb3"), 4),
        Goal(cheetah_a, "≥ 2.8 × SBX", times(cheetah_a, "sbx"), 2.8),
        Goal(a("CartPole"), "≥ 6 × SB3", times(a("CartPole"), "sb3"), 6),
        Goal(a("CartPole"), "≥ 3 × SBX", times(a("CartPole"), "sbx"), 3),
        Goal("a2c CartPole-v1", "≥ 4 × SB3", times("a2c CartPole-v1", "sb3"), 4),
        Goal("sac Pendulum-v1", "≥ 1.6 × SB3", times("sac Pendulum-v1", "sb3"), 1.6),
        Goal("sac Pendulum-v1", "≥ 1.05 × SBX", times("sac Pendulum-v1", "sbx"), 1.05),
        Goal(pendulum_b, f"≥ 1.6 × the best peer (SBX, or skrl at {SKRL:.2f} × SB3)", best_peer(pendulum_b), 1.6),
        Goal(cheetah_b, "≥ 1.15 × SBX", times(cheetah_b, "sbx"), 1.15),
        Goal(cheetah_b, "≥ 0.8 × environment alone", times(cheetah_b, "environment"), 0.8),
        Goal(a("Pendulum"), "general path ≥ 2 × SB3", times(a("Pendulum"), "sb3", "covary-general"), 2),
        Goal(
            cheetah_a,
            "full covariance ≤ 1.3 × the time of diagonal",
            times(cheetah_a, "covary-full", "covary"),
            1.3,
            most=True,
        ),
    ]
    for name in (cheetah_a, cheetah_b):
        of = times(name, "covary", "covary-two-cores", "wall")
        made.append(Goal(name, "two cores ≥ 1.5 × one, by the wall's clock", of, 1.5))
    made += [Goal(name, "peak memory ≤ 1 × SB3", memory(name), 1, most=True) for name in names]
    made = [goal for goal in made if goal.what in names]
    made.append(
        Goal("each", "first update ≤ 6 s, nothing cached", slowest_start("first_update_cold_seconds"), 6, most=True)
    )
    made.append(Goal("each", "first update ≤ 3 s, kernels cached", slowest_start("first_update_seconds"), 3, most=True))
    return made


def measured(goal: Goal, rounds: list[Round]) -> tuple[float, float, float, bool] | None:
    """Median, lowest and highest over rounds, and whether the median reaches the goal; None where nothing compares."""
    values = [value for value in map(goal.of, rounds) if value is not None]
    if not values:
        return None
    middle = statistics.median(values)
    return middle, min(values), max(values), middle <= goal.reach if goal.most else middle >= goal.reach
