"""The one-dimensional mathematics, each piece against scipy and against quadrature; gradients by finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from covary.distributions import log_ndtr, wrapped_normal_entropy, wrapped_normal_log_prob
from covary.distributions.scalar import (
    censored_log_prob,
    censored_moments,
    expected_sigmoid,
    expected_softplus,
    shortest_arc,
)

TWO_PI = 2 * math.pi
SCALES = (1e-3, 0.1, 0.49, 0.51, 1.0, 1.49, 1.51, 2.0, 3.0, 10.0, 100.0)


def f64(*values: float, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def close(got: Tensor, want: object, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=rtol, atol=atol)


# ------------------------------------------------------------------------------------------------ log of Phi


def test_log_ndtr_is_scipys() -> None:
    x = np.concatenate([-np.logspace(0, 10, 41), np.linspace(-3, 3, 61), np.linspace(4, 40, 19)])
    close(log_ndtr(torch.as_tensor(x)), scipy.special.log_ndtr(x), rtol=1e-12, atol=1e-300)
    x32 = x.astype(np.float32)
    close(log_ndtr(torch.as_tensor(x32)), scipy.special.log_ndtr(x32.astype(np.float64)), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_ndtr_has_its_slopes_in_the_tail(dtype: torch.dtype) -> None:
    """h = (log Phi)' = phi / Phi and h' = -h (x + h); in the tail by their asymptotic series in 1 / x."""
    x = torch.tensor([-1e10, -1e4, -300.0, -21.0, -19.0, -1.0, 0.0, 1.0, 9.0, 20.0, 1e4], dtype=dtype)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(log_ndtr(x).sum(), x, create_graph=True)
    (curve,) = torch.autograd.grad(slope.sum(), x)
    z, near = x.detach().double().numpy(), slice(3, None)
    far = z.clip(max=-1)
    hazard, second = -far - 1 / far + 2 / far**3, -1 + far**-2.0
    hazard[near] = np.exp(scipy.stats.norm.logpdf(z[near]) - scipy.special.log_ndtr(z[near]))
    second[near] = -hazard[near] * (z[near] + hazard[near])
    tight = dtype == torch.float64
    close(slope, hazard, rtol=1e-10 if tight else 1e-5, atol=1e-15)
    close(curve, second, rtol=2e-6 if tight else 1e-4, atol=1e-15)


def test_log_ndtr_gradients_by_finite_differences() -> None:
    x = f64(-30.0, -19.9, -5.0, -0.3, 0.0, 0.4, 3.0, grad=True)
    assert gradcheck(log_ndtr, x)
    assert gradgradcheck(log_ndtr, x)
    slope = torch.func.vmap(torch.func.grad(log_ndtr))(x.detach())
    close(slope, torch.autograd.grad(log_ndtr(x).sum(), x)[0])


# ----------------------------------------------------------------------------------------------------- circle


def wrapped_by_400_images(angle: np.ndarray, scale: float) -> np.ndarray:
    k = TWO_PI * np.arange(-400, 401)
    return scipy.special.logsumexp(scipy.stats.norm.logpdf(angle[:, None] + k, 0, scale), axis=-1)


@pytest.mark.parametrize("scale", SCALES)
def test_wrapped_normal_is_the_sum_over_400_images(scale: float) -> None:
    angle = np.linspace(-4 * math.pi, 4 * math.pi, 173)
    close(wrapped_normal_log_prob(torch.as_tensor(angle), f64(scale)), wrapped_by_400_images(angle, scale), atol=1e-9)


@pytest.mark.parametrize("scale", [s for s in SCALES if s >= 0.1])
def test_wrapped_normal_integrates_to_one_with_its_entropy(scale: float) -> None:
    n = 20_000
    angle = torch.arange(n, dtype=torch.float64) * (TWO_PI / n)
    log_p = wrapped_normal_log_prob(angle, f64(scale))
    close(log_p.exp().mean() * TWO_PI, 1.0)
    close(wrapped_normal_entropy(f64(scale))[0], -(log_p.exp() * log_p).mean() * TWO_PI, rtol=0, atol=1e-8)


def test_wrapped_normal_gradients_by_finite_differences() -> None:
    angle, scale = f64(0.3, -2.0, 3.1, 7.0, 0.0, 1.0, grad=True), f64(0.2, 1.0, 1.49, 1.51, 4.0, 0.05, grad=True)
    assert gradcheck(wrapped_normal_log_prob, (angle, scale))
    assert gradcheck(wrapped_normal_entropy, scale)


def test_shortest_arc_is_the_angle_of_its_point_on_the_circle() -> None:
    angle = torch.linspace(-20, 20, 1001, dtype=torch.float64)
    close(shortest_arc(angle), np.angle(np.exp(1j * angle.numpy())), atol=1e-12)


# ------------------------------------------------------------------------------------------ squash and softplus


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("loc", [-30.0, -5.0, -0.5, 0.0, 1.0, 8.0])
def test_expectations_of_softplus_and_sigmoid(loc: float, scale: float) -> None:
    def expected(f: object) -> float:
        kink = min(max(-loc / scale, -11.9), 11.9)
        points = sorted({kink, max(-11.9, kink - 30 / scale), min(11.9, kink + 30 / scale)})
        return scipy.integrate.quad(
            lambda z: f(loc + scale * z) * scipy.stats.norm.pdf(z), -12, 12, points=points, limit=400, epsabs=1e-14
        )[0]

    close(expected_softplus(f64(loc), f64(scale))[0], expected(lambda u: np.logaddexp(0, u)), rtol=1e-7)
    close(expected_sigmoid(f64(loc), f64(scale))[0], expected(scipy.special.expit), rtol=0, atol=1e-7)


def test_expectations_have_gradients_by_finite_differences() -> None:
    loc, scale = f64(-3.0, 0.2, 5.0, -1.0, 2.0, grad=True), f64(0.1, 1.4, 1.6, 5.0, 40.0, grad=True)
    assert gradcheck(expected_softplus, (loc, scale))
    assert gradcheck(expected_sigmoid, (loc, scale))
    (slope,) = torch.autograd.grad(expected_softplus(loc, scale).sum(), loc)
    close(expected_sigmoid(loc, scale), slope.numpy(), rtol=1e-7)


# ---------------------------------------------------------------------------------------------------- censored

BOXES = [(-1.0, 2.0), (-math.inf, 0.5), (0.5, math.inf), (-math.inf, math.inf)]


@pytest.mark.parametrize(("low", "high"), BOXES)
@pytest.mark.parametrize(("loc", "scale"), [(0.3, 0.7), (-4.0, 1.0), (9.0, 30.0), (0.5, 0.01)])
def test_censored_normal_is_scipys(low: float, high: float, loc: float, scale: float) -> None:
    normal, args = scipy.stats.norm(loc, scale), (f64(loc), f64(scale), f64(low), f64(high))
    inside = np.linspace(max(low, loc - 8 * scale), min(high, loc + 8 * scale), 30_001)[1:-1]
    close(censored_log_prob(torch.as_tensor(inside), *args), normal.logpdf(inside))
    log_mass = np.array([normal.logcdf(low), normal.logsf(high)])
    for bound, mass in zip((low, high), log_mass, strict=True):
        if math.isfinite(bound):
            close(censored_log_prob(f64(bound), *args)[0], mass)
    # Mean and entropy from the masses and a quadrature of the interior.
    ends = (max(low, loc - 12 * scale), min(high, loc + 12 * scale))
    quad = {"epsabs": 1e-12, "epsrel": 1e-12, "limit": 200}
    part = [0.0, 0.0]
    if ends[0] < ends[1]:
        split = {"points": [min(max(loc, ends[0]), ends[1])]}
        part[0] = scipy.integrate.quad(lambda x: x * normal.pdf(x), *ends, **quad, **split)[0]
        part[1] = scipy.integrate.quad(lambda x: -normal.pdf(x) * normal.logpdf(x), *ends, **quad, **split)[0]
    mass = np.exp(log_mass)
    mean, entropy = censored_moments(*args)
    close(mean[0], part[0] + sum(m * b for m, b in zip(mass, (low, high), strict=True) if m > 0), atol=1e-9)
    close(entropy[0], part[1] - np.sum(mass * np.where(mass > 0, log_mass, 0)), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("low", "high"), BOXES)
def test_censored_gradients_by_finite_differences(low: float, high: float) -> None:
    loc, scale = f64(0.3, -2.0, 3.0, 9.0, grad=True), f64(0.7, 1.0, 5.0, 0.5, grad=True)
    box = f64(low), f64(high)
    for x in (0.5, *(b for b in (low, high) if math.isfinite(b))):
        assert gradcheck(lambda m, s, x=x: censored_log_prob(f64(x), m, s, *box), (loc, scale))
    assert gradcheck(lambda m, s: censored_moments(m, s, *box), (loc, scale))
