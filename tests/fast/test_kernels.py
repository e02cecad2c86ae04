"""The kernels by themselves, against torch in float64 and scipy."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from numba import int64, void
from scipy import integrate, special, stats
from torch import nn
from twins import POLICIES, agent_of, assert_close, both, box, rollout_of

from covary.fast.compiled import Indices, Matrix, Numbers, Rows, Table, Vector, kernel
from covary.fast.dense import activate, backward, forward
from covary.fast.densities import HALF, SQUASH, centre_of, score, spread_of
from covary.fast.path import FastPath
from covary.fast.stepwise import log_jacobian
from covary.fast.streaming import expected_log_slope
from covary.fast.tables import ACTIVATIONS


@kernel(void(int64, Matrix))
def activated(which, y):
    activate(which, y, y.shape[1])


def test_tanh_is_as_near_as_the_source_says():
    x = np.concatenate([np.linspace(-12, 12, 400_001), np.geomspace(1e-38, 1e30, 10_000)]).astype(np.float32)
    y = np.concatenate([x, -x])[None].copy()
    activated(ACTIVATIONS[nn.Tanh], y)
    true = np.tanh(np.concatenate([x, -x]).astype(np.float64))
    assert (np.abs(y[0] - true) <= 3.2e-7 * np.abs(true)).all()
    assert (np.abs(y) <= 1).all()
    np.testing.assert_array_equal(y[0, : len(x)], -y[0, len(x) :])


@pytest.mark.parametrize("cls", [nn.Tanh, nn.ReLU, nn.ELU])
def test_activations_keep_nan_and_infinity(cls):
    x = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38]], np.float32)
    y = x.copy()
    activated(ACTIVATIONS[cls], y)
    np.testing.assert_allclose(y, cls()(torch.from_numpy(x)), rtol=1e-6)


@kernel(void(Vector, Rows, Matrix, Matrix, Vector, int64))
def there_and_back(parameters, layers, work, slope, gradient, n):
    forward(parameters, layers, 0, len(layers), work, n)
    backward(parameters, layers, 0, len(layers), work, slope, gradient, n)


@pytest.mark.parametrize(("n", "room"), [(1, 1), (1, 9), (5, 5), (6, 16), (64, 64)])
@pytest.mark.parametrize("widths", [(3, 4, 1), (4, 8, 4), (1, 1, 1), (7, 5, 9, 2), (2, 64, 33, 3), (5, 2)], ids=str)
def test_layers_and_their_gradients_are_those_of_torch_in_float64(widths, n, room):
    torch.manual_seed(0)
    classes = [nn.Tanh, nn.ELU, nn.ReLU, nn.Identity]
    layers, modules, parameters, row, at = [], [], [], 0, 0
    for k, (inputs, outputs) in enumerate(pairwise(widths)):
        linear, activation = (
            nn.Linear(inputs, outputs, bias=k != 1),
            classes[k % 4] if k + 2 < len(widths) else classes[3],
        )
        modules += [linear, activation()]
        bias = -1 if linear.bias is None else at + inputs * outputs
        layers.append((at, bias, inputs, outputs, ACTIVATIONS[activation], row, row := row + inputs))
        parameters += linear.parameters()
        at += sum(p.numel() for p in linear.parameters())
    vector = torch.cat([p.detach().flatten() for p in parameters]).numpy()
    network = nn.Sequential(*modules).double()
    x = torch.randn(n, widths[0])
    weight = torch.randn(n, widths[-1])
    y = network(x.double())
    gradients = torch.autograd.grad((y * weight.double()).sum(), list(network.parameters()))
    work, slope = np.full((2, row + widths[-1], room), np.nan, np.float32)
    work[: widths[0], :n], slope[row:, :n] = x.T.numpy(), weight.T.numpy()
    gradient = np.full(len(vector), np.nan, np.float32)
    there_and_back(vector, np.array(layers), work, slope, gradient, n)
    assert_close(work[row:, :n].T, y.detach(), 1e-6, "outputs")
    assert_close(gradient, torch.cat([g.flatten() for g in gradients]), 2e-6, "gradient")


@kernel(void(Vector, Indices, Rows, Table, Table, Matrix, Matrix, Numbers, Table, Table, Table, Numbers))
def scores(parameters, plan, dims, box, given, outputs, latents, value, slopes, loc, spread, slope):
    for b in range(outputs.shape[1]):
        centre_of(plan, dims, box, outputs, 0, b, loc)
        spread_of(parameters, plan, dims, box, given, outputs, 0, b, spread)
        value[b] = score(plan, dims, box, outputs, 0, b, latents, b, loc, spread, slope)
        value[b] -= log_jacobian(plan, dims, box, latents, b)
        for k in range(len(slope)):
            slopes[b, k] = slope[k]


def scored(path, outputs, latents):
    """Log-probabilities (B,) and slopes (B, K) of latents (B, D) under a head's outputs (K, B)."""
    parameters, _, plan, dims, box, given = path.policy
    value, slopes = np.zeros(len(latents)), np.zeros((len(latents), len(path.direction)))
    scores(parameters, plan, dims, box, given, outputs, latents, value, slopes, *path.density, path.direction)
    return value, slopes


