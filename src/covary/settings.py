"""What the user says, settled into one set of settings: defaults, then the preset, then explicit options."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from covary import algorithms, presets
from covary.agent import CriticConfig
from covary.envs.vectors import Vectorization
from covary.errors import UsageError, check_choice, check_sizes, check_switches
from covary.heads import PolicyConfig


@dataclass(frozen=True)
class RunOptions:
    """What holds for any algorithm."""

    algo: str = "ppo"
    """ppo, a2c, trpo, actor_critic, stream_ac, sac, td3, ddpg or mpo"""
    steps: int = 100_000
    """transitions over all environments, rounded up to one step of all"""
    seed: int = 0
    """decides every random number of the run"""
    out: str | None = None
    """the run's folder; runs/ENV-ALGO-SEED-TIME when left out"""
    preset: Literal["auto", "none"] = "auto"
    """auto: the settings kept for a known environment, announced; none: plain defaults"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU only for a torso of your own; small networks are faster without"""
    vectorization: Vectorization = "auto"
    """auto: the environment's own tensors on a GPU, its own vector version, else sync or async, whichever a short look
    at its step time says; sync: one after another in this process; async: in shares, over a process for each core;
    tensors: all at once on the device, where the environment offers that"""
    eval_every: int = 0
    """transitions between evaluations, of which the best checkpoint is kept; 0 for none"""
    eval_episodes: int = 20
    """episodes of each evaluation"""
    save_every: int = 0
    """transitions between checkpoints; 0 for a tenth of the run"""
    fast: bool = True
    """kernels in place of PyTorch's operations wherever they know the networks, the policy and the device"""
    profile: bool = False
    """print where the time went, and write it to the run's profile.json"""
    on_nonfinite: Literal["stop", "skip", "rollback"] = "stop"
    """at the first number that is not finite. stop: with a message that names where it was born; skip: without the step
    or minibatch it was met in; rollback: from the last checkpoint, at half the learning rate, five times at the most"""
    restart_workers: bool = False
    """whether a process of environments that dies is followed by another, which replays their episodes' actions"""
    init_from: str | None = None
    """a run or checkpoint to start from: the same mean and the same spread, under this run's covariance"""

    def __post_init__(self) -> None:
        for name in ("out", "init_from"):  # a Path becomes text, as config.json keeps it
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, str(path))
        check_choice("preset", self.preset, ("auto", "none"))
        check_choice("device", self.device, ("auto", "cpu", "cuda"))
        check_choice("on_nonfinite", self.on_nonfinite, ("stop", "skip", "rollback"))
        check_choice("vectorization", self.vectorization, ("auto", "sync", "async", "tensors"))
        check_switches(self)
        check_sizes("steps", (self.steps,))
        check_sizes("eval_episodes", (self.eval_episodes,))
        if not (isinstance(self.seed, int) and self.seed >= 0):
            raise UsageError("seed must be a whole number, 0 or above.", given=self.seed)
        for name in ("eval_every", "save_every"):
            if not (isinstance(value := getattr(self, name), int) and value >= 0):
                raise UsageError(f"{name} must be a whole number, 0 or above.", given=value)


@dataclass(frozen=True)
class Settings:
    """All of a run's settings but its environment."""

    run: RunOptions
    config: Any
    policy: PolicyConfig
    critic: CriticConfig
    preset: dict[str, Any]  # what the preset set, by name


def settle(env_name: str, options: dict[str, Any]) -> Settings:
    """Defaults, the preset of `env_name`, and the user's options on top.

    options: fields of RunOptions, of the algorithm's Config and of PolicyConfig by their plain names; `policy` and
    `critic` as a dict, or as a config, of which only what differs from PolicyConfig() or CriticConfig() counts (preset
    and algorithm decide the rest, and a dict can say what a config cannot); dotted names such as "policy.hidden".

    Raises:
        UsageError: a name that is none of these, with the nearest; a value that does not fit.
    """
    module = algorithms.find(options.get("algo", "ppo"))
    preset = presets.find(env_name, options.get("algo", "ppo")) if options.get("preset", "auto") == "auto" else {}
    given = _flatten(options, module.Config)
    if "beta" in np.ravel(given.get("policy.bounds", ())).tolist():
        preset.pop("policy.init_std", None)  # of a Gaussian, and as wide as no Beta with one peak is
    rooms = {"run": RunOptions, "config": module.Config, "policy": PolicyConfig, "critic": CriticConfig}
    values: dict[str, dict[str, Any]] = {room: {} for room in rooms}
    for name, value in (module.DEFAULTS | _flatten(preset, module.Config) | given).items():
        room, _, field = name.rpartition(".")
        values[room][field] = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    try:
        made = {room: cls(**values[room]) for room, cls in rooms.items()}
    except TypeError as error:  # a value of the wrong type met a comparison
        raise UsageError("An option has a value of the wrong type.", given=str(error)) from error
    config: Any = made["config"]
    if "config.correlation_time" in given and config.exploration != "correlated":
        raise UsageError(
            "correlation_time is of noise that is correlated in time.",
            given=f'correlation_time {config.correlation_time} with exploration="{config.exploration}"',
            fix='exploration="correlated", or leave correlation_time out',
        )
    left = {k: v for k, v in preset.items() if not set(_flatten({k: v}, module.Config)) & set(given)}
    return Settings(**made, preset=left)


def _names(cls: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def _flatten(options: dict[str, Any], config: Any) -> dict[str, Any]:
    """Every option under the name of its room: run.steps, config.gamma, policy.hidden, critic.hidden."""
    rooms = {"run": _names(RunOptions), "config": _names(config)}
    nested = {"policy": _names(PolicyConfig), "critic": _names(CriticConfig)}
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if name in nested:
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                plain_config = PolicyConfig() if name == "policy" else CriticConfig()
                value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
                value = {k: x for k, x in value.items() if x != getattr(plain_config, k, dataclasses.MISSING)}
            if not isinstance(value, dict):
                raise UsageError(
                    f"{name} is a dict of its options.", given=repr(value), fix=f'{name}={{"hidden": (64, 64)}}'
                )
            for key, inner in value.items():
                flat[_known(f"{name}.{key}", {f"{name}.{n}" for n in nested[name]})] = inner
            continue
        plain = name.replace("-", "_")
        room = next((r for r, names in (rooms | nested).items() if plain in names and "." not in plain), None)
        if room is not None:
            flat[f"{room}.{plain}"] = value
        else:
            everything = {n for names in rooms.values() for n in names}
            everything |= {f"{r}.{n}" for r, names in nested.items() for n in names}
            flat[_known(plain, everything)] = value
    return flat


def _known(name: str, names: set[str]) -> str:
    if name in names:
        return name
    others = [algo for algo in algorithms.NAMES if name in _names(algorithms.find(algo).Config)]
    if others:
        raise UsageError(
            "An option must be one that the algorithm or policy has.",
            given=name,
            cause=f"an option of {', '.join(others)}",
            fix=f"leave it out, or take {'that algorithm' if len(others) == 1 else 'one of those algorithms'}",
        )
    near = difflib.get_close_matches(name, sorted(names), n=1)
    raise UsageError(
        "An option must be one that the algorithm or policy has.",
        given=name,
        fix=f"did you mean {near[0]}?" if near else "",
    )
