"""How fast PPO goes when environment, policy and updates are all on one device: thousands of Heliostats at once.

    python bench/device.py                                  4096 of them on a GPU, about a minute
    python bench/device.py --device cpu --n-envs 256        a check that it runs, on any machine
    python bench/device.py --out bench/results/device.jsonl   appends the rows, with the machine's name

Three rows of steps per second, each a step of one environment:

    environment   steps of the environments alone, with one action for all of them
    collection    policy, sampling, environment and what is kept of it: nothing is learned
    ppo           covary.train as a user calls it, with its metrics; whole iterations, after the first three

PPO has the settings kept for Heliostat but for what goes with large batches: rollouts of 64 steps, which are whole
episodes, 8 minibatches an epoch, 4 epochs, learning rate 3e-3; a policy and a critic of 64-64 tanh. `return` is the
mean of the episodes that ended last, of which 64 would be perfect.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import covary
from covary.device import Collection
from covary.envs.heliostat_tensors import HeliostatTensors
from covary.profile import Profile

ENV = "covary/Heliostat-v0"
WARM = 3  # iterations that are not measured


def machine(device: str) -> str:
    """The GPU's name, or the processor's."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.platform())


def rate(run: Callable[[], None], steps: int, device: str) -> float:
    """Steps per second: the median of five runs, after one that is not measured."""
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return steps / statistics.median(seconds[1:])


def environment(given: argparse.Namespace) -> dict[str, Any]:
    env = HeliostatTensors(given.n_envs, given.device)
    env.reset(0)
    action = torch.ones(given.n_envs, 2, device=given.device)

    def run() -> None:
        for _ in range(given.horizon):
            env.step(action)

    return {"steps_per_second": rate(run, given.horizon * given.n_envs, given.device)}


def collection(given: argparse.Namespace) -> dict[str, Any]:
    env = HeliostatTensors(given.n_envs, given.device)
    options = {"n_envs": given.n_envs, "horizon": given.horizon, "device": given.device}
    agent = covary.untrained(ENV, **options)
    rows = Collection(agent.policy, env, given.horizon, Profile())
    first, generator = env.reset(0), torch.Generator(given.device)

    def run() -> None:
        obs, noise = first, agent.policy.head.noise((given.horizon, given.n_envs), generator)
        for t in range(given.horizon):
            obs = rows.step(t, obs, noise[t])

    return {"steps_per_second": rate(run, given.horizon * given.n_envs, given.device)}


def ppo(given: argparse.Namespace) -> dict[str, Any]:
    steps = given.n_envs * given.horizon * (WARM + given.iterations)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        covary.train(
            ENV,
            steps=steps,
            n_envs=given.n_envs,
            horizon=given.horizon,
            minibatch=given.minibatch or given.n_envs * given.horizon // 8,
            epochs=given.epochs,
            learning_rate=3e-3,
            target_kl=0.0,  # each iteration has the same work
            device=given.device,
            vectorization="tensors",
            fast=given.fast,
            out=out,
            quiet=True,
        )
        timing = [json.loads(line) for line in (out / "timing.jsonl").read_text(encoding="utf-8").splitlines()]
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    warm = next(line for line in timing if line["step"] >= WARM * given.n_envs * given.horizon)
    seconds = timing[-1]["seconds"] - warm["seconds"]
    returns = [line["return"] for line in metrics if line["return"] is not None]
    return {
        "steps_per_second": (timing[-1]["step"] - warm["step"]) / seconds,
        "first_iteration_seconds": timing[0]["seconds"],
        "steps": steps,
        "return": returns[-1] if returns else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--n-envs", type=int, default=4096)
    parser.add_argument("--horizon", type=int, default=64)
    parser.add_argument("--minibatch", type=int, help="transitions; an eighth of a rollout when left out")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=50, help="that are measured (default 50)")
    parser.add_argument("--fast", action="store_true", help="on a CPU, the kernels in place of PyTorch for the updates")
    parser.add_argument("--out", type=Path, help="appends the rows here; they are printed in any case")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU that torch can use; --device cpu --n-envs 256 shows that everything runs", file=sys.stderr)
        return 2
    about = {
        "machine": machine(given.device),
        "device": given.device,
        "torch": torch.__version__,
        "covary": covary.__version__,
        "threads": torch.get_num_threads(),
        "command": " ".join(["python", "bench/device.py", *sys.argv[1:]]),
    }
    sizes = {name: getattr(given, name) for name in ("n_envs", "horizon", "minibatch", "epochs", "iterations", "fast")}
    print(f"{about['machine']}, {given.device}, {given.n_envs:,} environments")
    for measure in (environment, collection, ppo):
        row = {"what": measure.__name__} | about | sizes | measure(given)
        print(f"  {row['what']:<12}{row['steps_per_second']:>14,.0f} steps/s", flush=True)
        if row.get("return") is not None:
            print(f"  {'return':<12}{row['return']:>14.2f} after {row['steps']:,} steps")
        if given.out:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
