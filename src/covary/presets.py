"""Settings for known environments: one table. Explicit options go before them; `--preset none` turns them off.

Keys with a dot belong to the policy or the critic; `source` says where the values come from. What a preset reaches
beside the defaults stands in the README's table, from `bench/returns.py`.
"""

from __future__ import annotations

from typing import Any

_OWN_STEP = "an action touches only its own step's reward, so gamma 0 is exact; azimuth is a circle"

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("covary/Heliostat-v0", "ppo"): {
        "source": _OWN_STEP,
        "gamma": 0.0,
        "lam": 0.0,
        "minibatch": 128,
        "learning_rate": 1e-3,
        "policy.periodic": (0,),
    },
    ("covary/Heliostat-v0", "actor_critic"): {
        "source": _OWN_STEP,
        "gamma": 0.0,
        "n_envs": 8,
        "actor_lr": 3e-4,
        "critic_lr": 1e-3,
        "policy.periodic": (0,),
    },
    ("covary/Heliostat-v0", "sac"): {
        "source": _OWN_STEP,
        "gamma": 0.0,
        "policy.periodic": (0,),
    },
    ("covary/Heliostat-v0", "mpo"): {
        "source": _OWN_STEP,
        "gamma": 0.0,
        "critic.hidden": (256, 256),
        "policy.periodic": (0,),
    },
    ("CartPole-v1", "ppo"): {
        "source": "where the cart drifts shows only hundreds of steps later",
        "gamma": 0.99,
    },
    ("Pendulum-v1", "ppo"): {
        "source": "swinging up takes the full torque either way: a wide first policy finds it sooner",
        "policy.init_std": 0.35,
    },
    ("Pendulum-v1", "td3"): {
        "source": "twice the paper's noise: what the swing up needs is found by more of the runs",
        "policy.init_std": 0.1,
    },
    ("Pendulum-v1", "a2c"): {
        "source": "torque shows within ten steps; relu learns the swing where tanh stayed slow; a wide first policy",
        "gamma": 0.9,
        "lam": 0.9,
        "actor_lr": 1e-3,
        "critic_lr": 2e-3,
        "policy.init_std": 0.35,
        "policy.activation": "relu",
        "critic.activation": "relu",
    },
    ("LunarLanderContinuous-v3", "ppo"): {
        "source": "a landing takes hundreds of steps",
        "gamma": 0.99,
    },
}


def find(env_name: str, algo: str) -> dict[str, Any]:
    """The preset of a known environment, without its source; empty for all others."""
    return {k: v for k, v in PRESETS.get((env_name, algo), {}).items() if k != "source"}


def source(env_name: str, algo: str) -> str:
    """Where a preset's values come from."""
    return str(PRESETS[env_name, algo]["source"])
