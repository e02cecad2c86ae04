"""What being watched costs: plain time beside time under the doctor, in turn, in CPU seconds.

    python bench/doctor.py                 all workloads, five rounds, into bench/results/doctor.jsonl, and the table
    python bench/doctor.py --table         the table alone, from the raw rows

Inside the window: updates 20 to 190, in blocks of 10. After it: updates 2,000 to 6,000, in blocks of 200, in each of
which the doctor glances at a few. Of a run the median block counts, since such machines are noisy; of the rounds the
median ratio. Start-up: until the script's first line, beyond that of a Python that imports PyTorch. Memory: the growth
of the peak between update 1,000 and update 100,000.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "doctor.jsonl"
WORKLOADS = ("online", "policy-gradient", "regression")
WINDOW, AFTER = range(20, 191, 10), range(2_000, 6_001, 200)
MARKS = {*WINDOW, *AFTER, 1_000}


def work(name: str, updates: int) -> None:
    """One workload, plain PyTorch as a user would write it; prints the CPU time at each mark."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    actor = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    critic = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    log_std = nn.Parameter(torch.zeros(2))
    actor_optimizer = torch.optim.Adam([*actor.parameters(), log_std], lr=1e-4)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)

    def online() -> None:
        obs, next_obs = torch.randn(2, 4, generator=generator)
        dist = torch.distributions.Normal(actor(obs), log_std.exp())
        action = dist.sample()
        reward = -float((action - obs[:2]).pow(2).sum())
        value = critic(obs).squeeze()
        with torch.no_grad():
            target = reward + 0.9 * critic(next_obs).squeeze()
        delta = target - value
        actor_loss = -(dist.log_prob(action).sum() * delta.detach())
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()
        critic_optimizer.zero_grad()
        delta.pow(2).backward()
        critic_optimizer.step()

    def policy_gradient() -> None:
        obs = torch.randn(256, 4, generator=generator)
        dist = torch.distributions.Normal(actor(obs), log_std.exp())
        action = dist.sample()
        reward = -(action - obs[:, :2]).pow(2).sum(-1)
        value = critic(obs).squeeze(-1)
        advantage = reward - value.detach()
        loss = -(dist.log_prob(action).sum(-1) * advantage).mean() + (value - reward).pow(2).mean()
        actor_optimizer.zero_grad()
        critic_optimizer.zero_grad()
        loss.backward()
        actor_optimizer.step()
        critic_optimizer.step()

    def regression() -> None:
        obs = torch.randn(512, 4, generator=generator)
        loss = nn.functional.mse_loss(critic(obs).squeeze(-1), obs.pow(2).sum(-1))
        critic_optimizer.zero_grad()
        loss.backward()
        critic_optimizer.step()

    update = {"online": online, "policy-gradient": policy_gradient, "regression": regression}[name]
    print("begun", time.process_time(), file=sys.stderr)
    for i in range(updates + 1):
        if i in MARKS:
            print("mark", i, time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
        update()
    print("end", updates, time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)


def median_block(at: dict[int, tuple[float, int]], marks: range) -> float:
    """The CPU time of the median block between marks, in seconds an update."""
    times = [at[mark][0] for mark in marks]
    return statistics.median((b - a) / marks.step for a, b in itertools.pairwise(times))


def measure(name: str, watched: bool, updates: int) -> dict:
    command = [sys.executable, *(["-m", "covary.doctor", "--json"] if watched else []), __file__, "--work", name]
    run = subprocess.run(
        [*command, "--updates", str(updates)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    said = [line.split() for line in run.stderr.splitlines()]
    at = {int(words[1]): (float(words[2]), int(words[3])) for words in said if words and words[0] in ("mark", "end")}
    begun = next(float(words[1]) for words in said if words and words[0] == "begun")
    row = {"workload": name, "watched": watched, "updates": updates, "start-up s": begun}
    row["window s"] = median_block(at, WINDOW)
    if AFTER[-1] in at:
        row["after s"] = median_block(at, AFTER)
    row["peak at 1,000, MB"], row["peak at the end, MB"] = at[1_000][1] / 1024, at[updates][1] / 1024
    return row


def table(rows: list[dict]) -> str:
    lines = [
        "| workload | in the window | after it | start-up | peak memory from update 1,000 to 100,000 |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in WORKLOADS:
        pairs = {}
        for row in rows:
            if row["workload"] == name and row["updates"] <= 10_000:
                pairs.setdefault(row["round"], {})[row["watched"]] = row
        both = [pair for pair in pairs.values() if len(pair) == 2]
        if not both:
            continue

        def spread(key: str, both: list[dict] = both) -> str:
            ratios = sorted(pair[True][key] / pair[False][key] for pair in both)
            return f"{statistics.median(ratios):.2f} × ({ratios[0]:.2f} to {ratios[-1]:.2f})"

        start = statistics.median(pair[True]["start-up s"] - pair[False]["start-up s"] for pair in both)
        long = [row for row in rows if row["workload"] == name and row["updates"] > 10_000 and row["watched"]]
        grown = f"+{long[-1]['peak at the end, MB'] - long[-1]['peak at 1,000, MB']:.0f} MB" if long else "–"
        lines.append(f"| {name} | {spread('window s')} | {spread('after s')} | {start:+.2f} s | {grown} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=WORKLOADS)
    parser.add_argument("--updates", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.work:
        work(options.work, options.updates)
        return
    if not options.table:
        rows = []
        for turn in range(options.rounds):
            for name in WORKLOADS:
                for watched in (False, True):
                    rows.append({"round": turn, **measure(name, watched, options.updates)})
                    print(json.dumps(rows[-1]), flush=True)
        rows.append({"round": 0, **measure("regression", True, 100_000)})
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
