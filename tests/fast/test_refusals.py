"""What the kernels do not know goes the general way."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete, MultiBinary, MultiDiscrete
from torch import nn
from torch.nn.utils import parametrizations, prune
from twins import FULL, OBS, SUN, agent_of, both, box, layers, rollout_of, run_both

from covary.choices import choose
from covary.fast import attach, blas
from covary.nets import RunningNorm


class Doubling(nn.Module):
    def forward(self, x):
        return 2 * x


class Stretched(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Hard(nn.Tanh):
    def forward(self, x):
        return x.clamp(-1, 1)


class Skipping(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def tied_layers():
    layer = nn.Linear(OBS, OBS)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh())


def tied(name):
    torso = layers(nn.Tanh())
    setattr(torso[2], name, getattr(torso[0], name))
    return torso


def frozen(name):
    torso = layers(nn.Tanh())
    getattr(torso[0], name).requires_grad_(False)
    return torso


def norm(**options):
    return nn.LayerNorm(OBS, elementwise_affine=False, **options)


TORSOS = {  # and why they are refused
    "layer norm that learns": (lambda: layers(nn.LayerNorm(OBS), nn.Tanh()), "LayerNorm that is learned"),
    "layer norm of another epsilon": (lambda: layers(norm(eps=1e-3), nn.Tanh()), "epsilon"),
    "layer norm after an activation": (lambda: layers(nn.Tanh(), norm()), "LayerNorm that follows no"),
    "layer norm first": (lambda: nn.Sequential(norm(), nn.Linear(OBS, OBS)), "LayerNorm that follows no"),
    "dropout": (lambda: layers(nn.Tanh(), nn.Dropout(0.5)), "Dropout"),
    "batch norm": (lambda: layers(nn.BatchNorm1d(OBS), nn.Tanh()), "BatchNorm1d"),
    "silu": (lambda: layers(nn.SiLU()), "SiLU"),
    "gelu": (lambda: layers(nn.GELU()), "GELU"),
    "another leak": (lambda: layers(nn.LeakyReLU(0.2)), "leaky ReLU"),
    "prelu": (lambda: layers(nn.PReLU()), "PReLU"),
    "another elu": (lambda: layers(nn.ELU(alpha=0.5)), "alpha"),
    "two activations": (lambda: layers(nn.Tanh(), nn.Identity(), nn.ReLU()), "follows no linear layer"),
    "activation first": (lambda: nn.Sequential(nn.Tanh(), nn.Linear(OBS, OBS)), "follows no linear layer"),
    "only an activation": (nn.Tanh, "follows no linear layer"),
    "own module": (Doubling, "Doubling"),
    "own module inside": (lambda: layers(Doubling()), "Doubling"),
    "own linear": (lambda: nn.Sequential(Stretched(OBS, OBS)), "Stretched"),
    "own tanh": (lambda: layers(Hard()), "Hard"),
    "own sequential": (lambda: Skipping(nn.Linear(OBS, OBS), nn.Tanh()), "Skipping"),
    "one layer twice": (tied_layers, "two layers share"),
    "tied weights": (lambda: tied("weight"), "two layers share"),
    "tied biases": (lambda: tied("bias"), "two layers share"),
    "frozen weight": (lambda: frozen("weight"), "frozen"),
    "frozen bias": (lambda: frozen("bias"), "frozen"),
    "all frozen": (lambda: layers(nn.Tanh()).requires_grad_(False), "frozen"),
    "weight norm": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(OBS, OBS))), "ParametrizedLinear"),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(OBS, OBS)), "ParametrizedLinear"),
}


@pytest.mark.parametrize("case", TORSOS)
def test_torsos_that_the_kernels_do_not_do_go_the_general_way(case):
    make, reason = TORSOS[case]
    agent = agent_of("ppo", box(2), {"torso": make})
    why = attach(agent)
    assert reason in why
    assert "\n" not in why
    assert agent.fast is None
    assert agent.learner.fast is None
    assert choose(agent, True)[:2] == ("general", why)
    losses = agent.learner.update(rollout_of(agent, 32, 4, np.random.default_rng(0)), 0.0)
    assert all(loss.isfinite() for loss in losses.values())


def every_module(agent):
    policy, critic = agent.policy, agent.learner.critic
    inner = [policy.torso, policy.torso[0], policy.torso[1], policy.normalizer, policy.head]
    last = policy.head.out if hasattr(policy.head, "out") else policy.head.logits
    return [policy, *inner, last, critic, critic.torso, critic.torso[0], critic.torso[1], critic.head]


@pytest.mark.parametrize("space", [Discrete(3), box(2)], ids=["choices", "box"])
@pytest.mark.parametrize(
    "register",
    ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook", "backward_hook"],
)
def test_whoever_listens_to_a_module_is_heard(register, space):
    for k in range(12):
        agent = agent_of("ppo", space)
        handle = getattr(every_module(agent)[k], f"register_{register}")(lambda *_: None)
        assert "hooks" in attach(agent), k
        handle.remove()
        assert attach(agent) is None


def test_whoever_listens_to_every_module_is_heard():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert "hooks" in attach(agent_of("ppo", box(2)))
    finally:
        handle.remove()


@pytest.mark.parametrize("space", [Discrete(3), box(2)], ids=["choices", "box"])
def test_a_method_changed_on_a_module_is_obeyed(space):
    for k in range(12):
        agent = agent_of("ppo", space)
        module = every_module(agent)[k]
        module.forward = functools.wraps(module.forward)(lambda x, was=module.forward: was(x))
        assert "methods were changed" in attach(agent), k
    agent = agent_of("ppo", space)
    agent.policy.density = lambda x: None
    assert "methods were changed" in attach(agent)


@pytest.mark.parametrize("cls", [nn.Linear, nn.Tanh, nn.Sequential, nn.Identity, RunningNorm])
def test_a_method_changed_on_a_class_is_obeyed(cls, monkeypatch):
    torso = nn.Sequential(nn.Identity(), nn.Linear(OBS, 4), nn.Tanh())
    agent = agent_of("ppo", box(2), {"torso": lambda: torso})
    was = cls.forward
    monkeypatch.setattr(cls, "forward", functools.wraps(was)(lambda self, x: 2 * was(self, x)))
    assert f"a {cls.__name__} whose methods were changed" in attach(agent)


def test_parameters_that_were_changed_are_refused():
    names = [name for name, p in agent_of("ppo", box(2), FULL).policy.named_parameters() if p.numel()]
    changes = {
        "frozen": lambda module, name: getattr(module, name).requires_grad_(False),
        "hooks": lambda module, name: getattr(module, name).register_hook(lambda gradient: 0 * gradient),
        "shared": lambda module, name: setattr(module, name, nn.Parameter(getattr(module, name).detach().clone())),
    }
    for reason, change in changes.items():
        for full in names:
            agent = agent_of("ppo", box(2), FULL)
            path, _, name = full.rpartition(".")
            change(agent.policy.get_submodule(path), name)
            assert reason in attach(agent), (full, reason)


def test_layers_whose_weights_were_cut_are_refused():
    def cut():
        torso = layers(nn.Tanh())
        torso[0].weight, torso[0].bias = nn.Parameter(torch.ones(3, OBS)), nn.Parameter(torch.zeros(3))
        torso[2].weight = nn.Parameter(torch.ones(OBS, 3))
        return torso

    assert "other sizes" in attach(agent_of("ppo", box(2), {"torso": cut}))


def test_pruned_weights_are_refused_as_long_as_they_are_masked():
    agent = agent_of("ppo", box(2))
    prune.l1_unstructured(agent.policy.torso[0], "weight", 0.5)
    assert "hooks" in attach(agent)


@pytest.mark.parametrize(
    ("policy", "options", "reason"),
    [
        ({"periodic": (0, 1)} | FULL, {}, "two correlated"),
        ({"periodic": (0,), "bounds": ("auto", "clip")} | FULL, {}, "two correlated"),
        ({"periodic": (0, 1), "covariance": "fixed", "covariance_matrix": (1, 0.5, 0.5, 1)}, {}, "two correlated"),
        ({"covariance": "lowrank"}, {}, "a covariance of low rank"),
        ({"bounds": "beta"}, {}, "a Beta policy"),
        ({"bounds": ("beta", "clip")}, {}, "a policy of several parts"),
        ({}, {"entropy_coef": 0.1}, "entropy bonus of a Gaussian"),
        ({"activation": "silu"}, {}, "SiLU"),
        ({"activation": "gelu"}, {}, "GELU"),
    ],
    ids=str,
)
def test_policies_that_the_kernels_do_not_do_are_refused(policy, options, reason):
    assert reason in attach(agent_of("ppo", SUN, policy, **options))


@pytest.mark.parametrize("space", [MultiDiscrete([3, 2]), MultiBinary(3)], ids=str)
@pytest.mark.parametrize("algo", ["ppo", "actor_critic"])
def test_several_choices_are_refused(algo, space):
    assert attach(agent_of(algo, space)) == "several choices at once"


@pytest.mark.parametrize("algo", ["ppo", "actor_critic"])
def test_layers_too_wide_for_our_own_loops_need_a_blas(algo, monkeypatch):
    wide = {"hidden": (260, 260)}
    assert attach(agent_of(algo, box(2), wide)) is None
    monkeypatch.setattr(blas, "ADDRESS", None)
    why = attach(agent_of(algo, box(2), wide))
    assert why is None if algo == "actor_critic" else "so large" in why, "an online learner has no product to make"


def test_other_dtypes_and_devices_are_refused():
    torch.set_default_dtype(torch.float64)
    try:
        agent = agent_of("ppo", box(2))
    finally:
        torch.set_default_dtype(torch.float32)
    assert "float64" in attach(agent)
    with torch.autocast("cpu"):
        assert "autocast" in attach(agent_of("ppo", box(2)))
    agent = agent_of("ppo", box(2))
    agent.device = torch.device("cuda")
    assert choose(agent, True)[:2] == ("general", "on cuda")


class Other(nn.Module):
    """Passes on whatever it wraps."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *given):
        return self.inner(*given)


def test_networks_of_other_classes_are_refused():
    for name in ("policy", "critic"):
        agent = agent_of("ppo", box(2))
        setattr(agent.learner, name, Other(getattr(agent.learner, name)))
        assert "other classes" in attach(agent)
    for name in ("head", "normalizer", "torso"):
        agent = agent_of("ppo", box(2))
        setattr(agent.policy, name, Other(getattr(agent.policy, name)))
        assert "Other" in attach(agent)


def with_extras():
    """A buffer and a parameter that no layer uses, in training mode."""
    torso = layers(nn.Tanh(), nn.Identity())
    torso.register_parameter("unused", nn.Parameter(torch.ones(3)))
    torso[0].register_buffer("mask", torch.zeros(OBS, OBS))
    return torso.train()


@pytest.mark.parametrize("torso", [with_extras, nn.Identity, nn.Sequential, lambda: nn.Linear(OBS, 3)])
@pytest.mark.parametrize(("algo", "n"), [("ppo", 4), ("a2c", 4), ("actor_critic", 1)])
def test_what_changes_nothing_is_let_in(torso, algo, n):
    general, ours, path = both(algo, box(2), {"torso": torso}, n=n)
    ours.policy.train()
    run_both(algo, n, general, ours, path)
