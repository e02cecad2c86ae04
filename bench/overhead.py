"""What training costs beside the environment itself: Covary and others on the same workloads, on one core.

    python bench/overhead.py                              every table, about 20 minutes on a free core
    python bench/overhead.py --workload ppo-A cartpole    workloads whose name holds one of these words
    python bench/overhead.py --quick                      an iteration or two of each, to see that everything runs
    python bench/overhead.py --table                      the tables alone, from the raw rows

Each measurement has a process of its own, on one core with one thread; the systems take turns (A B C D, A B C D, ...),
so that a ratio compares what ran within a minute or two:

    environment       random actions, drawn beforehand; bare for `online`, else in gymnasium's SyncVectorEnv
    covary            covary.train with preset="none" and vectorization="sync", as a user calls it: metrics are written,
                      a checkpoint every 10,000 steps as in a run of the default length, and observations and rewards
                      are standardised, none of which the others do
    covary-general    the same with fast=False
    hand-written      the eager PyTorch loops in yardstick/by_hand.py
    sb3, sbx          the algorithm of Stable-Baselines3 and of SBX (JAX), on the CPU with DummyVecEnv, as documented;
                      SBX in the virtual environment .venv-sbx, which `make sbx` makes, and without A2C
    covary-full       ppo-A on HalfCheetah, where D = 6, with a full covariance for the diagonal one
    covary-two-cores  PPO on HalfCheetah with two cores, vectorization="auto" and as many threads as it likes
    covary-profile    once for each workload, profile=True: where the time goes; in no ratio, since looking costs time

    online   actor-critic, one environment, one update after every step; 2-D point mass (full covariance; by hand
             MultivariateNormal with a diagonal factor) and CartPole; 32-32 or 256-256 tanh
    ppo-A    8 environments x 256 steps, minibatches of 64, 10 epochs; 64-64 tanh for actor and critic
    ppo-B    64 environments x 32 steps, minibatches of 512, 4 epochs; the same networks
    a2c      8 environments x 5 steps, lambda 1; the same networks; SB3 with RMSProp, its default

    sac      one environment, one update after every step from step 100 on, batches of 256; 256-256 ReLU for the
             policy and the two critics

Learning rate 3e-4 (online: 1e-4 and 5e-4, a2c: 7e-4), gamma 0.99, lambda 0.95.

Every environment carries the same stopwatch. It reads the clocks when the first step of an iteration arrives, once
after the warm-up and once after the last measured iteration. What is between the two is whole iterations, acting and
updates; starting up, the warm-up and the end are not. The added time per step is 1 / (steps per CPU-second) less the
environment's own of that round. Ratios are of steps per CPU-second, on two cores of steps per wall-second: medians,
lowest and highest over rounds.

The time to the first update is from the parent's starting the process to the first step after that update. Compiled
kernels go to a folder that is new and empty in each round of a workload: `nothing cached` is `covary train` with it so,
on all cores as a user has it, from the command to its first line of metrics; everything else is measured with what that
start left there. Peak memory is the whole process's.

A full run replaces bench/results/overhead.jsonl, one line for each measurement with the command that repeats it, and
the tables in README.md and docs/performance.md. A part of the table, or a quick run, is kept only where --out says.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yardstick import tables
from yardstick.measuring import in_a_process, measure, missing
from yardstick.systems import SYSTEMS
from yardstick.workloads import Workload, workloads

STARTED = time.time()  # of a measurement that no parent timed
RESULTS = Path(__file__).parent / "results" / "overhead.jsonl"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rounds(wanted: list[Workload], number: int, quick: bool, left_out: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The rows, as they are measured; one with an `error` and nothing measured where a system failed."""
    for w in wanted:
        for k in range(number):
            with tempfile.TemporaryDirectory() as cache:
                for system in w.systems:
                    if system in left_out or (system == "covary-profile" and k):
                        continue
                    row = {"workload": w.name, "system": system, "round": k}
                    try:
                        yield row | in_a_process(w, system, quick, cache)
                    except RuntimeError as error:
                        yield row | {"error": str(error)}


def line(row: dict[str, Any]) -> str:
    head = f"{row['workload']}  {row['system']}  round {row['round']}: "
    if "error" in row:
        return f"{head}failed: {row['error']}"
    text = f"{head}{row['steps_per_wall_second']:,.0f} steps/s"
    if row["first_update_seconds"] is not None:
        text += f", first update after {row['first_update_seconds']:.1f} s"
    if "first_update_cold_seconds" in row:
        text += f" ({row['first_update_cold_seconds']:.1f} s with nothing cached)"
    return text


def show(rows: list[dict[str, Any]]) -> None:
    for text in (tables.of_each(rows), tables.to_reach(rows), tables.breakdown(rows)):
        if text:
            print(f"\n{text}")


def publish(rows: list[dict[str, Any]]) -> None:
    """Puts the tables where users read them."""
    root = Path(__file__).parent.parent
    goals = "\n\n".join((tables.to_reach(rows), tables.breakdown(rows)))
    for page, mark, text in (
        (root / "README.md", "speed", tables.in_short(rows)),
        (root / "docs" / "performance.md", "overhead", goals),
    ):
        before, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark} -->")
        _, _, after = rest.partition(f"<!-- /{mark} -->")
        page.write_text(f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each system (default 3)")
    parser.add_argument("--workload", nargs="+", metavar="NAME", help="those whose name holds one of these words")
    parser.add_argument("--quick", action="store_true", help="one round of a few steps, to see that everything runs")
    parser.add_argument("--out", type=Path, help=f"raw rows (default for a full run: {RESULTS.name} in bench/results)")
    parser.add_argument("--table", action="store_true", help="the tables alone, from --out or the last full run")
    parser.add_argument("--measure", choices=SYSTEMS, help="one measurement of one system in this process, as JSON")
    parser.add_argument("--began", type=float, default=STARTED, help=argparse.SUPPRESS)
    given = parser.parse_args()
    every = workloads(given.quick)
    wanted = [w for w in every if any(word.lower() in w.name.lower() for word in given.workload or [""])]
    if not wanted or given.rounds < 1 or (given.measure and len(wanted) > 1):
        parser.error(f"--workload names one of: {', '.join(w.name for w in every)}; --rounds is 1 or more")
    if given.measure:
        w = wanted[0] if given.quick else wanted[0].sized(given.measure)
        print(json.dumps(measure(w, given.measure, given.began)))
        return 0
    if given.table:
        rows = [json.loads(text) for text in (given.out or RESULTS).read_text(encoding="utf-8").splitlines()]
        show(rows)
        if not given.out:
            publish(rows)
        return 0
    left_out = missing(wanted)
    for what, why in left_out.items():
        say(f"{what} is left out: {why}")
    wanted = [w for w in wanted if w.env_id not in left_out]
    out = given.out or (None if given.quick or given.workload else RESULTS)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("", encoding="utf-8")
    rows, failed = [], False
    for row in rounds(wanted, 1 if given.quick else given.rounds, given.quick, left_out):
        say(line(row))
        if "error" in row:
            failed = True
            continue
        rows.append(row)
        if out:  # row by row: what was measured is never lost
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    show(rows)
    if out == RESULTS:
        publish(rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
