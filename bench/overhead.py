"""What training costs beside the environment itself, in CPU time per environment step.

    python bench/overhead.py                              the whole table, about 10 minutes on a free core
    python bench/overhead.py --workload ppo-A cartpole    workloads whose name holds one of these words
    python bench/overhead.py --quick                      one iteration or so of each, to see that everything runs

Four systems run the same workload, each measurement in a process of its own on one core with one thread, one system
after the other (A B C D, A B C D, ...), so that a ratio compares what ran within a minute:

    environment   random actions, drawn beforehand, through gymnasium's SyncVectorEnv; the bare environment for `online`
    covary        covary.train with preset="none" and vectorization="sync", as a user calls it: metrics are written, a
                  checkpoint every 10,000 steps as in a run of the default length, and observations and rewards are
                  standardised, none of which the others do
    hand-written  the eager PyTorch loop in this file, in the style of CleanRL
    sb3           Stable-Baselines3's PPO on the CPU with DummyVecEnv, as its documentation starts; not for `online`

    ppo-A         8 environments x 256 steps, minibatches of 64, 10 epochs
    ppo-B         64 environments x 32 steps, minibatches of 512, 4 epochs
    online        actor-critic, one environment, one update after every step

Networks are 64-64 tanh for actor and critic, learning rate 3e-4 (online: 1e-4 and 5e-4), gamma 0.99, lambda 0.95.

The first environment of every system carries the same stopwatch: it reads process_time and perf_counter when the first
step of an iteration arrives, once after the warm-up and once after the last measured iteration. What is between the two
is whole iterations, acting and updates; starting up, the warm-up and the end are not. The added time per step is
1 / (steps per CPU-second) less the environment's own of that round. Ratios are medians, lowest and highest over rounds.

A full run replaces bench/results/overhead.jsonl, one line for each measurement with the command that repeats it. A part
of the table, or a quick run, is kept only where --out says.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

RESULTS = Path(__file__).parent / "results" / "overhead.jsonl"
ACTOR_LR, CRITIC_LR = 1e-4, 5e-4  # of the online loop
LR, GAMMA, LAM, CLIP, MAX_NORM = 3e-4, 0.99, 0.95, 0.2, 0.5


@dataclass(frozen=True)
class Workload:
    name: str
    env_id: str
    n_envs: int
    horizon: int  # steps of each environment in an iteration
    minibatch: int
    epochs: int
    warm: int  # iterations before the stopwatch starts
    measured: int  # iterations on it

    @property
    def online(self) -> bool:
        return self.name.startswith("online")

    @property
    def total(self) -> int:
        """Transitions until the stopwatch has stopped, which the step after the last iteration does."""
        return (self.warm + self.measured) * self.horizon * self.n_envs + self.n_envs


def workloads(quick: bool) -> list[Workload]:
    a, b, online = ((1, 1), (1, 2), (20, 200)) if quick else ((2, 6), (4, 30), (1000, 4000))
    made = []
    for env_id in ("Pendulum-v1", "CartPole-v1", "HalfCheetah-v5"):
        made.append(Workload(f"ppo-A {env_id}", env_id, 8, 256, 64, 10, *a))
        made.append(Workload(f"ppo-B {env_id}", env_id, 64, 32, 512, 4, *b))
    return [*made, Workload("online CartPole-v1", "CartPole-v1", 1, 1, 1, 1, *online)]


class Stopwatch:
    """Makes environments, the first of which notes the time at the two ends of what is measured."""

    def __init__(self, w: Workload) -> None:
        self.env_id, self.made = w.env_id, 0
        self.at = (w.warm * w.horizon, (w.warm + w.measured) * w.horizon)
        self.notes: list[tuple[float, float]] = []
        self.stopped = False

    def make(self) -> gymnasium.Env[Any, Any]:
        env = gymnasium.make(self.env_id, disable_env_checker=True)
        self.made += 1
        return Watched(env, self) if self.made == 1 else env


class Watched(gymnasium.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: gymnasium.Env[Any, Any], watch: Stopwatch) -> None:
        super().__init__(env)
        self.watch, self.count = watch, 0

    def step(self, action: Any) -> Any:
        if self.count in self.watch.at:
            self.watch.notes.append((time.process_time(), time.perf_counter()))
            self.watch.stopped = len(self.watch.notes) == 2
        self.count += 1
        return self.env.step(action)


# ----------------------------------------------------------------------------------------------- the four systems


def environment(w: Workload, watch: Stopwatch) -> None:
    same_step = AutoresetMode.SAME_STEP  # every step is then a step of the environment with the stopwatch, too
    env: Any = watch.make() if w.online else SyncVectorEnv([watch.make] * w.n_envs, autoreset_mode=same_step)
    actions = [env.action_space.sample() for _ in range(256)]
    env.reset(seed=0)
    for t in itertools.count():
        _, _, terminated, truncated, _ = env.step(actions[t % 256])
        if watch.stopped:
            return
        if w.online and (terminated or truncated):
            env.reset()


def with_covary(w: Workload, watch: Stopwatch) -> None:
    import covary

    shape: dict[str, Any] = {"policy": {"hidden": (64, 64), "activation": "tanh"}, "critic": {"hidden": (64, 64)}}
    shape |= {"gamma": GAMMA, "n_envs": w.n_envs, "vectorization": "sync", "save_every": 10_000}
    if w.online:
        algo, shape = "actor_critic", shape | {"actor_lr": ACTOR_LR, "critic_lr": CRITIC_LR}
    else:
        algo = "ppo"
        shape |= {"horizon": w.horizon, "minibatch": w.minibatch, "epochs": w.epochs, "learning_rate": LR, "lam": LAM}
        shape["target_kl"] = 0.0  # every epoch of everyone is run
    with tempfile.TemporaryDirectory() as folder:
        covary.train(watch.make, algo, w.total, preset="none", quiet=True, out=f"{folder}/run", **shape)


def with_sb3(w: Workload, watch: Stopwatch) -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    rates: dict[str, Any] = {"learning_rate": LR, "gamma": GAMMA, "gae_lambda": LAM, "clip_range": CLIP}
    shape: dict[str, Any] = {"n_steps": w.horizon, "batch_size": w.minibatch, "n_epochs": w.epochs}
    nets = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}
    venv = make_vec_env(watch.make, n_envs=w.n_envs, seed=0)
    PPO("MlpPolicy", venv, policy_kwargs=nets, seed=0, verbose=0, device="cpu", **rates, **shape).learn(w.total)


def by_hand(w: Workload, watch: Stopwatch) -> None:
    torch.manual_seed(0)
    (online_by_hand if w.online else ppo_by_hand)(w, watch)


SYSTEMS: dict[str, Callable[[Workload, Stopwatch], None]] = {
    "environment": environment,
    "covary": with_covary,
    "hand-written": by_hand,
    "sb3": with_sb3,
}


# ------------------------------------------------------------------------------------------- the loops by hand


def mlp(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    layers = [nn.Linear(inputs, 64), nn.Linear(64, 64), nn.Linear(64, outputs)]
    for layer, g in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, g)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


class Actor(nn.Module):
    """(B, O) -> a Categorical, or a Normal whose deviation does not depend on the observation."""

    def __init__(self, inputs: int, space: Any) -> None:
        super().__init__()
        self.discrete = isinstance(space, gymnasium.spaces.Discrete)
        outputs = int(space.n) if self.discrete else int(np.prod(space.shape))
        self.body = mlp(inputs, outputs, 0.01)
        self.log_std = None if self.discrete else nn.Parameter(torch.zeros(outputs))

    def forward(self, obs: Tensor) -> Distribution:
        out = self.body(obs)
        if self.log_std is None:
            return Categorical(logits=out)
        return Independent(Normal(out, self.log_std.exp().expand_as(out)), 1)


def floats(x: Any) -> Tensor:
    return torch.as_tensor(np.array(x, np.float32))


def ppo_by_hand(w: Workload, watch: Stopwatch) -> None:
    """PPO with the tricks CleanRL keeps; a truncated episode bootstraps from its last observation."""
    envs = SyncVectorEnv([watch.make] * w.n_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    space: Any = envs.single_action_space
    inputs = int(np.prod(envs.single_observation_space.shape or ()))
    actor, critic = Actor(inputs, space), mlp(inputs, 1, 1.0)
    parameters = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LR, eps=1e-5)
    seen, _ = envs.reset(seed=0)
    obs = floats(seen)
    while True:
        steps = []
        for _ in range(w.horizon):
            with torch.no_grad():
                density = actor(obs)
                action = density.sample()
                log_prob, value = density.log_prob(action), critic(obs).squeeze(-1)
            executed = action.numpy() if actor.discrete else np.clip(action.numpy(), space.low, space.high)
            raw, reward, terminated, truncated, info = envs.step(executed)
            if watch.stopped:
                return
            next_obs = last = floats(raw)
            ended = terminated | truncated
            if ended.any():
                last = next_obs.clone()
                last[torch.as_tensor(ended)] = floats(np.stack(list(info["final_obs"][ended])))
            discount, on = floats(~terminated) * GAMMA, floats(~ended)
            steps.append((obs, action, log_prob, value, floats(reward), discount, on, last))
            obs = next_obs
        columns = [torch.stack(column) for column in zip(*steps, strict=True)]
        x, action, old_log_prob, value, rewards, discount, on, last = columns
        with torch.no_grad():
            delta = rewards + discount * critic(last).squeeze(-1) - value
        advantage, carry = torch.zeros_like(delta), torch.zeros(w.n_envs)
        for t in reversed(range(w.horizon)):  # GAE
            advantage[t] = carry = delta[t] + discount[t] * LAM * on[t] * carry
        batch = [part.flatten(0, 1) for part in (x, action, old_log_prob, advantage, advantage + value)]
        for _ in range(w.epochs):
            for k in torch.randperm(w.n_envs * w.horizon).split(w.minibatch):
                x, action, old_log_prob, advantage, target = (part[k] for part in batch)
                ratio = (actor(x).log_prob(action) - old_log_prob).exp()
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                actor_loss = -torch.min(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
                critic_loss = 0.5 * (critic(x).squeeze(-1) - target).square().mean()
                optimizer.zero_grad()
                (actor_loss + 0.5 * critic_loss).backward()
                nn.utils.clip_grad_norm_(parameters, MAX_NORM)
                optimizer.step()


def online_by_hand(w: Workload, watch: Stopwatch) -> None:
    """The one-step actor-critic of Sutton & Barto 2018, sec. 13.5, with Adam."""
    env = watch.make()
    inputs = int(np.prod(env.observation_space.shape or ()))
    actor, critic = Actor(inputs, env.action_space), mlp(inputs, 1, 1.0)
    actor_adam = torch.optim.Adam(actor.parameters(), lr=ACTOR_LR)
    critic_adam = torch.optim.Adam(critic.parameters(), lr=CRITIC_LR)
    obs = floats(env.reset(seed=0)[0])
    while True:
        density = actor(obs)
        action = density.sample()
        raw, reward, terminated, truncated, _ = env.step(action.numpy())
        if watch.stopped:
            return
        next_obs = floats(raw)
        with torch.no_grad():
            target = float(reward) + GAMMA * (1 - terminated) * critic(next_obs).squeeze(-1)
        delta = target - critic(obs).squeeze(-1)
        actor_adam.zero_grad()
        critic_adam.zero_grad()
        (0.5 * delta.square() - delta.detach() * density.log_prob(action)).backward()
        nn.utils.clip_grad_norm_(actor.parameters(), MAX_NORM)
        nn.utils.clip_grad_norm_(critic.parameters(), MAX_NORM)
        actor_adam.step()
        critic_adam.step()
        obs = floats(env.reset()[0]) if terminated or truncated else next_obs


# ------------------------------------------------------------------------------------------------- measuring


def measure(w: Workload, system: str) -> dict[str, Any]:
    """One measurement, in this process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    watch = Stopwatch(w)
    SYSTEMS[system](w, watch)
    cpu, wall = (end - start for start, end in zip(*watch.notes, strict=True))
    steps = w.measured * w.horizon * w.n_envs
    row: dict[str, Any] = {"steps": steps, "cpu_seconds": cpu, "wall_seconds": wall}
    row |= {"steps_per_cpu_second": steps / cpu, "steps_per_wall_second": steps / wall, "rss_mb": None}
    if importlib.util.find_spec("resource"):  # not on Windows
        import resource

        unit = 1024**2 if sys.platform == "darwin" else 1024
        row["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    names = ["torch", "numpy", "gymnasium", "covary"] + ["stable-baselines3"] * (system == "sb3")
    row["versions"] = {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names}
    return row


def in_a_process(w: Workload, system: str, quick: bool) -> dict[str, Any]:
    words = ["bench/overhead.py", "--measure", system, "--workload", w.name] + ["--quick"] * quick
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    script = [sys.executable, str(Path(__file__).resolve()), *words[1:]]
    with tempfile.TemporaryDirectory() as folder:  # MuJoCo writes its log where it stands
        done = subprocess.run(script, cwd=folder, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1]) | {"command": shlex.join(["python", *words])}


