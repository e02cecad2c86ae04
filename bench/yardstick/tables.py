"""Raw rows -> markdown: what was measured, beside the numbers to reach, and where Covary's own time goes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from yardstick.goals import Round, Row, added, goals, measured, times

PARTS = ("environment", "adapter", "inference", "targets", "update", "logging")
BESIDE = {"environment": "× alone", "sb3": "× SB3", "sbx": "× SBX", "hand-written": "× hand-written"}


def by_round(rows: list[Row]) -> list[Round]:
    numbers = sorted({row["round"] for row in rows})
    return [{(r["workload"], r["system"]): r for r in rows if r["round"] == k} for k in numbers]


def of_each(rows: list[Row]) -> str:
    """Medians; and what compares two systems, within a round."""
    rounds = by_round(rows)
    head = ["workload", "system", "steps/CPU-s", "steps/wall-s", "added µs/step", *BESIDE.values()]
    head += ["first update, s", "(nothing cached)", "peak MB"]
    lines = []
    for workload, system in dict.fromkeys((r["workload"], r["system"]) for r in rows):
        if system == "covary-profile":
            continue
        mine = [r for r in rows if (r["workload"], r["system"]) == (workload, system)]
        cells = [workload, system, *(median(mine, f"steps_per_{clock}_second", ",.0f") for clock in ("cpu", "wall"))]
        if system in ("environment", "covary-two-cores"):  # the others have one core
            cells += ["–"] * (1 + len(BESIDE))
        else:
            cells.append(spread(map(added(workload, system), rounds), ",.1f"))
            beside = (other if other != system else "" for other in BESIDE)
            cells += [spread(map(times(workload, other, system), rounds), ".2f") for other in beside]
        cells += [median(mine, f"first_update_{cold}seconds", ".1f") for cold in ("", "cold_")]
        lines.append([*cells, median(mine, "rss_mb", ",.0f")])
    return markdown(head, lines)


NAMES = {
    "online point-mass 32-32": "online actor-critic, 2-D point mass, networks 32-32, full covariance",
    "online point-mass 256-256": "the same, 256-256",
    "online CartPole-v1 32-32": "online actor-critic, CartPole, 32-32",
    "a2c CartPole-v1": "A2C, 8 × 5, CartPole",
    "sac Pendulum-v1": "SAC, 256-256, batch 256, an update a step, Pendulum",
}
SHAPES = {"ppo-A": "PPO, 8 × 256, minibatch 64, 10 epochs", "ppo-B": "PPO, 64 × 32, minibatch 512, 4 epochs"}


def in_short(rows: list[Row]) -> str:
    """For the README: Covary as a multiple of the others."""
    rounds, lines, before = by_round(rows), [], ""
    for workload in dict.fromkeys(r["workload"] for r in rows):
        shape, _, env = workload.partition(" ")
        said = "the same" if shape == before else SHAPES.get(shape, "")
        before = shape if shape in SHAPES else ""
        name = NAMES.get(workload, f"{said}, {env.removesuffix('-v1').removesuffix('-v5')}")
        pairs = [("sb3", "covary"), ("sbx", "covary"), ("hand-written", "covary"), ("sb3", "covary-general")]
        if shape == "online":
            pairs[-1] = ("hand-written", "covary-general")
        cells = [spread(map(times(workload, other, mine), rounds), ".2f") for other, mine in pairs]
        cells[-1] += "" if cells[-1] == "–" else " hand-written" if shape == "online" else " SB3"
        lines.append([name, *cells])
    return markdown(["workload", "× SB3", "× SBX", "× hand-written", "with the fast path off, ×"], lines)


def to_reach(rows: list[Row]) -> str:
    """The numbers to reach beside what was measured, within a round."""
    rounds, lines = by_round(rows), []
    for goal in goals(list(dict.fromkeys(r["workload"] for r in rows))):
        got = measured(goal, rounds)
        if got is None:
            lines.append([goal.what, goal.text, "–", "–", "not measured"])
            continue
        middle, low, high, reached = got
        lines.append([goal.what, goal.text, f"{middle:.2f}", f"{low:.2f}–{high:.2f}", "yes" if reached else "**no**"])
    return markdown(["workload", "reach", "measured", "lowest–highest", "reached"], lines)


def breakdown(rows: list[Row]) -> str:
    """µs a step of Covary's own time, by part, where it was profiled; else nothing."""
    profiles = [(r["workload"], r["profile"]) for r in rows if "profile" in r]
    more = dict.fromkeys(part for _, p in profiles for part in p["seconds"] if part not in PARTS)
    parts = [*PARTS, *more]
    lines = [[name, *(share(p, part) for part in parts), f"{total(p):.1f}"] for name, p in profiles]
    return markdown(["µs a step of covary", *parts, "in all"], lines) if lines else ""


def share(profile: dict[str, Any], part: str) -> str:
    seconds = profile["seconds"].get(part)
    return "–" if seconds is None else f"{1e6 * seconds / profile['steps']:.1f}"


def total(profile: dict[str, Any]) -> float:
    return 1e6 * sum(profile["seconds"].values()) / profile["steps"]


def median(rows: list[Row], name: str, form: str) -> str:
    values = [row[name] for row in rows if row.get(name) is not None]
    return f"{statistics.median(values):{form}}" if values else "–"


def spread(values: Iterable[float | None], form: str) -> str:
    """Median (lowest–highest), of one alone itself."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:{form}}" if known else "–"
    return f"{statistics.median(known):{form}} ({min(known):{form}}–{max(known):{form}})"


def markdown(head: list[str], lines: list[list[str]]) -> str:
    rule = [":--", ":--", *["--:"] * (len(head) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))
