"""Equal agents, of which one learns by the kernels: what both paths know, and how near they have to stay."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from covary import algorithms
from covary.agent import Agent, CriticConfig
from covary.fast.path import FastPath
from covary.heads import PolicyConfig
from covary.types import Rollout

OBS = 5
FULL, STATE = {"covariance": "full"}, {"state_dependent": True}
SUN = Box(np.array([0, 0], np.float32), np.array([2 * np.pi, 1.5], np.float32))
MIXED = Box(np.array([0, -1, 0, -np.inf, -2, -3], np.float32), np.array([4, 1, np.inf, 1, 2, np.inf], np.float32))
MIX = {"periodic": (0,), "bounds": ("auto", "squash", "auto", "auto", "free", "auto")}
WORDS = {"bounds": ("squash", "clip", "mean")}
MATRIX = {"covariance": "fixed", "covariance_matrix": (0.5, 0.1, 0.05, 0.1, 0.3, -0.1, 0.05, -0.1, 0.4)}


def box(d):
    return Box(-1, 2, (d,))


def own_torso():
    return nn.Sequential(
        nn.Identity(),
        nn.Sequential(nn.Linear(OBS, 7, bias=False), nn.Tanh(), nn.Identity()),
        nn.Linear(7, 5),
        nn.Linear(5, 6, bias=False),
        nn.ReLU(inplace=True),
    )


POLICIES = {
    "2 choices": (Discrete(2), {}),
    "3 choices": (Discrete(3), {"hidden": (8, 8)}),
    "5 choices": (Discrete(5), {}),
    "diagonal": (box(2), {}),
    "diagonal state": (box(2), STATE),
    "full": (box(3), FULL),
    "full state": (box(3), FULL | STATE),
    "full of one": (box(1), FULL),
    "fixed": (box(3), {"covariance": "fixed"}),
    "fixed variances": (box(2), {"covariance": "fixed", "covariance_matrix": (0.5, 0.2)}),
    "fixed matrix": (box(3), MATRIX),
    "fixed matrix clip": (box(3), MATRIX | {"bounds": ("clip", "squash", "free")}),
    "free": (Box(-np.inf, np.inf, (2,)), FULL),
    "half": (Box(np.array([0, -np.inf], np.float32), np.array([np.inf, 1], np.float32)), FULL),
    "wrap": (SUN, FULL | {"periodic": (0,)}),
    "wrap state": (SUN, FULL | STATE | {"periodic": (0,)}),
    "wrap wide": (SUN, FULL | {"periodic": (0,), "init_std": (0.4, 0.2)}),
    "wrap two": (SUN, {"periodic": (0, 1), "init_std": (0.05, 0.3)}),
    "wrap two state": (SUN, STATE | {"periodic": (0, 1)}),
    "clip": (box(3), {"bounds": "clip"}),
    "clip wide state": (box(2), STATE | {"bounds": "clip", "init_std": 1.0}),
    "clip half": (Box(0, np.inf, (2,)), {"bounds": "clip"}),
    "clip full": (box(3), FULL | WORDS),
    "clip full state": (box(3), FULL | STATE | WORDS),
    "mean": (box(3), FULL | {"bounds": "mean"}),
    "mean state": (box(2), STATE | {"bounds": "mean"}),
    "mixed": (MIXED, FULL | MIX),
    "mixed state": (MIXED, FULL | STATE | MIX),
    "mixed clip": (MIXED, {"periodic": (0,), "bounds": ("auto", "clip", "clip", "auto", "mean", "free")}),
    "tanh": (box(2), {"activation": "tanh", "hidden": (7, 5, 9)}),
    "relu": (box(2), {"activation": "relu", "hidden": (13, 6)}),
    "a larger mean": (box(2), STATE | {"mean_scale": 3.0}),
    "wide": (box(2), FULL | {"activation": "relu", "hidden": (150, 130)}),
    "elu": (box(2), {"activation": "elu", "hidden": (7, 5, 9)}),
    "one unit": (box(2), {"activation": "elu", "hidden": (1,)}),
    "no hidden layer": (box(2), FULL | STATE | {"hidden": ()}),
    "leaky": (box(2), {"activation": "leaky_relu", "hidden": (7, 5, 9)}),
    "layer norm": (box(2), STATE | {"activation": "leaky_relu", "layer_norm": True, "hidden": (12, 7)}),
    "layer norm tanh": (Discrete(3), {"activation": "tanh", "layer_norm": True, "hidden": (9,)}),
    "own torso": (box(2), FULL | {"torso": own_torso}),
    "own torso choices": (Discrete(3), {"torso": own_torso}),
}


def agent_of(algo, space, policy=None, *, n=4, **options):
    """An untrained agent with every parameter moved away from where it starts."""
    policy = {"hidden": (6, 5)} | (policy or {})
    torso = policy.pop("torso", lambda: None)
    usual = {"minibatch": 50, "horizon": 32, "epochs": 1, "target_kl": 0.0, "learning_rate": 1e-3}
    others = {
        "actor_critic": {"actor_lr": 1e-3, "critic_lr": 2e-3},
        "a2c": {"horizon": 7, "actor_lr": 1e-3, "critic_lr": 2e-3},
        "trpo": {"minibatch": 50, "horizon": 32, "critic_epochs": 1},
        "stream_ac": {},
    }
    usual = others.get(algo, usual)
    config = algorithms.find(algo).Config(n_envs=n, **usual | options)
    norm = policy.get("layer_norm", False)
    critic = CriticConfig(hidden=policy["hidden"], activation=policy.get("activation", "tanh"), layer_norm=norm)
    torch.manual_seed(2)
    spaces = Box(-np.inf, np.inf, (OBS,)), space
    agent = Agent(algo, *spaces, config=config, policy=PolicyConfig(**policy), critic=critic, torso=torso(), seed=3)
    vector = agent.learner.optimizer.vector
    vector += 0.2 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(1))
    return agent


def rollout_of(agent, t, n, rng):
    """t steps of n environments under this agent, with ends, cuts and steps that never happened."""

    def tensor(x):
        return torch.as_tensor(np.asarray(x, np.float32))

    obs, next_obs = (0.5 + rng.standard_normal((2, t, n, OBS))).astype(np.float32)
    latent = np.stack([agent.sample(obs[i])[0] for i in range(t)])
    ended = rng.random((t, n)) < 0.15
    discount = np.where(ended & (rng.random((t, n)) < 0.5), 0, 0.99)
    valid = rng.random((t, n)) > (0.1 if n > 1 else 0)
    reward = rng.standard_normal((t, n)) * np.where(rng.random((t, n)) < 0.05, 30, 1)
    rest = (tensor(x) for x in (reward, discount, ~ended, valid, next_obs))
    return Rollout(tensor(obs), torch.from_numpy(latent), *rest)


def both(algo, *arguments, **options):
    """Two equal agents and the fast path of the second, which learns by it."""
    general, ours = (agent_of(algo, *arguments, **options) for _ in range(2))
    path = FastPath(ours.learner)
    ours.learner.fast = path
    return general, ours, path


def layers(*between):
    return nn.Sequential(nn.Linear(OBS, OBS), *between, nn.Linear(OBS, OBS), nn.Tanh())


def bits(agent):
    return {name: array.tobytes() for name, array in agent.state()[0].items()}


# Adam divides by the root of the squared gradient, so an entry whose true gradient is 0 moves at the full rate in a
# direction that round-off chose. Each tensor is therefore compared as a whole, by the norm of the difference over that
# of what it moved, and observations are kept where no tanh saturates: 1 - y^2 has no digits there, in either path.

PER_UPDATE, UPDATES = 1e-5, 10


def assert_close(ours, general, tolerance, what):
    ours, general = (np.asarray(x, np.float64) for x in (ours, general))
    off = np.linalg.norm(ours - general)
    assert off <= tolerance * np.linalg.norm(general) + 1e-12, f"{what}: {off:.1e} off {np.linalg.norm(general):.1e}"


def run_both(algo, n, general, ours, path):
    """The same batches into both; what each logged, summed over updates. Says that all they remember agrees."""
    rng, start = np.random.default_rng(0), general.learner.optimizer.vector.clone()
    logged, sums = {}, np.zeros(3)
    for update in range(UPDATES):
        rollout = rollout_of(general, general.learner.horizon, n, rng)
        ours.learner.generator.set_state(general.learner.generator.get_state())
        lines = [general.learner.update(rollout, update / UPDATES)]
        if algo != "actor_critic":
            lines.append(ours.learner.update(rollout, update / UPDATES))
        else:
            table = torch.cat([*rollout[2:6], torch.zeros(1, n)]).numpy()
            latent = rollout.latent[0].float().numpy().copy()
            before = sums.copy()
            assert path.learn(rollout.obs[0].numpy(), latent, table, rollout.next_obs[0].numpy(), sums)
            lines.append(dict(zip(("actor_loss", "critic_loss"), sums - before, strict=False)) if lines[0] else {})
        for name in lines[0].keys() | lines[1].keys():
            sizes = [float(line[name]) for line in lines]
            logged.setdefault(name, []).append(sizes)
    theirs, mine = general.learner.optimizer, ours.learner.optimizer
    assert theirs.steps == mine.steps > 0
    begin, most = 0, PER_UPDATE * UPDATES
    for network in (general.policy, general.learner.critic):
        for name, parameter in network.named_parameters():
            part = slice(begin, begin := begin + parameter.numel())
            for kind in ("first", "second") if hasattr(mine, "first") else ():
                assert_close(getattr(mine, kind)[part], getattr(theirs, kind)[part], most, f"{kind} moment of {name}")
            if mine.traces is not None:
                traces = [each.traces.vectors[:, part] for each in (mine, theirs)]
                assert_close(*traces, most, f"trace of {name}")
            moved = [(each.vector - start)[part] for each in (mine, theirs)]
            assert_close(*moved, most, name)
    for name, pairs in logged.items():
        a, b = np.transpose(pairs)
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * np.abs(a).max() + 1e-6, err_msg=name)
    for name, buffer in general.policy.normalizer.state_dict().items():
        np.testing.assert_allclose(ours.policy.normalizer.state_dict()[name], buffer, rtol=1e-6, err_msg=name)
    for name in ("running", "carry"):
        scale = [getattr(each.learner.reward_scale, name) for each in (ours, general)]
        np.testing.assert_allclose(*scale, rtol=1e-6, atol=1e-12, err_msg=name)
    return logged