def missing(wanted: list[Workload]) -> tuple[set[str], list[Workload]]:
    """What cannot be measured here, said once: systems to leave out, and the workloads that are left."""
    left_out: set[str] = set()
    if importlib.util.find_spec("stable_baselines3") is None and not all(w.online for w in wanted):
        say("Stable-Baselines3 is not installed: its rows are left out. Fix: `make bench`, which installs it")
        left_out = {"sb3"}
    if importlib.util.find_spec("mujoco") is None and any(w.env_id == "HalfCheetah-v5" for w in wanted):
        say('MuJoCo is not installed: HalfCheetah is left out. Fix: pip install "gymnasium[mujoco]"')
        wanted = [w for w in wanted if w.env_id != "HalfCheetah-v5"]
    return left_out, wanted


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """Medians; and what compares two systems, within a round, as markdown."""
    head = "| workload | system | steps/CPU-s | steps/wall-s | added µs/step | × SB3 | × hand-written | peak RSS, MB |"
    lines = [head, "| :-- | :-- |" + " --: |" * 6]
    speed = {(r["workload"], r["system"], r["round"]): r["steps_per_cpu_second"] for r in rows}

    def beside(mine: list[dict[str, Any]], other: str) -> list[tuple[float, float]]:
        """Speeds of a system and of another in the rounds that have both."""
        pairs = [(r["steps_per_cpu_second"], speed.get((r["workload"], other, r["round"]))) for r in mine]
        return [(a, b) for a, b in pairs if b is not None]

    for workload, system in dict.fromkeys((r["workload"], r["system"]) for r in rows):
        mine = [r for r in rows if (r["workload"], r["system"]) == (workload, system)]
        cells = [f"{statistics.median(r[f'steps_per_{k}_second'] for r in mine):,.0f}" for k in ("cpu", "wall")]
        added = [1e6 / a - 1e6 / b for a, b in beside(mine, "environment")]
        cells.append(f"{statistics.median(added):,.1f}" if added and system != "environment" else "–")
        for other in ("sb3", "hand-written"):
            ratio = [a / b for a, b in beside(mine, other)] if system != "environment" else []
            cells.append(f"{statistics.median(ratio):.2f} ({min(ratio):.2f}–{max(ratio):.2f})" if ratio else "–")
        rss = [r["rss_mb"] for r in mine if r["rss_mb"] is not None]
        cells.append(f"{statistics.median(rss):,.0f}" if rss else "–")
        lines.append(f"| {' | '.join([workload, system, *cells])} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each system (default 3)")
    parser.add_argument("--workload", nargs="+", metavar="NAME", help="those whose name holds one of these words")
    parser.add_argument("--quick", action="store_true", help="one round of a few steps, to see that everything runs")
    parser.add_argument("--out", type=Path, help=f"raw rows (default for a full run: {RESULTS.name} in bench/results)")
    parser.add_argument("--measure", choices=SYSTEMS, help="one measurement of one system in this process, as JSON")
    given = parser.parse_args()
    every = workloads(given.quick)
    wanted = [w for w in every if any(word.lower() in w.name.lower() for word in given.workload or [""])]
    if not wanted or given.rounds < 1 or (given.measure and len(wanted) > 1):
        parser.error(f"--workload names one of: {', '.join(w.name for w in every)}; --rounds is 1 or more")
    if given.measure:
        print(json.dumps(measure(wanted[0], given.measure)))
        return 0
    left_out, wanted = missing(wanted)
    out = given.out or (None if given.quick or given.workload else RESULTS)
    rows, failed = [], False
    for w, k, system in itertools.product(wanted, range(1 if given.quick else given.rounds), SYSTEMS):
        if system in left_out or (system == "sb3" and w.online):
            continue
        try:
            row = {"workload": w.name, "system": system, "round": k} | in_a_process(w, system, given.quick)
        except RuntimeError as error:
            failed = True
            say(f"{w.name}  {system}  round {k}: failed: {error}")
            continue
        rows.append(row)
        say(f"{w.name}  {system}  round {k}: {row['steps_per_cpu_second']:,.0f} steps per CPU-second")
    print(table(rows))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
