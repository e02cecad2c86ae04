"""What runs are put through, and what came of it: the table in docs/reliability.md.

    python bench/reliability.py                        every trial at its full size, about an hour
    python bench/reliability.py kills endurance        these trials alone; the others keep their rows
    python bench/reliability.py --small                a small sample of each, printed and not kept
    python bench/reliability.py --table                the table alone, from the raw rows

    kills       kill -9 at random moments, resumed, against the undisturbed run          bench/trials/kills.py
    writes      each system call of saving fails, or is the last one                     bench/trials/writes.py
    files       checkpoints mutated at random, loaded                                    bench/trials/files.py
    cases       random values through distributions and adapters                         bench/trials/cases.py
    lies        environments that break their rules                                      bench/trials/lies.py
    seeds       the same seed twice, on 1 and 2 threads, in 1 and 2 processes            bench/trials/seeds.py
    endurance   memory and open files over eight hours' worth of updates                 bench/trials/endurance.py
    guard       what looking for numbers that are not finite costs                       bench/trials/guard.py

Raw rows go to bench/results/reliability.jsonl, each with its trial, the command that repeats it and its seed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "bench" / "results" / "reliability.jsonl", ROOT / "docs" / "reliability.md"
Rows = list[dict[str, Any]]


class Trial(NamedTuple):
    what: str
    reach: str
    size: int
    small: int
    outcome: Callable[[Rows], tuple[str, bool]]


def _kills(rows: Rows) -> tuple[str, bool]:
    kills, different = sum(r["kills"] for r in rows), sum(len(r["different"]) > 0 for r in rows)
    unreadable = sum(r["unreadable"] for r in rows)
    text = f"{kills} kills of {len(rows)} runs in {len({r['workload'] for r in rows})} workloads"
    return f"{text}: {different} with a differing bit, {unreadable} unreadable", not different and not unreadable


def _writes(rows: Rows) -> tuple[str, bool]:
    tried, lost = sum(r["tried"] for r in rows), sum(r["lost"] for r in rows)
    return f"{tried} positions, {lost} runs lost", not lost


def _files(rows: Rows) -> tuple[str, bool]:
    bad = {k: sum(r[k] for r in rows) for k in ("crashes", "over 1 GB", "touched", "silently wrong")}
    inputs, refused = sum(r["inputs"] for r in rows), sum(r["refused"] for r in rows)
    text = f"{inputs:,} inputs, {refused:,} refused with a message; {bad['crashes']} crashes, "
    text += f"{bad['over 1 GB']} over 1 GB, {bad['touched']} ran code, {bad['silently wrong']} silently wrong"
    return text, not any(bad.values())


def _cases(rows: Rows) -> tuple[str, bool]:
    bad = {k: sum(sum(r[k].values()) for r in rows) for k in ("non_finite", "tracebacks")}
    cases, beyond = (sum(r[k] for r in rows) for k in ("cases", "beyond"))
    text = (
        f"{cases:,} cases, {bad['non_finite']} not finite, {bad['tracebacks']} tracebacks; in {beyond:,}, of boxes of "
    )
    text += "1e±30 or one unit in the last place, the true number is beyond float32"
    return text, not any(bad.values())


def _lies(rows: Rows) -> tuple[str, bool]:
    kinds, right = {r["kind"] for r in rows}, [r for r in rows if r["right"]]
    return f"{len(kinds)} kinds; {len(right)} of {len(rows)} trainings held or told", len(right) == len(rows)


def _seeds(rows: Rows) -> tuple[str, bool]:
    same = sum(not r["different"] for r in rows)
    return f"{same} of {len(rows)} pairs identical", same == len(rows)


def _endurance(rows: Rows) -> tuple[str, bool]:
    growth = [max(r["resident_mb"][1:]) / r["resident_mb"][1] - 1 for r in rows]
    files = [max(r["open_files"][1:]) - r["open_files"][1] for r in rows]
    text = f"memory after the first tenth at most {max(growth):+.1%}, open files {max(files):+.0f}"
    return text, max(growth) <= 0.01 and max(files) <= 0 and not any(r["status"] for r in rows)


def _guard(rows: Rows) -> tuple[str, bool]:
    worst = max(r["ratio"] for r in rows)
    return f"at most {worst - 1:+.1%} of an update", worst <= 1.02


TRIALS = {
    "kills": Trial(
        "`kill -9` at random moments, resumed, against the uninterrupted run; five of them on BipedalWalker-v3",
        "200 kills, 0 differing bits, 0 unreadable runs", 200, 10, _kills,
    ),
    "writes": Trial(
        "failing writes, a full disk and the process's end at every system call of saving a checkpoint",
        "every position, 0 runs lost", 10**6, 20, _writes,
    ),
    "files": Trial(
        "checkpoint and manifest files mutated at random", "100,000 inputs, 0 of each", 100_000, 300, _files
    ),
    "cases": Trial(
        "random actions, observations and spaces through distributions and adapters",
        "1,000,000 cases, 0 of each", 1_000_000, 5000, _cases,
    ),
    "lies": Trial(
        "environments that lie", "at least 25 kinds, each held right or told in one message", 220, 6, _lies
    ),
    "seeds": Trial("the same seed twice, on 1 and 2 threads, in 1 and 2 processes", "identical", 100, 2, _seeds),
    "endurance": Trial(
        "eight hours' worth of updates in fast time", "memory flat within 1 %, no file left open", 1, 50, _endurance
    ),
    "guard": Trial("looking for the first number that is not finite", "under 2 %", 240, 2, _guard),
}  # fmt: skip


def table(rows: Rows) -> str:
    lines = ["| test | reach | measured | reached | command |", "| :-- | :-- | :-- | --: | :-- |"]
    for name, trial in TRIALS.items():
        if some := [r for r in rows if r["trial"] == name]:
            text, good = trial.outcome(some)
            command = f"`python bench/reliability.py {name}`"
            lines.append(f"| {trial.what} | {trial.reach} | {text} | {'yes' if good else '**no**'} | {command} |")
    return "\n".join(lines)


def publish(rows: Rows) -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- reliability -->")
    _, _, after = rest.partition("<!-- /reliability -->")
    text = f"{before}<!-- reliability -->\n{table(rows)}\n<!-- /reliability -->{after}"
    PAGE.write_text(text, encoding="utf-8")


def kept() -> Rows:
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)}; all when left out")
    parser.add_argument("--small", action="store_true", help="a small sample of each, printed and not kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="the table alone, from the raw rows")
    given = parser.parse_args()
    if unknown := set(given.trials) - set(TRIALS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(TRIALS)}")
    if given.table:
        publish(kept())
        print(table(kept()))
        return 0
    all_rows: Rows = []
    for name in given.trials or TRIALS:
        trial, began, rows = TRIALS[name], time.perf_counter(), []
        command = f"python bench/reliability.py {name}" + (f" --seed {given.seed}" if given.seed else "")
        for row in importlib.import_module(f"trials.{name}").run(
            trial.small if given.small else trial.size, given.seed
        ):
            rows.append({"trial": name, **row, "seed": given.seed, "command": command})
            print(json.dumps(row), flush=True)
        print(f"{name}: {trial.outcome(rows)[0]} ({time.perf_counter() - began:.0f} s)", flush=True)
        all_rows += rows
        if not given.small:
            others = [r for r in kept() if r["trial"] != name]
            RESULTS.write_text("".join(json.dumps(r) + "\n" for r in others + rows), encoding="utf-8")
    if not given.small:
        publish(kept())
    print(table(all_rows))
    return (
        0
        if all(
            TRIALS[name].outcome([r for r in all_rows if r["trial"] == name])[1]
            for name in {r["trial"] for r in all_rows}
        )
        else 1
    )


if __name__ == "__main__":
    raise SystemExit(main())