@pytest.mark.parametrize("spread", [0.5, 2.5, 12.0])
@pytest.mark.parametrize("case", [name for name, (space, _) in POLICIES.items() if isinstance(space, Box)])
def test_log_probabilities_and_slopes_are_those_of_autograd_in_float64(case, spread):
    """spread: of the log standard deviations; the widest are held at their bounds, which gives no slope."""
    agent = agent_of("ppo", *POLICIES[case])
    rng, head, n = np.random.default_rng(1), agent.policy.head, 40
    with torch.no_grad():
        for parameter in (p for name, p in head.named_parameters() if "out" not in name):
            parameter.copy_(torch.from_numpy(spread * rng.standard_normal(parameter.shape)))
    outputs = rng.standard_normal((head.out.out_features, n)).astype(np.float32)
    d, a = head.geometry.dim, len(head.angles)
    outputs[d + a : 2 * d + a] *= spread
    outputs[: d + a, :3] *= 1e-4  # a vector too short to have an angle
    true = copy.deepcopy(head).double()
    true.out = nn.Identity()
    leaf = torch.from_numpy(outputs.T.copy()).double().requires_grad_()
    with torch.no_grad():
        latents = true(leaf).sample_latent(noise=torch.from_numpy(rng.standard_normal((n, d)))).float()
    value, slopes = scored(FastPath(agent.learner), outputs, latents.numpy())
    expected = true(leaf).log_prob_latent(latents.double())
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-7, atol=1e-7)
    own = [p for p in true.parameters() if p.numel()]
    for b in range(n):
        of_outputs, *rest = torch.autograd.grad(expected[b], [leaf, *own], retain_graph=True, allow_unused=True)
        wanted = torch.cat([of_outputs[b], *(g for g in rest if g is not None)]).numpy()
        size = np.abs(wanted).max() + 1
        np.testing.assert_allclose(slopes[b, : len(wanted)], wanted, rtol=1e-6, atol=1e-7 * size)


def test_the_mass_at_a_bound_is_that_of_scipy_far_into_the_tail():
    path = FastPath(agent_of("ppo", Box(-1, 1, (1,)), {"bounds": "clip", "state_dependent": True}).learner)
    z = np.concatenate([-np.geomspace(1e-3, 1e5, 200), np.geomspace(1e-3, 30, 100)])
    outputs = np.zeros((2, len(z)), np.float32)
    outputs[0], outputs[1] = -1 - z, -path.policy[4][0, 5]  # std 1, the lower bound z of them above the mean
    z = -1.0 - outputs[0].astype(np.float64)
    std = np.exp(path.policy[4][0, 5] + outputs[1, 0].astype(np.float64))
    value, slopes = scored(path, outputs, np.full((len(z), 1), -1, np.float32))
    np.testing.assert_allclose(value, stats.norm.logcdf(z / std), rtol=1e-7, atol=1e-12)
    hazard = np.exp(stats.norm.logpdf(z[z > -1e3]) - stats.norm.logcdf(z[z > -1e3]))
    np.testing.assert_allclose(slopes[z > -1e3, 0], -hazard, rtol=1e-4, atol=1e-12)


def test_a_gradient_that_is_nan_moves_nothing_of_its_network():
    """The other network goes on, and the sums tell whoever looks."""
    _, agent, path = both("ppo", box(2))
    batch, _ = agent.learner._batch(rollout_of(agent, 32, 4, np.random.default_rng(0)))
    latent, optimizer = batch.latent.clone(), agent.learner.optimizer
    latent[3] = torch.nan
    before, its = optimizer.copy(), optimizer.segments[0]
    seen = path.epoch(batch._replace(latent=latent), torch.arange(len(latent))[:50])
    assert seen.isnan().tolist() == [True, False, True, False, False]
    for now, then in zip((optimizer.vector, optimizer.first, optimizer.second), before[:3], strict=True):
        assert now.isfinite().all()
        assert torch.equal(now[:its], then[:its])
        assert (now[its:] != then[its:]).any()


@kernel(void(int64, Numbers, Numbers, Table))
def slopes(kind, m, s, out):
    for k in range(len(m)):
        out[k, 0], out[k, 1], out[k, 2] = expected_log_slope(kind, m[k], s[k])


@pytest.mark.parametrize("kind", [HALF, SQUASH])
@pytest.mark.parametrize("s", [0.02, 0.5, 1.4999, 1.5001, 2.0, 5.0, 60.0, 1e3, 1e9])
def test_the_expected_slope_is_that_of_quadrature_at_every_width(kind, s):
    """Beside adaptive quadrature, over pieces that are split where the slope bends; as wide as 10^9 costs no more."""
    m = np.array([-40.0, -10.0, -3.0, -0.1, 0.0, 0.5, 2.0, 7.0, 40.0])
    out = np.zeros((len(m), 3))
    slopes(kind, m, np.full(len(m), s), out)
    both = 1.0 if kind == SQUASH else 0.0
    terms = (
        lambda u, eps: -np.logaddexp(0, -u) - both * np.logaddexp(0, u),
        lambda u, eps: special.expit(-u) - both * special.expit(u),
        lambda u, eps: (special.expit(-u) - both * special.expit(u)) * s * eps,
    )
    for centre, found in zip(m, out, strict=True):
        cuts = sorted({-12.0, 12.0, *(np.clip((x - centre) / s, -12, 12) for x in (-40, -5, 0, 5, 40))})
        for term, one in zip(terms, found, strict=True):
            pieces = [
                integrate.quad(lambda e, f=term, c=centre: f(c + s * e, e) * stats.norm.pdf(e), *span, epsabs=1e-11)[0]
                for span in pairwise(cuts)
            ]
            assert one == pytest.approx(sum(pieces), rel=1e-6, abs=1e-6)
