"""The table of returns: every published number, from its command to its raw row.

    python bench/returns.py                       what is missing of bench/results/returns.jsonl, then the table
    python bench/returns.py --only heliostat      rows whose name holds this word
    python bench/returns.py --again               measures afresh what is there already
    python bench/returns.py --table               the table alone, from the raw rows
    python bench/returns.py --general             Covary's rows with the fast path off, in returns_general.jsonl

The table also goes into the README, and an algorithm's rows into its page in docs/algorithms; but not --general's.

One raw row a seed: the mean return of 100 evaluation episodes (1,000 in some rows) with fixed seeds, acting
deterministically, after the last step of training (no checkpoint is picked), on Heliostat the median pointing error
over all their steps, and on CartPole how often training fell below 300 after 20 episodes in a row above 475. The table
gives the interquartile mean over the seeds with a 95 % bootstrap interval, and the worst seed.

Rows of `stream_ac` are also given as the mean return of the last 100 episodes of training, which is what its authors'
script keeps; that is run from .streaming-drl, a clone of github.com/mohmdelsayed/streaming-drl at 407dca7.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import shlex
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import peers

FOLDER = Path(__file__).parent / "results"
RESULTS, GENERAL = FOLDER / "returns.jsonl", FOLDER / "returns_general.jsonl"
HELIOSTAT = "covary/Heliostat-v0"
EVALUATION = 100  # seed of the evaluation episodes, another than settings were tried on
AUTHORS = "its authors' script:"  # of Stream AC, whose rows are the last episodes of training
TRACES = {"actor_lam": 0.8, "critic_lam": 0.8}
CORRELATED = {"exploration": "correlated"}
GEOMETRY = {"covariance": "full", "periodic": (0,)}


@dataclass(frozen=True)
class Row:
    """One line of the table: an agent on a task."""

    name: str
    env: str
    steps: int
    algo: str
    preset: str = "none"
    options: dict[str, Any] = field(default_factory=dict)
    library: str = "covary"
    reach: str = ""
    episodes: int = 100  # of the evaluation

    @property
    def metric(self) -> str:
        return "error_deg" if self.env == HELIOSTAT else "return"


ROWS = [
    Row("heliostat ppo preset", HELIOSTAT, 200_000, "ppo", "auto", GEOMETRY, reach="<= 4, every seed"),
    Row("heliostat ppo defaults", HELIOSTAT, 200_000, "ppo", "none", GEOMETRY, reach="<= 15, every seed"),
    Row("heliostat actor_critic preset", HELIOSTAT, 200_000, "actor_critic", "auto", GEOMETRY, reach="<= 12"),
    Row("heliostat actor_critic defaults", HELIOSTAT, 200_000, "actor_critic", "none", GEOMETRY),
    Row("cartpole ppo defaults", "CartPole-v1", 100_000, "ppo", reach=">= 490"),
    Row("cartpole actor_critic defaults", "CartPole-v1", 200_000, "actor_critic", reach=">= 450"),
    Row("cartpole actor_critic traces", "CartPole-v1", 100_000, "actor_critic", "none", TRACES, reach=">= 475"),
    Row("cartpole stream_ac defaults", "CartPole-v1", 200_000, "stream_ac", reach=">= 475"),
    Row("pendulum stream_ac defaults", "Pendulum-v1", 300_000, "stream_ac"),
    Row("lunarlander stream_ac defaults", "LunarLanderContinuous-v3", 1_000_000, "stream_ac"),
    Row("pendulum ppo preset", "Pendulum-v1", 100_000, "ppo", "auto", reach=">= -175"),
    Row("pendulum ppo defaults", "Pendulum-v1", 100_000, "ppo"),
    Row("cartpole a2c defaults", "CartPole-v1", 200_000, "a2c", reach=">= 475"),
    Row("pendulum a2c preset", "Pendulum-v1", 500_000, "a2c", "auto", reach=">= -180", episodes=1000),
    Row("pendulum a2c defaults", "Pendulum-v1", 500_000, "a2c", episodes=1000),
    Row("cartpole trpo defaults", "CartPole-v1", 100_000, "trpo"),
    Row("pendulum trpo defaults", "Pendulum-v1", 100_000, "trpo", reach=">= -180", episodes=1000),
    Row("heliostat sac preset", HELIOSTAT, 20_000, "sac", "auto", GEOMETRY, reach="<= 3"),
    Row("pendulum sac defaults", "Pendulum-v1", 20_000, "sac", reach=">= -155", episodes=1000),
    Row("mountaincar sac correlated", "MountainCarContinuous-v0", 50_000, "sac", "none", CORRELATED, reach=">= 90"),
    Row("pendulum td3 preset", "Pendulum-v1", 20_000, "td3", "auto", reach=">= -155", episodes=1000),
    Row("pendulum td3 defaults", "Pendulum-v1", 20_000, "td3", episodes=1000),
    Row("heliostat mpo preset", HELIOSTAT, 20_000, "mpo", "auto", GEOMETRY, reach="<= 3"),
    Row("pendulum mpo defaults", "Pendulum-v1", 50_000, "mpo", reach=">= -160", episodes=1000),
    Row("pendulum published stream_ac", "Pendulum-v1", 300_000, "stream_ac", library=AUTHORS),
    Row("lunarlander published stream_ac", "LunarLanderContinuous-v3", 1_000_000, "stream_ac", library=AUTHORS),
    Row("heliostat sb3 ppo defaults", HELIOSTAT, 200_000, "ppo", library="sb3"),
    Row("heliostat sb3 ppo our preset's gamma and lambda", HELIOSTAT, 200_000, "ppo", "auto", library="sb3"),
]


def command(row: Row, seed: int, fast: bool) -> str:
    """The command that trains what a row of Covary's measures."""
    if row.library != "covary":
        return f'python bench/returns.py --only "{row.name}"'
    words = ["covary", "train", row.env, "--algo", row.algo, "--steps", str(row.steps), "--seed", str(seed)]
    words += ["--preset", row.preset]
    for name, value in row.options.items():
        option = f"--policy.{name}" if name in GEOMETRY else f"--{name.replace('_', '-')}"
        words += [option, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return shlex.join(words + ["--no-fast"] * (not fast))


def measure(job: tuple[Row, int, bool]) -> dict[str, Any]:
    """Trains one seed of one row and evaluates it. Runs in a process of its own."""
    import torch

    torch.set_num_threads(1)
    row, seed, fast = job
    began = time.perf_counter()
    trained: list[float] = []
    if row.library == "covary":
        returns, errors = with_covary(row, seed, fast, trained)
    elif row.library == "sb3":
        returns, errors = peers.sb3(row.env, row.steps, row.preset, seed, EVALUATION)
    else:
        returns, errors = peers.streaming(row.env, row.steps, seed), np.zeros(0)
        trained += returns.tolist()
    record = {
        **asdict(row),
        "seed": seed,
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "episodes": len(returns),
        "trained_return": float(np.mean(trained[-peers.COUNTED :])) if trained else None,
        "falls": falls(trained) if row.env == "CartPole-v1" and row.library == "covary" else None,
        "error_deg_median": float(np.median(errors)) if len(errors) else None,
        "error_deg_mean": float(np.mean(errors)) if len(errors) else None,
        "seconds": round(time.perf_counter() - began, 1),
        "command": command(row, seed, fast),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    return record


def falls(returns: list[float], high: float = 475, low: float = 300, steady: int = 20) -> int:
    """How often an episode of training fell below `low` after so many in a row above `high`."""
    count, row, solved = 0, 0, False
    for ret in returns:
        if solved and ret < low:
            count, solved = count + 1, False
        row = row + 1 if ret > high else 0
        solved = solved or row >= steady
    return count


def with_covary(row: Row, seed: int, fast: bool, trained: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns and, on Heliostat, errors of the evaluation; the returns of training's episodes go into `trained`."""
    import covary
    from covary.report import Report

    add = Report.add

    def noted(self: Any, episodes: list[Any]) -> None:
        trained.extend(episode.ret for episode in episodes)
        add(self, episodes)

    Report.add = noted
    with tempfile.TemporaryDirectory() as folder:
        agent = covary.train(
            row.env, row.algo, row.steps, seed, row.preset, out=f"{folder}/run", quiet=True, fast=fast, **row.options
        )
    Report.add = add
    result = covary.evaluate(
        agent, row.env, row.episodes, seed=EVALUATION, info=("error_deg",) if row.metric == "error_deg" else ()
    )
    return result.returns, result.info.get("error_deg", np.zeros(0))


# ------------------------------------------------------------------------------------------------- the table


def rows_on_file(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def keep(record: dict[str, Any], file: Path) -> None:
    """Adds a row, in the table's order, in place of an earlier one of the same name and seed."""
    same = (record["name"], record["seed"])
    records = [r for r in rows_on_file(file) if (r["name"], r["seed"]) != same] + [record]
    order = {row.name: i for i, row in enumerate(ROWS)}
    records = sorted(records, key=lambda r: (order.get(r["name"], len(order)), r["seed"]))
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def interquartile_mean(x: np.ndarray) -> np.ndarray:
    """Mean of the middle half, fractional at its ends (Agarwal 2021). (..., n) -> (...)"""
    x, n = np.sort(x, -1), x.shape[-1]
    inside = np.clip(np.minimum(np.arange(1, n + 1), 0.75 * n) - np.maximum(np.arange(n), 0.25 * n), 0, 1)
    return (x * inside).sum(-1) / inside.sum()


def table(records: list[dict[str, Any]], algo: str = "") -> str:
    """Of one algorithm, or of all."""
    lines = ["| task | library, settings | steps | seeds | measured | 95 % interval | worst seed | to reach |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    rng = np.random.default_rng(0)
    for row in ROWS:
        mine = [r for r in records if r["name"] == row.name and algo in ("", row.algo)]
        if mine and row.library != AUTHORS:
            lines.append(line(row, mine, "error_deg_median" if row.metric == "error_deg" else "return_mean", rng))
        if mine and row.algo == "stream_ac" and row.env != "CartPole-v1" and all("trained_return" in r for r in mine):
            lines.append(line(row, mine, "trained_return", rng))
    return "\n".join(lines)


def line(row: Row, records: list[dict[str, Any]], number: str, rng: np.random.Generator) -> str:
    x = np.array([r[number] for r in records])
    boot = interquartile_mean(rng.choice(x, (10_000, len(x))))
    low, high = np.percentile(boot, [2.5, 97.5])
    error = number == "error_deg_median"
    unit, digits = ("°", 1) if error else ("", 0 if abs(x.mean()) > 100 else 1)
    form = f".{digits}f"
    settings = f"{row.library} {row.algo}, " + ("preset" if row.preset == "auto" else "defaults")
    settings += "".join(f", {name} {value:g}" for name, value in row.options.items() if name in TRACES)
    settings += ", correlated" if row.options == CORRELATED else ""
    if row.library == "sb3" and row.preset == "auto":
        settings = "sb3 ppo, our preset's γ and λ"
    what = {"error_deg_median": "median error", "return_mean": "return", "trained_return": "return in training"}[number]
    worst = x.max() if error else x.min()
    reach = row.reach if number != "trained_return" else ""
    middle, span = f"{interquartile_mean(x):{form}}{unit}", f"{low:{form}} to {high:{form}}"
    cells = [f"{row.env.split('/')[-1]}, {what}", settings, f"{row.steps // 1000}k", str(len(x)), middle, span]
    return f"| {' | '.join([*cells, f'{worst:{form}}{unit}', reach or '–'])} |"


def published(records: list[dict[str, Any]], algo: str) -> str:
    """What an algorithm's page says."""
    fell = {}
    for r in records:
        if r["algo"] == algo and r.get("falls") is not None:
            fell.setdefault(r["name"], []).append(r["falls"])
    text = table(records, algo)
    for name, counts in fell.items():
        said = ", ".join(map(str, counts)) if any(counts) else "never"
        text += f"\n\n{name}: fell below 300 after 20 episodes in a row above 475, by seed: {said}."
    return text


def publish(records: list[dict[str, Any]]) -> None:
    """Puts the tables where users read them: all of it into the README, an algorithm's rows into its page."""
    root = Path(__file__).parent.parent
    for page in (root / "README.md", *sorted((root / "docs" / "algorithms").glob("*.md"))):
        before, mark, rest = page.read_text(encoding="utf-8").partition("<!-- returns -->")
        _, _, after = rest.partition("<!-- /returns -->")
        text = table(records) if page.name == "README.md" else published(records, page.stem)
        if mark:
            page.write_text(f"{before}{mark}\n{text}\n<!-- /returns -->{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 100 on: none that settings were tried on")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--general", action="store_true")
    args = parser.parse_args()
    file = GENERAL if args.general else RESULTS
    if not args.table:
        chosen = [row for row in ROWS if args.only in row.name and (row.library == "covary" or not args.general)]
        records = rows_on_file(file)
        there = set() if args.again else {(r["name"], r["seed"]) for r in records}
        seeds = range(100, 100 + args.seeds)
        jobs = [(row, k, not args.general) for row in chosen for k in seeds if (row.name, k) not in there]
        with multiprocessing.get_context("spawn").Pool(args.jobs, maxtasksperchild=4) as pool:
            for record in pool.imap_unordered(measure, jobs):
                keep(record, file)  # row by row: what was measured is never lost
                value = record["error_deg_median"] if record["error_deg_median"] is not None else record["return_mean"]
                print(f"{record['name']}, seed {record['seed']}: {value:.2f} in {record['seconds']:.0f} s", flush=True)
    records = rows_on_file(file)
    print(table(records))
    if not args.general:
        publish(records)


if __name__ == "__main__":
    main()
