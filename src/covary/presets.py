"""Settings for known environments: one table. Explicit options go before them; `--preset none` turns them off.

Keys with a dot belong to the policy or the critic. `source` says where the values come from.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("covary/Heliostat-v0", "ppo"): {
        "source": "an action touches only its own step's reward, so gamma 0 is exact; azimuth is a circle",
        "gamma": 0.0,
        "lam": 0.0,
        "minibatch": 128,
        "policy.periodic": (0,),
    },
    ("covary/Heliostat-v0", "actor_critic"): {
        "source": "an action touches only its own step's reward, so gamma 0 is exact; azimuth is a circle",
        "gamma": 0.0,
        "n_envs": 8,
        "actor_lr": 3e-4,
        "critic_lr": 1e-3,
        "policy.periodic": (0,),
    },
    ("Pendulum-v1", "ppo"): {
        "source": "gamma 0.9 as in rl-baselines3-zoo",
        "gamma": 0.9,
    },
}


def find(env_name: str, algo: str) -> dict[str, Any]:
    """The preset of a known environment, without its source; empty for all others."""
    return {k: v for k, v in PRESETS.get((env_name, algo), {}).items() if k != "source"}


def source(env_name: str, algo: str) -> str:
    return str(PRESETS[env_name, algo]["source"])
