"""A table of densities times a table of properties: a new density is one new row.

The oracles: `Box.reference`, the density by scipy and brute force over a lattice of images; `grid`, a quadrature over
the action space that knows the maps only from their definitions; torch.distributions; finite differences in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit, logsumexp
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, TransformedDistribution, kl_divergence
from torch.distributions import transforms as T

from covary.distributions import Beta, BoxNormal, Categorical, Choices, Geometry, Product, latent_kl, scalar

TWO_PI, INF = 2 * math.pi, math.inf
FALSE_ALARM = 1e-6  # of each statistical test
SIGMAS = 4.9  # two-sided normal deviation of that probability
Array = NDArray[np.float64]

# ------------------------------------------------------------------------------------------------------ the table

DIMENSIONS = {  # name: low, high, word for `bounds`
    "free": (-INF, INF, "auto"),
    "squash": (-1.0, 3.0, "auto"),
    "up": (0.5, INF, "auto"),
    "down": (-INF, 2.0, "auto"),
    "wrap": (-2.0, 3.0, "auto"),
    "clip": (-1.0, 1.5, "clip"),
    "clip_up": (-0.5, INF, "clip"),
    "clip_down": (-INF, 0.75, "clip"),
    "mean": (-1.0, 1.0, "mean"),
    "unbound": (-1.0, 1.0, "free"),
}


def geometry(*names: str) -> Geometry:
    low, high, words = zip(*(DIMENSIONS[name] for name in names), strict=True)
    return Geometry.box(low, high, bounds=words, periodic=[i for i, name in enumerate(names) if name == "wrap"])


def cholesky(std: Array, corr: Array) -> Array:
    return std[:, None] * np.linalg.cholesky(corr)


@dataclass(frozen=True)
class Box:
    """A row: what each dimension is, loc and standard deviations of the latent, correlations (12, 13, 23) if full, and
    if of low rank the share of each deviation that each common number has, (D, R)."""

    names: tuple[str, ...]
    loc: tuple[float, ...]
    std: tuple[float, ...]
    corr: tuple[float, ...] = ()
    shared: tuple[tuple[float, ...], ...] = ()

    def __str__(self) -> str:
        kind = f"rank {len(self.shared[0])}" if self.shared else "full" if self.corr else "diagonal"
        return f"{'-'.join(self.names)} {kind} {self.std}"

    @property
    def correlated(self) -> bool:
        return bool(self.corr or self.shared)

    @property
    def tril(self) -> Array:
        corr = np.eye(len(self.names))
        if self.corr:
            corr[np.triu_indices(len(corr), 1)] = self.corr
        elif self.shared:
            corr = np.array(self.shared) @ np.array(self.shared).T
            np.fill_diagonal(corr, 1.0)
        return cholesky(np.array(self.std), np.triu(corr, 1).T + np.triu(corr))

    @property
    def covariance(self) -> Array:
        return self.tril @ self.tril.T

    def density(self, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = ()) -> BoxNormal:
        """The row's density; in a batch every element has a loc and a covariance of its own."""
        k = torch.arange(math.prod(batch), dtype=dtype).reshape(batch) / 10
        loc = torch.tensor(self.loc, dtype=dtype) + k[..., None]
        if self.shared:
            v, std = np.array(self.shared), np.array(self.std)
            loading = torch.tensor(std[:, None] * v, dtype=dtype) * (1 + k[..., None, None])
            residual = torch.tensor(std * np.sqrt(1 - np.square(v).sum(-1)), dtype=dtype) * (1 + k[..., None])
            return BoxNormal(loc, loading=loading, residual=residual, geometry=geometry(*self.names))
        if not self.corr:
            return BoxNormal(
                loc, torch.tensor(self.std, dtype=dtype) * (1 + k[..., None]), geometry=geometry(*self.names)
            )
        tril = torch.tensor(self.tril, dtype=dtype) * (1 + k[..., None, None])
        return BoxNormal(loc, scale_tril=tril, geometry=geometry(*self.names))

    def axis(self, i: int) -> tuple[Array, Array, Array]:
        """Quadrature nodes, weights and cell edges of dimension i in action units: Gauss-Legendre in cells of at most
        1.5 conditional standard deviations; a point mass is a node of weight 1."""
        low, high, _ = DIMENSIONS[self.names[i]]
        m, s = self.loc[i], self.std[i]
        step = 1.5 / math.sqrt(np.linalg.inv(self.covariance)[i, i])
        start, end = m - 7.5 * s, m + 7.5 * s
        if self.names[i] == "wrap":
            start, end = low, high
            step *= (high - low) / TWO_PI
        elif self.names[i].startswith("clip"):
            start, end = max(low, start), min(high, end)
        elif self.names[i] in ("squash", "up", "down"):
            step = min(step, 1.5)  # of the curve of a sigmoid
        edges = np.linspace(start, end, max(7, math.ceil((end - start) / step)) + 1)
        x, w = np.polynomial.legendre.leggauss(6)
        half = np.diff(edges)[:, None] / 2
        t, weight = (edges[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()
        if self.names[i] == "squash":
            return low + 4.0 * expit(t), weight * 4.0 * expit(t) * expit(-t), low + 4.0 * expit(edges)
        if self.names[i] == "up":
            return low + np.logaddexp(0, t), weight * expit(t), low + np.logaddexp(0, edges)
        if self.names[i] == "down":
            return high - np.logaddexp(0, t), weight * expit(t), np.sort(high - np.logaddexp(0, edges))
        if self.names[i].startswith("clip"):
            masses = [b for b in (low, high) if math.isfinite(b)]
            edges[0] = np.nextafter(low, INF) if math.isfinite(low) else edges[0]
            return np.append(t, masses), np.append(weight, np.ones(len(masses))), edges
        return t, weight, edges

    def grid(self) -> tuple[Array, Array]:
        """Actions (N, D) and weights (N,): sum_n weight_n f(action_n) is the integral of f over the action space."""
        axes = [self.axis(i) for i in range(len(self.names))]
        nodes = np.stack([x.ravel() for x in np.meshgrid(*(a[0] for a in axes), indexing="ij")], -1)
        weight = np.prod([x.ravel() for x in np.meshgrid(*(a[1] for a in axes), indexing="ij")], axis=0)
        return nodes, weight

    def cell(self, action: Array) -> NDArray[np.int64]:
        """The number of the cell in which an action lies."""
        number = np.zeros(len(action), np.int64)
        for i in range(len(self.names)):
            edges = self.axis(i)[2]
            number = number * (len(edges) + 1) + np.searchsorted(edges, action[:, i], side="right")
        return number

    def reference(self, action: Array) -> Array:
        """log density: scipy's multivariate normal summed over images, times the slope of the inverse map."""
        loc, cov, wrapped = np.array(self.loc), self.covariance, [n == "wrap" for n in self.names]
        reach = {0: 0, 1: 400, 2: 70, 3: 6}[sum(wrapped)]
        one = [np.arange(-reach, reach + 1) * TWO_PI if w else np.zeros(1) for w in wrapped]
        images = np.stack([x.ravel() for x in np.meshgrid(*one, indexing="ij")], -1)
        return np.array([self._reference(a, loc, cov, images) for a in action])

    def _reference(self, action: Array, loc: Array, cov: Array, images: Array) -> float:
        u, log_slope, masses = action.copy(), 0.0, []
        for i, name in enumerate(self.names):
            low, high, _ = DIMENSIONS[name]
            if name == "squash":
                u[i] = logit((action[i] - low) / (high - low))
                log_slope += math.log((action[i] - low) * (high - action[i]) / (high - low))
            elif name in ("up", "down"):
                y = action[i] - low if name == "up" else high - action[i]
                u[i] = math.log(math.expm1(y))
                log_slope += math.log(-math.expm1(-y))
            elif name == "wrap":
                u[i] = (action[i] - low) * TWO_PI / (high - low)
                log_slope += math.log((high - low) / TWO_PI)
            elif name.startswith("clip") and action[i] in (low, high):
                masses.append(i)
        seen = [i for i in range(len(u)) if i not in masses]
        x = (u + images)[:, seen] - loc[seen]
        log_p = np.zeros(len(images))
        if seen:
            log_p = log_p + scipy.stats.multivariate_normal(cov=cov[np.ix_(seen, seen)]).logpdf(x)
        for i in masses:  # given the others a normal beyond the bound; two masses only where independent
            gain = np.linalg.solve(cov[np.ix_(seen, seen)], cov[seen, i])
            law = scipy.stats.norm(loc[i] + x @ gain, math.sqrt(cov[i, i] - gain @ cov[seen, i]))
            log_p = log_p + (
                law.logcdf(action[i]) if action[i] == DIMENSIONS[self.names[i]][0] else law.logsf(action[i])
            )
        return float(logsumexp(log_p) - log_slope)


@dataclass(frozen=True)
class Choice:
    """A row: the logits of a Categorical."""

    logits: tuple[float, ...]

    def __str__(self) -> str:
        return f"categorical {self.logits}"

    def density(self, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = ()) -> Categorical:
        k = torch.arange(math.prod(batch), dtype=dtype).reshape(batch) / 10
        return Categorical(torch.tensor(self.logits, dtype=dtype) * (1 + k[..., None]))

    def grid(self) -> tuple[Array, Array]:
        return np.arange(len(self.logits)), np.ones(len(self.logits))

    def cell(self, action: Array) -> NDArray[np.int64]:
        return action.astype(np.int64)

    def reference(self, action: Array) -> Array:
        p = torch.distributions.Categorical(logits=torch.tensor(self.logits, dtype=torch.float64))
        return p.log_prob(torch.as_tensor(action)).numpy()


@dataclass(frozen=True)
class Betas:
    """A row: alpha and beta of each dimension of the box of "squash"."""

    alpha: tuple[float, ...]
    beta: tuple[float, ...]

    def __str__(self) -> str:
        return f"beta {self.alpha} {self.beta}"

    def density(self, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = ()) -> Beta:
        k = torch.arange(math.prod(batch), dtype=dtype).reshape(batch)[..., None] / 10
        alpha, beta = torch.tensor(self.alpha, dtype=dtype) + k, torch.tensor(self.beta, dtype=dtype) * (1 + k)
        return Beta(alpha, beta, geometry=geometry(*["squash"] * len(self.alpha)))

    @property
    def laws(self) -> list[object]:
        low, high, _ = DIMENSIONS["squash"]
        return [scipy.stats.beta(a, b, low, high - low) for a, b in zip(self.alpha, self.beta, strict=True)]

    def axis(self, i: int) -> tuple[Array, Array, Array]:
        """As of a Box, over the logit."""
        a, b = self.alpha[i], self.beta[i]
        low = DIMENSIONS["squash"][0]
        start, end = logit(scipy.stats.beta(a, b).ppf(1e-14)), -logit(scipy.stats.beta(b, a).ppf(1e-14))
        step = min(0.75, 1.5 * math.sqrt(1 / a + 1 / b))
        edges = np.linspace(start, end, max(7, math.ceil((end - start) / step)) + 1)
        x, w = np.polynomial.legendre.leggauss(6)
        half = np.diff(edges)[:, None] / 2
        t, weight = (edges[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()
        return low + 4.0 * expit(t), weight * 4.0 * expit(t) * expit(-t), low + 4.0 * expit(edges)

    def grid(self) -> tuple[Array, Array]:
        return crossed([self.axis(i)[:2] for i in range(len(self.alpha))])

    def cell(self, action: Array) -> NDArray[np.int64]:
        number = np.zeros(len(action), np.int64)
        for i in range(len(self.alpha)):
            edges = self.axis(i)[2]
            number = number * (len(edges) + 1) + np.searchsorted(edges, action[:, i], side="right")
        return number

    def reference(self, action: Array) -> Array:
        return np.sum([law.logpdf(a) for law, a in zip(self.laws, action.T, strict=True)], axis=0)


@dataclass(frozen=True)
class Several:
    """A row: the logits of several choices."""

    logits: tuple[tuple[float, ...], ...]

    def __str__(self) -> str:
        return f"choices {self.logits}"

    def density(self, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = ()) -> Choices:
        k = torch.arange(math.prod(batch), dtype=dtype).reshape(batch) / 10
        return Choices(torch.tensor(self.logits, dtype=dtype) * (1 + k[..., None, None]))

    def grid(self) -> tuple[Array, Array]:
        return crossed([(np.flatnonzero(np.isfinite(each)), np.ones(np.isfinite(each).sum())) for each in self.logits])

    def cell(self, action: Array) -> NDArray[np.int64]:
        return np.ravel_multi_index(action.astype(np.int64).T, np.shape(self.logits)[-1:] * len(self.logits))

    def reference(self, action: Array) -> Array:
        each = torch.distributions.Categorical(logits=torch.tensor(self.logits, dtype=torch.float64))
        return torch.distributions.Independent(each, 1).log_prob(torch.as_tensor(action)).numpy()


@dataclass(frozen=True)
class Beside:
    """A row: other rows, and the columns of each."""

    parts: tuple[Box | Choice | Betas | Several, ...]
    columns: tuple[tuple[int, ...], ...] | None = None

    def __str__(self) -> str:
        return " x ".join(map(str, self.parts))

    def density(self, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = ()) -> Product:
        return Product([part.density(dtype, batch) for part in self.parts], self.columns)

    def split(self, action: Array) -> list[Array]:
        shapes = [part.density().event_shape for part in self.parts]
        first = np.cumsum([0, *(shape.numel() for shape in shapes)])
        columns = self.columns or [range(a, b) for a, b in itertools.pairwise(first)]
        return [action[:, list(c)] if s else action[:, c[0]] for c, s in zip(columns, shapes, strict=True)]

    def grid(self) -> tuple[Array, Array]:
        nodes, weight = crossed([part.grid() for part in self.parts])
        order = np.argsort(sum(self.columns, ())) if self.columns else slice(None)
        return nodes[:, order], weight

    def cell(self, action: Array) -> NDArray[np.int64]:
        number = np.zeros(len(action), np.int64)
        for part, piece in zip(self.parts, self.split(action), strict=True):
            number = number * 10**6 + part.cell(piece)
        return number

    def reference(self, action: Array) -> Array:
        pieces = zip(self.parts, self.split(action), strict=True)
        return np.sum([part.reference(piece) for part, piece in pieces], axis=0)


def crossed(axes: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Nodes (N, D) and weights (N,) of a product of quadratures."""
    nodes, weight = np.zeros((1, 0)), np.ones(1)
    for x, w in axes:
        x = x.reshape(len(x), -1)
        nodes = np.concatenate([np.repeat(nodes, len(x), 0), np.tile(x, (len(nodes), 1))], 1)
        weight = np.repeat(weight, len(w)) * np.tile(w, len(weight))
    return nodes, weight


Row = Box | Choice | Betas | Several | Beside
BOXES = [
    Box(("free",), (0.3,), (1.2,)),
    Box(("squash",), (0.4,), (0.8,)),
    Box(("squash",), (-1.0,), (3.0,)),
    Box(("up",), (0.2,), (1.1,)),
    Box(("down",), (-0.5,), (2.5,)),
    Box(("wrap",), (6.0,), (0.05,)),
    Box(("wrap",), (-2.0,), (1.45,)),
    Box(("wrap",), (40.0,), (3.0,)),
    Box(("clip",), (0.4,), (0.9,)),
    Box(("clip",), (2.0,), (0.4,)),
    Box(("clip_up",), (0.1,), (0.7,)),
    Box(("clip_down",), (0.5,), (0.6,)),
    Box(("mean",), (0.5,), (0.7,)),
    Box(("unbound",), (3.0,), (0.7,)),
    Box(("free", "free"), (0.3, -1.0), (1.2, 0.4)),
    Box(("free", "free"), (0.3, -1.0), (1.2, 0.4), (0.7,)),
    Box(("mean", "unbound"), (0.3, -1.0), (1.2, 0.4), (-0.7,)),
    Box(("squash", "squash"), (0.3, -0.7), (0.6, 1.1)),
    Box(("squash", "squash"), (0.3, -0.7), (0.6, 1.1), (-0.8,)),
    Box(("up", "free"), (0.3, -0.7), (0.6, 1.1)),
    Box(("up", "free"), (0.3, -0.7), (0.6, 1.1), (0.8,)),
    Box(("down", "up"), (0.3, -0.7), (0.6, 1.1), (-0.5,)),
    Box(("wrap", "squash"), (0.3, -0.7), (0.6, 1.1)),
    Box(("wrap", "squash"), (0.3, -0.7), (0.6, 1.1), (0.75,)),
    Box(("squash", "wrap"), (0.3, 6.2), (0.6, 1.7), (-0.75,)),
    Box(("wrap", "free"), (3.0, -0.7), (2.5, 1.1)),
    Box(("wrap", "free"), (3.0, -0.7), (2.5, 1.1), (0.75,)),
    Box(("wrap", "wrap"), (3.0, -0.7), (0.9, 1.6)),
    Box(("wrap", "wrap"), (3.0, -0.7), (0.9, 1.6), (0.8,)),
    Box(("wrap", "wrap"), (3.0, -0.7), (1.6, 0.9), (-0.8,)),
    Box(("wrap", "wrap"), (3.0, 6.2), (0.05, 3.0), (0.8,)),
    Box(("wrap", "wrap"), (3.0, 6.2), (20.0, 0.05), (0.8,)),
    Box(("wrap", "wrap"), (3.0, 6.2), (3.0, 3.0), (0.95,)),
    Box(("wrap", "wrap"), (3.0, 6.2), (20.0, 3.0), (-0.9,)),
    Box(("wrap", "wrap"), (3.0, 6.2), (20.0, 20.0), (0.99,)),
    Box(("wrap", "wrap"), (3.0, 6.2), (65.0, 70.0), (0.9,)),
    Box(("clip", "clip"), (0.4, 1.4), (0.9, 0.5)),
    Box(("clip", "squash"), (0.4, -0.7), (0.9, 1.1)),
    Box(("clip", "squash"), (0.4, -0.7), (0.9, 1.1), (0.7,)),
    Box(("wrap", "clip"), (3.0, 0.2), (0.8, 1.5)),
    Box(("wrap", "clip"), (3.0, 0.2), (0.8, 1.5), (0.7,)),
    Box(("clip_up", "wrap"), (0.2, 1.0), (0.6, 4.0), (-0.9,)),
    Box(("wrap", "clip"), (3.0, 0.2), (90.0, 1.5), (0.9,)),
    Box(("clip", "up"), (0.4, -0.7), (0.9, 1.1)),
    Box(("clip_down", "up"), (0.4, -0.7), (0.9, 1.1), (-0.7,)),
    Box(("squash", "wrap", "free"), (0.3, 3.0, -0.7), (0.6, 0.9, 1.1), (0.6, -0.4, 0.3)),
    Box(("wrap", "wrap", "wrap"), (0.3, 3.0, -0.7), (0.6, 1.9, 1.1)),
    Box(("clip", "squash", "wrap", "up", "free"), (0.3, 0.5, 3.0, -0.7, 2.0), (0.6, 0.9, 0.5, 1.1, 0.3)),
    Box(("free", "free"), (0.3, -1.0), (1.2, 0.4), shared=((0.9,), (-0.8,))),
    Box(("squash", "up", "free"), (0.3, -0.7, 2.0), (0.6, 1.1, 0.3), shared=((0.7,), (0.6,), (-0.5,))),
    Box(("squash", "down", "mean"), (0.3, -0.7, 2.0), (0.6, 1.1, 0.3), shared=((0.7, 0.1), (0.6, -0.7), (0.0, 0.9))),
    Box(("wrap", "squash"), (0.3, -0.7), (0.6, 1.1), shared=((0.9,), (0.8,))),
    Box(("squash", "wrap", "free"), (0.3, 3.0, -0.7), (0.6, 0.9, 1.1), shared=((0.7, 0.1), (0.6, -0.7), (0.0, 0.9))),
    Box(("wrap", "wrap"), (3.0, -0.7), (0.9, 1.6), shared=((0.9,), (-0.9,))),
    Box(("clip", "squash"), (0.4, -0.7), (0.9, 1.1), shared=((0.8,), (0.8,))),
    Box(("wrap", "clip"), (3.0, 0.2), (0.8, 1.5), shared=((0.8,), (0.8,))),
    Box(
        ("free", "squash", "up", "down", "mean"),
        (0.3, 0.5, 0.2, -0.7, 2.0),
        (0.6, 0.9, 0.5, 1.1, 0.3),
        shared=((0.7, 0.1), (0.6, -0.7), (0.0, 0.9), (0.5, 0.5), (-0.9, 0.1)),
    ),
]
CHOICES = [Choice((0.3, -1.0, 2.0, 0.0)), Choice((-INF, 0.3, -INF, 1.0, -INF)), Choice((0.0,))]
BETAS = [
    Betas((1.0,), (1.0,)),
    Betas((1.5,), (1.5,)),
    Betas((1.0,), (7.0,)),
    Betas((30.0,), (2.0,)),
    Betas((3e4,), (1e4,)),
    Betas((2.0, 5.0), (3.0, 1.2)),
]
SEVERAL = [
    Several(((0.3, -1.0, 2.0), (0.0, 1.0, -INF))),
    Several(((0.0, 0.7), (0.0, -2.0), (0.0, 0.0))),
    Several(((0.3,),)),
]
BESIDE = [
    Beside((Box(("squash",), (0.4,), (0.8,)), Betas((2.0,), (3.0,)))),
    Beside((Box(("wrap", "free"), (3.0, -0.7), (2.5, 1.1), (0.75,)), Betas((2.0,), (3.0,))), ((2, 0), (1,))),
    Beside((CHOICES[0], Box(("clip",), (0.4,), (0.9,)), SEVERAL[0]), ((3,), (0,), (1, 2))),
    Beside((CHOICES[0], SEVERAL[1])),
]
OTHERS = [*CHOICES, *BETAS, *SEVERAL, *BESIDE]
INTEGRABLE = [box for box in BOXES if len(box.names) <= 3] + OTHERS
each_box = pytest.mark.parametrize("case", BOXES, ids=str)
each = pytest.mark.parametrize("case", BOXES + OTHERS, ids=str)
each_integrable = pytest.mark.parametrize("case", INTEGRABLE, ids=str)


def has_entropy(case: Row) -> bool:
    return not (
        isinstance(case, Box) and case.correlated and sum(n.startswith(("wrap", "clip")) for n in case.names) > 1
    )


each_with_entropy = pytest.mark.parametrize("case", [c for c in INTEGRABLE if has_entropy(c)], ids=str)


def spread_of(case: Box, p: BoxNormal) -> dict[str, Tensor]:
    """The covariance of a row's density, as BoxNormal takes it."""
    if case.shared:
        return dict(zip(("loading", "residual"), p._low, strict=True))
    return {"scale_tril": p.scale_tril} if case.corr else {"scale": p.scale}


@pytest.fixture(autouse=True)
def _one_seed_and_threads_of_torch() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small only wait for each other on more
    yield
    torch.set_num_threads(threads)


@lru_cache
def quadrature(case: Row) -> tuple[Array, Array, Array]:
    """Actions, their log density by the code under test, and their probability p(a) da."""
    action, weight = case.grid()
    log_p = case.density().log_prob(torch.as_tensor(action)).numpy()
    return action, log_p, np.exp(log_p) * weight


def close(got: Tensor, want: object, rtol: float = 1e-7, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=rtol, atol=atol)


# --------------------------------------------------------------------------------------------------- the density


@each_integrable
def test_integrates_to_one(case: Row) -> None:
    np.testing.assert_allclose(quadrature(case)[2].sum(), 1, atol=1e-7)


@each
def test_log_prob_is_the_brute_force_one(case: Row) -> None:
    p = case.density()
    points = p.sample((12,))
    if isinstance(case, Box):  # and far from the samples: the latents of another, wider density
        g = geometry(*case.names)
        points = torch.cat([points, BoxNormal(p.loc, 3 * p.scale.clamp(max=3), geometry=g).sample((12,))])
    close(p.log_prob(points), case.reference(points.numpy()), rtol=1e-7, atol=1e-7)


@each
def test_sampling_and_scoring_agree(case: Row) -> None:
    p = case.density()
    drawn = p.draw((50,))
    close(drawn.log_prob, p.log_prob_latent(drawn.latent).detach())
    close(drawn.log_prob, p.log_prob(drawn.action).detach(), atol=1e-5)
    noise, same = (p.noise((50,), torch.Generator().manual_seed(7)) for _ in range(2))
    once, again = p.draw((50,), noise=noise), p.draw((50,), noise=same)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert torch.equal(p.sample_latent((50,), noise=noise), once.latent)
    assert torch.equal(p.to_action(once.latent), once.action)
    assert all(torch.equal(a, b) for a, b in zip(p.sample_and_log_prob((50,), noise=noise), once[::2], strict=True))
    with pytest.raises(ValueError, match=r"noise is \(S\*, B\*"):
        p.draw((3,), noise=noise)


@each_integrable
def test_samples_follow_the_density(case: Row) -> None:
    """Chi-square over cells whose probabilities are the density's integrals; cells that expect under 10 are merged."""
    n = 20_000
    action, _, mass = quadrature(case)
    cells, at = np.unique(case.cell(action), return_inverse=True)
    expected = n * np.bincount(at, mass)
    drawn = case.density().sample((n,)).numpy()
    observed = np.bincount(np.searchsorted(cells, case.cell(drawn)).clip(max=len(cells) - 1), minlength=len(cells))
    many = expected >= 10
    expected = np.append(expected[many], max(expected[~many].sum(), 1e-9))
    observed = np.append(observed[many], observed[~many].sum())
    if expected[-1] < 10:
        assert observed[-1] < 40, "samples where the density has next to no mass"
        expected, observed = expected[:-1], observed[:-1]
    statistic = np.sum((observed - expected) ** 2 / expected)
    assert scipy.stats.chi2.sf(statistic, max(len(expected) - 1, 1)) > FALSE_ALARM


# ------------------------------------------------------------------------------------------- entropy and points


@each_with_entropy
def test_entropy_is_the_quadrature(case: Row) -> None:
    _, log_p, mass = quadrature(case)
    close(case.density().entropy(), -np.sum(mass * np.where(mass > 0, log_p, 0)), rtol=0, atol=1e-5)


@each
def test_entropy_is_the_samples(case: Row) -> None:
    p = case.density()
    surprise = -p.sample_and_log_prob((20_000,))[1]
    if has_entropy(case):
        assert abs(p.entropy() - surprise.mean()) <= SIGMAS * surprise.std() / math.sqrt(20_000) + 1e-9
    else:
        with pytest.raises(NotImplementedError, match=r"sample_and_log_prob\(\(n,\)\)"):
            p.entropy()


@pytest.mark.parametrize("case", [c for c in INTEGRABLE if isinstance(c, Box)], ids=str)
def test_mean_is_the_quadrature(case: Box) -> None:
    action, _, mass = quadrature(case)
    mean = case.density().mean.numpy()
    for i, name in enumerate(case.names):
        if name == "wrap":
            low, high, _ = DIMENSIONS[name]
            vector = np.sum(mass * np.exp(1j * (action[:, i] - low) * TWO_PI / (high - low)))
            if abs(vector) > 1e-6:  # a wider angle has no mean
                turn = np.angle(vector * np.exp(-1j * (mean[i] - low) * TWO_PI / (high - low)))
                assert abs(turn) < 1e-6
        else:
            np.testing.assert_allclose(mean[i], np.sum(mass * action[:, i]), rtol=1e-6, atol=1e-6)


@each_box
def test_median_halves_the_samples(case: Box) -> None:
    n, p = 20_000, case.density()
    action, median = p.sample((n,)), p.median
    assert torch.equal(median, p.deterministic_action)
    slack = SIGMAS * math.sqrt(n) / 2
    for i, name in enumerate(case.names):
        low, high, _ = DIMENSIONS[name]
        a, m = action[:, i], median[i]
        if name == "wrap":  # half the circle ahead of it
            ahead = ((a - m).remainder(high - low) < (high - low) / 2).sum()
            assert abs(ahead - n / 2) <= slack
            assert (
                case.std[i] > 3 or (a - m).remainder(high - low).sub((high - low) / 2).abs().mean() > (high - low) / 4
            )
        else:
            assert (a <= m).sum() >= n / 2 - slack
            assert (a >= m).sum() >= n / 2 - slack


@each_box
def test_mode_is_the_highest_point_or_refused(case: Box) -> None:
    p = case.density()
    if {"free", "wrap", "mean", "unbound"} >= set(case.names):
        assert (p.log_prob(p.mode) >= p.log_prob(p.sample((500,))) - 1e-9).all()
    else:
        with pytest.raises(NotImplementedError, match="use `median`"):
            _ = p.mode


@pytest.mark.parametrize("case", BETAS, ids=str)
def test_points_of_a_beta(case: Betas) -> None:
    p, laws = case.density(), case.laws
    close(p.mean, [law.mean() for law in laws])
    close(p.variance, [law.var() for law in laws])
    assert torch.equal(p.mean, p.deterministic_action)
    assert (p.log_prob(p.mode) >= p.log_prob(p.sample((500,))) - 1e-9).all()
    with pytest.raises(NotImplementedError, match="use `mean`"):
        _ = p.median


def test_points_of_a_product_are_those_of_its_parts() -> None:
    p = BESIDE[1].density()
    gaussian, beta = p.parts
    close(p.mean, [gaussian.mean[1], beta.mean[0], gaussian.mean[0]])
    with pytest.raises(NotImplementedError, match="Beta"):
        _ = p.median
    assert p.has_rsample
    choice = BESIDE[2].density()
    assert not choice.has_rsample
    with pytest.raises(NotImplementedError, match="reparametrised"):
        choice.rsample()
    assert choice.deterministic_action.tolist()[1:] == [2.0, 1.0, 2.0]
    assert BESIDE[3].density().sample().dtype == torch.int64


def test_points_of_a_categorical() -> None:
    p = CHOICES[1].density()
    assert p.mode == p.deterministic_action == 3
    for name in ("mean", "variance"):
        with pytest.raises(NotImplementedError, match="use `"):
            getattr(p, name)


def test_variance_of_free_dimensions_only() -> None:
    close(Box(("free", "unbound"), (0, 0), (2.0, 3.0), (0.5,)).density().variance, [4.0, 9.0])
    with pytest.raises(NotImplementedError, match="covariance_matrix"):
        _ = BOXES[1].density().variance


# ------------------------------------------------------------------------------------------ torch's own densities

TORCH = {
    "free": lambda low, high: T.identity_transform,
    "squash": lambda low, high: T.ComposeTransform([T.SigmoidTransform(), T.AffineTransform(low, high - low)]),
    "up": lambda low, high: T.ComposeTransform([T.SoftplusTransform(), T.AffineTransform(low, 1.0)]),
    "down": lambda low, high: T.ComposeTransform([T.SoftplusTransform(), T.AffineTransform(high, -1.0)]),
}
SMOOTH = [box for box in BOXES if set(box.names) <= set(TORCH)]


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_smooth_maps_are_torchs_transforms(case: Box) -> None:
    normal = MultivariateNormal(torch.tensor(case.loc, dtype=torch.float64), scale_tril=torch.tensor(case.tril))
    maps = [TORCH[name](*DIMENSIONS[name][:2]) for name in case.names]
    theirs = TransformedDistribution(normal, [T.CatTransform(maps, dim=-1, lengths=[1] * len(maps))])
    p = case.density()
    action = p.sample((20,))
    close(p.log_prob(action), theirs.log_prob(action))


@pytest.mark.parametrize(("d", "rank"), [(2, 1), (5, 2), (40, 3)])
def test_a_low_rank_covariance_is_torchs(d: int, rank: int) -> None:
    loc, loading = torch.randn(3, d, dtype=torch.float64), torch.randn(3, d, rank, dtype=torch.float64)
    residual = torch.rand(3, d, dtype=torch.float64) + 0.1
    p = BoxNormal(loc, loading=loading, residual=residual)
    theirs = LowRankMultivariateNormal(loc, loading, residual.square())
    action = p.sample((20,))
    close(p.log_prob(action), theirs.log_prob(action))
    close(p.entropy(), theirs.entropy())
    close(p.scale, theirs.stddev)
    close(p.scale_tril, theirs.scale_tril, atol=1e-12)


def test_a_low_rank_of_parallel_columns_is_that_of_one() -> None:
    """Shared numbers that do the same, ten million times as strongly as a dimension's own: 1 + A^T A is singular
    in float64 once it is formed."""
    column, residual = torch.tensor([[3e3], [-4e3]], dtype=torch.float64), torch.full((2,), 5e-4, dtype=torch.float64)
    one = BoxNormal(torch.zeros(2).double(), loading=5 * column, residual=residual)
    two = BoxNormal(torch.zeros(2).double(), loading=torch.cat([3 * column, 4 * column], 1), residual=residual)
    action = one.sample((50,))
    close(two.log_prob(action), one.log_prob(action), rtol=1e-6)
    close(two.entropy(), one.entropy(), rtol=1e-6)


@pytest.mark.parametrize("own", [1e-1, 1e-2, 1e-3])
def test_a_low_rank_score_cancels_nothing(own: float) -> None:
    """In float32, where each dimension's own noise is far smaller than what is shared."""
    loading, residual = torch.tensor([[1.0], [-2.0], [0.5]]), torch.full((3,), own)
    p = BoxNormal(torch.zeros(3), loading=loading, residual=residual)
    exact = MultivariateNormal(torch.zeros(3).double(), scale_tril=p.scale_tril.double())
    action = p.sample((100,))
    q = BoxNormal(torch.zeros(3).double(), loading=loading.double(), residual=residual.double())
    close(p.log_prob(action), q.log_prob(action.double()), rtol=1e-5)
    close(q.log_prob(action.double()), exact.log_prob(action.double()), rtol=1e-2)


# ---------------------------------------------------------------------------------------------------- gradients


def parameters(case: Box) -> tuple[Tensor, Tensor]:
    spread = torch.tensor(case.tril if case.corr else case.std, dtype=torch.float64)
    if case.shared:
        loading, residual = case.density()._low
        spread = torch.cat([loading, residual[:, None]], -1)
    return torch.tensor(case.loc, dtype=torch.float64, requires_grad=True), spread.requires_grad_()


def rebuilt(case: Box, loc: Tensor, spread: Tensor) -> BoxNormal:
    given = {"scale_tril": spread.tril()} if case.corr else {"scale": spread}
    if case.shared:
        given = {"loading": spread[..., :-1], "residual": spread[..., -1]}
    return BoxNormal(loc, **given, geometry=geometry(*case.names), validate_args=False)


@each_box
def test_gradients_by_finite_differences(case: Box) -> None:
    p, (loc, spread) = case.density(), parameters(case)
    noise = p.noise((2,))
    action, latent, _ = p.draw((2,), noise=noise)
    assert gradcheck(lambda m, s: rebuilt(case, m, s).log_prob(action), (loc, spread))
    assert gradcheck(lambda m, s: rebuilt(case, m, s).log_prob_latent(latent), (loc, spread))
    assert gradcheck(lambda m, s: rebuilt(case, m, s).sample_and_log_prob((2,), noise=noise), (loc, spread))
    assert not rebuilt(case, loc, spread).sample().requires_grad
    if has_entropy(case):
        assert gradcheck(lambda m, s: rebuilt(case, m, s).entropy(), (loc, spread))
    assert gradcheck(lambda m, s: rebuilt(case, m, s).mean, (loc, spread))
    if not any(n.startswith("clip") for n in case.names):
        assert gradcheck(p.log_prob, action.requires_grad_())


@pytest.mark.parametrize("logits", [(0.3, -1.0, 2.0), (0.3, -INF, 2.0)])
def test_gradients_of_a_categorical(logits: tuple[float, ...]) -> None:
    """A forbidden choice has gradient 0, the others those of the Categorical without it."""
    allowed = torch.tensor(logits).isfinite()
    x = torch.tensor(logits, dtype=torch.float64)[allowed].requires_grad_()

    def density(few: Tensor) -> Categorical:
        return Categorical(torch.full((3,), -INF, dtype=torch.float64).masked_scatter(allowed, few))

    other = density(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)[: allowed.sum()])
    assert gradcheck(lambda few: density(few).entropy(), x)
    assert gradcheck(lambda few: density(few).log_prob(torch.tensor([0, 2])), x)
    assert gradcheck(lambda few: kl_divergence(density(few), other), x)
    assert gradcheck(lambda few: kl_divergence(other, density(few)), x)
    full = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    p = Categorical(full)
    (slope,) = torch.autograd.grad(p.entropy() + p.log_prob(torch.tensor(0)) + kl_divergence(p, other), full)
    assert (slope[~allowed] == 0).all()
    assert slope.isfinite().all()


BOTH = {f"{a:g}, {b:g}": (a, b) for a, b in [(1.0, 1.0), (1.3, 4.0), (20.0, 3.0), (3e4, 1e4)]}


@pytest.mark.parametrize("given", BOTH)
def test_gradients_of_a_beta_by_finite_differences(given: str) -> None:
    a, b = (torch.tensor([x + 0.5], dtype=torch.float64, requires_grad=True) for x in BOTH[given])
    p = Beta(a.detach(), b.detach(), geometry=geometry("squash"))
    action, latent, _ = p.draw((3,))
    eps = 1e-6 * a.item()  # smaller ones are lost in log-gammas of such numbers
    other = Beta(a.detach() + 1, b.detach() * 2, geometry=p.geometry)
    for what in (
        lambda q: q.log_prob(action),
        lambda q: q.log_prob_latent(latent, jacobian=False),
        lambda q: q.entropy(),
        lambda q: q.mean,
        lambda q: q.variance,
        lambda q: kl_divergence(q, other),
        lambda q: kl_divergence(other, q),
    ):
        assert gradcheck(lambda x, y, f=what: f(Beta(x, y, geometry=p.geometry, validate_args=False)), (a, b), eps=eps)
    assert gradcheck(p.log_prob, action.requires_grad_())


@pytest.mark.parametrize("given", BOTH)
def test_implicit_gradients_of_a_beta_are_those_of_expectations(given: str) -> None:
    """d E f / d alpha and d beta by 100,000 reparametrised samples, against quadratures of scipy's density with other
    parameters; eight tests of FALSE_ALARM each."""
    n, (a, b) = 100_000, BOTH[given]
    at = torch.tensor([a, b], dtype=torch.float64).expand(n, 2).clone().requires_grad_()
    low, high, _ = DIMENSIONS["squash"]
    p = Beta(at[:, :1], at[:, 1:], geometry=geometry("squash"))
    action, latent, _ = p.draw()
    for drawn, f in ((action, lambda y: (low + (high - low) * y) ** 2), (latent, logit)):
        (slope,) = torch.autograd.grad((drawn.square() if drawn is action else drawn).sum(), at, retain_graph=True)

        def expected(a: float, b: float, f=f) -> float:
            x, weight, _ = Betas((a,), (b,)).axis(0)
            return float(np.sum(weight * np.exp(Betas((a,), (b,)).reference(x[:, None])) * f((x - low) / (high - low))))

        for i, (da, db) in enumerate(((1e-4 * a, 0.0), (0.0, 1e-4 * b))):
            step = da + db
            true = (expected(a + da, b + db) - expected(a - da / 2, b - db / 2)) / (1.5 * step)
            got, error = slope[:, i].mean().item(), slope[:, i].std().item() / math.sqrt(n)
            assert abs(got - true) <= SIGMAS * error + 3e-4 * abs(true), (i, got, true, error)


# ------------------------------------------------------------------------------------------- float32's extremes

KINDS = ("free", "squash", "up", "down", "wrap", "clip", "clip_up", "clip_down")
PAIRS = [(a, b) for a, b in itertools.product(KINDS, repeat=2) if not (a.startswith("clip") and b.startswith("clip"))]
TRIPLES = [("squash", "wrap", "free"), ("wrap", "up", "wrap"), ("clip", "down", "wrap")]
LOCS, STDS = (-1e4, 0.0, 1e4), (1e-6, 1e-2, 1.0, 1e4)


def ends(name: str) -> Tensor:
    """Both ends of the box and its middle; 1e4 away where it is open."""
    low, high = max(DIMENSIONS[name][0], -1e4), min(DIMENSIONS[name][1], 1e4)
    return torch.tensor([low, (low + high) / 2, high])


def extremes(names: tuple[str, ...], covariance: str) -> tuple[Tensor, Tensor, Tensor]:
    """Every loc, spread and action (of three dimensions a random few): (N, D), (N, D) or (N, D, D), and (A, 1, D). Of
    rank 1 the spread is (N, D, 2), what is shared and what is not."""
    d = len(names)
    loc = torch.cartesian_prod(*[torch.tensor(LOCS)] * d).reshape(-1, d)
    spread = torch.cartesian_prod(*[torch.tensor(STDS)] * d).reshape(-1, d)
    action = torch.cartesian_prod(*[ends(n) for n in names]).reshape(-1, 1, d)
    if covariance == "rank 1":
        signs = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]])[:, :d]
        rows = torch.stack([0.99**0.5 * signs, 0.1 * torch.ones(2, d)], -1)
        spread = (spread[:, None, :, None] * rows).reshape(-1, d, 2)
    if covariance == "full":
        lag = np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
        corr = torch.tensor(np.stack([np.linalg.cholesky(r**lag) for r in (-0.99, 0.99)]), dtype=torch.float32)
        spread = (spread[:, None, :, None] * corr).reshape(-1, d, d)
    rows = torch.cartesian_prod(torch.arange(len(loc)), torch.arange(len(spread)))
    rows = rows[torch.randperm(len(rows))[:500]] if d > 2 else rows
    return loc[rows[:, 0]], spread[rows[:, 1]], action


EXTREME = [((k,), "diagonal") for k in KINDS]
EXTREME += [(names, word) for word in ("rank 1", "full") for names in PAIRS + TRIPLES]


@pytest.mark.parametrize(("names", "covariance"), EXTREME, ids=str)
def test_float32_survives_extremes(names: tuple[str, ...], covariance: str) -> None:
    loc, spread, action = extremes(names, covariance)
    loc.requires_grad_()
    spread.requires_grad_()
    given = {"scale_tril" if covariance == "full" else "scale": spread}
    if covariance == "rank 1":
        given = {"loading": spread[..., :1], "residual": spread[..., 1]}
    p = BoxNormal(loc, **given, geometry=geometry(*names))
    drawn = p.draw((4,), noise=torch.tensor([-3.0, -0.5, 0.5, 3.0])[:, None, None].expand_as(p.noise((4,))))
    values = {"log_prob": p.log_prob(action), "sample's log_prob": drawn.log_prob, "sample": drawn.action}
    values |= {"mean": p.mean, "median": p.median}
    if has_entropy(Box(names, (), (), () if covariance == "diagonal" else (0.5,))):
        values["entropy"] = p.entropy()
    for name, value in values.items():
        assert value.isfinite().all(), name
        for slope in torch.autograd.grad(value.sum(), (loc, spread), retain_graph=True, allow_unused=True):
            assert slope is None or slope.isfinite().all(), f"gradient of {name}"
    assert p.support.check(drawn.action).all()
    for i, name in enumerate(names):
        low, high = torch.tensor(DIMENSIONS[name][:2])
        for points in (drawn.action, p.mean, p.median):
            a = points[..., i]
            assert (a >= low).all()
            assert ((a < high) if name == "wrap" else (a <= high)).all()


def test_a_beta_survives_extremes_in_float32() -> None:
    each = torch.tensor([1.0, 1 + 1e-6, 1.5, 100.0, 1e4, 1e8])
    a, b = (x.reshape(-1, 1).clone().requires_grad_() for x in torch.cartesian_prod(each, each).unbind(-1))
    p = Beta(a, b, geometry=geometry("squash"))
    noise = torch.cat([p.noise((200,)), torch.tensor([-9.0, -3.0, 0.0, 3.0, 9.0])[:, None, None].expand(5, 36, 32)])
    drawn = p.draw((205,), noise=noise)
    values = {"log_prob": p.log_prob(ends("squash")[:, None, None]), "sample's log_prob": drawn.log_prob}
    values |= {"sample": drawn.action, "latent": drawn.latent, "entropy": p.entropy(), "mean": p.mean}
    values |= {"variance": p.variance, "mode": p.mode}
    for name, value in values.items():
        assert value.isfinite().all(), name
        for slope in torch.autograd.grad(value.sum(), (a, b), retain_graph=True):
            assert slope.isfinite().all(), f"gradient of {name}"
    assert p.support.check(drawn.action).all()
    exact = Beta(a.detach().double(), b.detach().double(), geometry=geometry("squash"))
    close(p.entropy(), exact.entropy(), rtol=1e-5, atol=1e-5)
    close(drawn.log_prob, exact.log_prob_latent(drawn.latent.detach().double()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 1.0), (-math.pi, math.pi), (1e6, 1e6 + 7), (-3e-5, 0.0)])
def test_a_wrapped_sample_is_never_the_upper_end(low: float, high: float) -> None:
    p = BoxNormal(torch.zeros(1), torch.ones(1), geometry=Geometry.box([low], [high], periodic=(0,)))
    below = torch.tensor([TWO_PI, -1e-9, -1e-30, 2 * TWO_PI, -TWO_PI])
    below = torch.cat([below, torch.nextafter(below, torch.tensor(-INF)), torch.nextafter(below, torch.tensor(INF))])
    drawn = p.draw((len(below),), noise=below[:, None])
    assert ((drawn.latent >= 0) & (drawn.latent < torch.tensor(TWO_PI))).all()
    assert ((drawn.action >= torch.tensor(low)) & (drawn.action < torch.tensor(high))).all()


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 0.1), (-2.6, -0.3), (-0.2, 0.1), (-1.0, 3.0), (0.0, 1e-3), (999.9, 1e4)]
)
def test_a_saturated_sample_is_in_its_box(low: float, high: float) -> None:
    for loc in (-1e4, -90.0, -17.0, 17.0, 90.0, 1e4):
        p = BoxNormal(torch.tensor([loc]), torch.ones(1), geometry=Geometry.box([low], [high]))
        action, log_prob = p.sample_and_log_prob((9,))
        assert p.support.check(action).all()
        assert (log_prob.isfinite() & p.log_prob(action).isfinite()).all()


def test_a_forbidden_choice_is_never_drawn() -> None:
    p = CHOICES[1].density(torch.float32)
    ends = torch.tensor([0.0, 1e-30, 0.5, 1 - 2**-24])
    assert p.draw((4,), noise=ends).action.tolist() == [1, 1, 3, 3]
    assert Categorical(torch.tensor([-INF, -60.0, 0.0, -INF])).draw((4,), noise=ends).action.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("name", ["squash", "up", "down"])
def test_a_bound_is_scored_as_the_nearest_number_inside(name: str) -> None:
    for bound in (torch.tensor([b]) for b in DIMENSIONS[name][:2] if math.isfinite(b)):
        inside = torch.nextafter(bound, torch.tensor([1.0]))
        p = Box((name,), (0.2,), (1.5,)).density(torch.float32)
        assert p.log_prob(bound) == p.log_prob(inside)
        assert p.log_prob(bound) > -200


def test_a_large_edge_has_a_number_inside() -> None:
    p = BoxNormal(torch.zeros(1), torch.ones(1), geometry=Geometry.box([1e8], [INF]))
    edge = torch.tensor([1e8])
    assert p.log_prob(edge) == p.log_prob(torch.nextafter(edge, torch.tensor([INF])))


@each
def test_float32_agrees_with_float64(case: Row) -> None:
    p, exact = case.density(torch.float32), case.density()
    action, log_prob = p.sample_and_log_prob((20,))
    assert log_prob.dtype == torch.float32
    tight = {"rtol": 1e-4, "atol": 1e-3}  # the narrowest latent has 0.03 rad, rounded at 5e-7
    close(p.log_prob(action), exact.log_prob(action.double() if action.is_floating_point() else action), **tight)
    close(log_prob, p.log_prob(action), **tight)
    if has_entropy(case):
        close(p.entropy(), exact.entropy(), rtol=1e-5, atol=1e-5)
    if isinstance(case, Box | Betas):
        close(p.mean, exact.mean, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------------- the circle


@pytest.mark.parametrize("case", [box for box in BOXES if "wrap" in box.names], ids=str)
def test_a_period_changes_nothing(case: Box) -> None:
    p = case.density()
    action = p.sample((9,))
    circle = torch.tensor([float(name == "wrap") for name in case.names], dtype=torch.float64)
    low, high, _ = DIMENSIONS["wrap"]
    for turns in (-3, 1, 50):
        close(p.log_prob(action + circle * turns * (high - low)), p.log_prob(action))
        moved = BoxNormal(p.loc + circle * turns * TWO_PI, **spread_of(case, p), geometry=p.geometry)
        close(moved.log_prob(action), p.log_prob(action))
        assert torch.allclose(moved.median, p.median)


def test_a_point_mass_far_from_the_angle_it_is_correlated_with() -> None:
    """Images are centred where the sum has its terms: here 60 standard deviations from the angle's own mean."""
    case = Box(("wrap", "clip"), (1.0, 7.0), (2.0, 0.1), (0.95,))
    action = np.array([[0.3, -1.0], [0.3, 0.4], [2.9, 1.5], [-1.0, 1.0]])
    close(case.density().log_prob(torch.as_tensor(action)), case.reference(action))


# ------------------------------------------------------------------------------------------------- shapes, expand


def one_of(p: object, row: tuple[int, ...]) -> BoxNormal | Categorical | Beta | Choices | Product:
    """A density of a batch, made anew."""
    if isinstance(p, Product):
        return Product([one_of(part, row) for part in p.parts], p._columns)
    if isinstance(p, Categorical | Choices):
        return type(p)(p.logits[row])
    if isinstance(p, Beta):
        return Beta(p.alpha[row], p.beta[row], geometry=p.geometry)
    assert isinstance(p, BoxNormal)
    if p._low is not None:
        return BoxNormal(p.loc[row], loading=p._low[0][row], residual=p._low[1][row], geometry=p.geometry)
    spread = {"scale": p.scale[row]} if p._scale is not None else {"scale_tril": p.scale_tril[row]}
    return BoxNormal(p.loc[row], **spread, geometry=p.geometry)


POINTS = {
    Categorical: ["mode", "probs"],
    Choices: ["mode", "probs"],
    Beta: ["mean", "mode", "variance"],
    Product: ["deterministic_action"],
    BoxNormal: ["mean", "median", "scale", "scale_tril", "covariance_matrix"],
}


@each
@pytest.mark.parametrize("batch", [(3,), (2, 3)], ids=str)
def test_batches_are_their_rows(case: Row, batch: tuple[int, ...]) -> None:
    p = case.density(batch=batch)
    assert (p.batch_shape, p.event_shape) == (batch, case.density().event_shape)
    action, log_prob = p.sample_and_log_prob((5, 4))
    assert action.shape == (5, 4, *batch, *p.event_shape)
    assert log_prob.shape == p.log_prob(action).shape == (5, 4, *batch)
    assert p.sample().shape == p.deterministic_action.shape == (*batch, *p.event_shape)
    assert p.log_prob(action[0, 0]).shape == batch
    one = action[(0, 0, *(0 for _ in batch))]
    assert p.log_prob(one).shape == batch  # an action without a batch meets every density
    for row in itertools.product(*map(range, batch)):
        alone = one_of(p, row)
        close(
            alone.log_prob(action[(..., *row, slice(None))[: -1 if not p.event_shape else None]]),
            log_prob[..., *row],
            atol=1e-5,
        )
        close(alone.log_prob(one), p.log_prob(one)[row])
        if has_entropy(case):
            close(alone.entropy(), p.entropy()[row])


@each
def test_expanded_densities_are_their_rows(case: Row) -> None:
    p = case.density(batch=(3,))
    wide = p.expand((2, 3))
    assert (type(wide), wide.batch_shape, wide.event_shape) == (type(p), (2, 3), p.event_shape)
    assert wide._validate_args == p._validate_args
    action, log_prob = wide.sample_and_log_prob((4,))
    assert log_prob.shape == (4, 2, 3)
    close(wide.log_prob(action), p.log_prob(action))
    for name in POINTS[type(p)]:
        close(getattr(wide, name), getattr(p, name).expand_as(getattr(wide, name)))
        assert getattr(wide, name).shape[:2] == (2, 3)
    if has_entropy(case):
        close(wide.entropy(), p.entropy().expand(2, 3))


@each_box
def test_one_covariance_serves_a_batch(case: Box) -> None:
    one, p = case.density(), case.density(batch=(3,))
    spread = spread_of(case, one)
    shared = BoxNormal(p.loc, **spread, geometry=p.geometry)
    alone = [BoxNormal(loc, **spread, geometry=p.geometry) for loc in p.loc]
    action = p.sample()
    assert shared.batch_shape == (3,)
    close(shared.log_prob(action), torch.stack([q.log_prob(a) for q, a in zip(alone, action, strict=True)]))
    for name in ("mean", "scale", "covariance_matrix"):
        close(getattr(shared, name), torch.stack([getattr(q, name) for q in alone]))
    if has_entropy(case):
        close(shared.entropy(), torch.stack([q.entropy() for q in alone]))
    other = BoxNormal(one.loc, **{k: v.expand(2, *v.shape) * 2 for k, v in spread.items()}, geometry=p.geometry)
    assert other.batch_shape == (2,)
    assert other.sample().shape == (2, len(case.names))
    assert latent_kl(shared, shared).shape == (3,)


@each_box
def test_an_empty_batch_is_a_batch(case: Box) -> None:
    p = case.density(batch=(0,))
    action, log_prob = p.sample_and_log_prob((2,))
    assert (action.shape, log_prob.shape) == ((2, 0, len(case.names)), (2, 0))


# ----------------------------------------------------------------------------------------- covariance, four ways


@pytest.mark.parametrize("case", [box for box in BOXES if box.correlated], ids=str)
def test_one_covariance_given_in_three_ways(case: Box) -> None:
    p = case.density()
    order = list(p.geometry.order)
    factor = torch.linalg.cholesky(torch.tensor(case.covariance[np.ix_(order, order)]))
    ways = [
        p,
        BoxNormal(p.loc, covariance_matrix=torch.tensor(case.covariance), geometry=p.geometry),
        BoxNormal(p.loc, factor=factor, geometry=p.geometry),
    ]
    action = p.sample((5,))
    for q in ways:
        close(q.scale_tril, case.tril, atol=1e-12)
        close(q.covariance_matrix, case.covariance, atol=1e-12)
        close(q.scale, case.std)
        close(q.log_prob(action), p.log_prob(action))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "names", [("wrap", "free"), ("wrap", "squash", "clip"), ("clip", "wrap", "up", "free")], ids=str
)
def test_reordering_loses_nothing_where_scales_differ_widely(names: tuple[str, ...], dtype: torch.dtype) -> None:
    d = len(names)
    std = np.logspace(-6, 4, d)
    for flip in (std, std[::-1]):
        tril = torch.tensor(cholesky(flip, np.full((d, d), 0.9) + 0.1 * np.eye(d)), dtype=dtype)
        p = BoxNormal(torch.zeros(d, dtype=dtype), scale_tril=tril, geometry=geometry(*names))
        tight = 1e-12 if dtype == torch.float64 else 1e-5
        close(p.scale_tril, tril.numpy(), rtol=tight, atol=0)
        close(p.covariance_matrix, (tril @ tril.mT).numpy(), rtol=tight, atol=0)
        close(p.scale, flip, rtol=tight, atol=0)


def test_a_diagonal_is_a_full_covariance_without_correlation() -> None:
    for case in (box for box in BOXES if not box.correlated and box.names.count("clip") < 2 and len(box.names) < 3):
        p = case.density()
        full = BoxNormal(p.loc, scale_tril=p.scale_tril, geometry=p.geometry)
        action = p.sample((5,))
        close(full.log_prob(action), p.log_prob(action))
        close(full.mean, p.mean)
        if len(case.names) == 1:
            close(full.entropy(), p.entropy(), atol=1e-5)


# ------------------------------------------------------------------------------------------------------- refusals


def make(names: tuple[str, ...], **given: object) -> BoxNormal:
    return BoxNormal(torch.zeros(len(names)), **{"geometry": geometry(*names), **given})


REFUSED = {
    "two clipped, full": (
        lambda: make(("clip", "clip"), scale_tril=torch.eye(2)),
        ["at most one dimension can be clipped", "(0, 1)", 'bounds="squash"', 'covariance="diagonal"'],
    ),
    "three wrapped, full": (
        lambda: make(("wrap",) * 3, covariance_matrix=torch.eye(3)),
        ["at most two angles", "(0, 1, 2)", 'covariance="diagonal"'],
    ),
    "two wrapped and a clipped, full": (
        lambda: make(("wrap", "clip", "wrap"), factor=torch.eye(3)),
        ["one angle and one clipped", "wrapped (0, 2), clipped (1,)", 'covariance="diagonal"'],
    ),
    "low = high": (lambda: Geometry.box([0, 2], [1, 2]), ["low < high", "dimension 1: low 2.0", "cause:", "fix:"]),
    "low > high": (lambda: Geometry.box([3], [1]), ["low < high", "low 3.0, high 1.0"]),
    "low is NaN": (lambda: Geometry.box([math.nan], [1]), ["low < high", "low nan"]),
    "two lengths": (lambda: Geometry.box([0, 0], [1]), ["one length", "(2,) and (1,)"]),
    "an unknown word": (lambda: Geometry.box([0], [1], bounds="tanh"), ["auto, squash, clip, mean, free", "'tanh'"]),
    "two words for three dimensions": (
        lambda: Geometry.box([0] * 3, [1] * 3, bounds=["clip", "squash"]),
        ["each of the 3 dimensions", "['clip', 'squash']"],
    ),
    "squash on the half-line": (
        lambda: Geometry.box([0, 0], [1, INF], bounds="squash"),
        ['bounds="squash" needs finite bounds', "dimension 1", 'bounds="auto"'],
    ),
    "mean on the line": (lambda: Geometry.box([-INF], [INF], bounds="mean"), ['"mean" needs finite', 'bounds="auto"']),
    "wider than float32": (lambda: Geometry.box([-3e38], [3e38]), ["float32", "dimension 0", "really has", "clip"]),
    "narrower than float32": (
        lambda: Geometry.box([0, 1e9], [1, 1e9 + 1], periodic=(1,)),
        ["float32", "dimension 1 with low 1000000000.0", "really has"],
    ),
    "periodic out of range": (
        lambda: Geometry.box([0, 0], [1, 1], periodic=(2,)),
        ["2 dimensions", "given: 2", "from 0 to 1"],
    ),
    "periodic is no index": (lambda: Geometry.box([0], [1], periodic=("yaw",)), ["indices", "'yaw'"]),
    "periodic without a period": (
        lambda: Geometry.box([0], [INF], periodic=(0,)),
        ["finite interval", "dimension 0 with low 0.0, high inf", "fix:"],
    ),
    "no covariance": (lambda: make(("free",)), ["exactly one of scale, scale_tril", "given: none"]),
    "two covariances": (
        lambda: make(("free",), scale=torch.ones(1), factor=torch.eye(1)),
        ["exactly one of", "given: scale, factor"],
    ),
    "loading alone": (
        lambda: make(("free",) * 2, loading=torch.ones(2, 1)),
        ["loading with residual", "given: loading"],
    ),
    "two residuals for three rows": (
        lambda: make(("free",) * 3, loading=torch.ones(3, 1), residual=torch.ones(2)),
        ["loading is (*B, D, R) and residual (*B, D)", "(3, 1) and (2,)"],
    ),
    "a residual of 0": (
        lambda: make(("free",) * 2, loading=torch.ones(2, 1), residual=torch.zeros(2)),
        ["residual must be positive", "0.0"],
    ),
    "two clipped, of low rank": (
        lambda: make(("clip", "clip"), loading=torch.ones(2, 1), residual=torch.ones(2)),
        ["at most one dimension can be clipped", 'bounds="squash"'],
    ),
    "shapes that do not fit": (lambda: make(("free",) * 2, scale=torch.ones(3)), ["(*B, D)", "(2,) and (3,)"]),
    "a vector for a matrix": (lambda: make(("free",) * 2, factor=torch.ones(2)), ["factor (*B, D, D)", "(2,)"]),
    "another geometry": (lambda: make(("free",) * 2, scale=torch.ones(2), geometry=geometry("up")), ["1 dim", "has 2"]),
    "indefinite": (
        lambda: make(("free",) * 2, covariance_matrix=torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
        ["positive definite", "scale_tril="],
    ),
    "asymmetric": (
        lambda: make(("free",) * 2, covariance_matrix=torch.tensor([[1.0, 0.5], [0.0, 1.0]])),
        ["symmetric", "scale_tril="],
    ),
    "NaN in loc": (
        lambda: BoxNormal(torch.tensor([[0.0], [math.nan]]), torch.ones(1)),
        ["loc must be finite", "nan at index (1, 0)", "diverged"],
    ),
    "infinite scale": (lambda: make(("free",), scale=torch.tensor([INF])), ["scale must be finite", "inf at index"]),
    "negative scale": (lambda: make(("free",), scale=torch.tensor([-1.0])), ["must be positive", "-1.0", "softplus"]),
    "negative diagonal": (
        lambda: make(("wrap", "free"), scale_tril=torch.diag(torch.tensor([1.0, -1.0]))),
        ["diagonal of scale_tril", "-1.0"],
    ),
    "upper triangular": (
        lambda: make(("free",) * 2, scale_tril=torch.ones(2, 2)),
        ["lower triangular", "torch.tril", "covariance_matrix="],
    ),
    "an action outside": (
        lambda: make(("squash",), scale=torch.ones(1)).log_prob(torch.tensor([3.1])),
        ["support", "squash", "low=(-1.0,), high=(3.0,)", "3.1"],
    ),
    "an action that is NaN": (
        lambda: make(("wrap",), scale=torch.ones(1)).log_prob(torch.tensor([math.nan])),
        ["support", "nan"],
    ),
    "an action of another length": (lambda: make(("up",), scale=torch.ones(1)).log_prob(torch.ones(2)), ["size"]),
    "logits that are NaN": (lambda: Categorical(torch.tensor([math.nan, 0])), ["logits must be finite", "diverged"]),
    "nothing allowed": (lambda: Categorical(torch.full((2,), -INF)), ["mask that forbids everything"]),
    "infinite logits": (lambda: Categorical(torch.tensor([INF, 0.0])), ["logits must be finite"]),
    "a Beta below 1": (
        lambda: Beta(torch.tensor([0.5]), torch.ones(1)),
        ["alpha is finite and 1 or above", "0.5", "1 + softplus(.)"],
    ),
    "a Beta that is NaN": (lambda: Beta(torch.ones(1), torch.tensor([math.nan])), ["beta is finite", "diverged"]),
    "a Beta of two lengths": (lambda: Beta(torch.ones(1), torch.ones(2)), ["(*B, D)", "(1,) and (2,)"]),
    "a Beta on the line": (
        lambda: Beta(torch.ones(1), torch.ones(1), geometry=geometry("free")),
        ["finite intervals", "free", "Product"],
    ),
    "a Beta's action outside": (
        lambda: Beta(torch.ones(1), torch.ones(1)).log_prob(torch.tensor([1.1])),
        ["support", "1.1"],
    ),
    "a Beta's latent of another length": (
        lambda: Beta(torch.ones(3), torch.ones(3)).log_prob_latent(torch.zeros(5, 1)),
        ["latent is (S*, B*, D), D = 3", "(5, 1)"],
    ),
    "several choices of another length": (
        lambda: Choices(torch.zeros(3, 4)).log_prob_latent(torch.zeros(5, 1)),
        ["latent is (S*, B*, D), D = 3", "(5, 1)"],
    ),
    "a product's latent of another length": (
        lambda: Product([Beta(torch.ones(2), torch.ones(2)), Beta(torch.ones(1), torch.ones(1))]).log_prob_latent(
            torch.zeros(5, 4)
        ),
        ["latent is (S*, B*, D), D = 3", "(5, 4)"],
    ),
    "one choice as several": (lambda: Choices(torch.zeros(3)), ["(*B, D, K)", "(3,)"]),
    "no such choice of several": (lambda: Choices(torch.zeros(2, 2)).log_prob(torch.tensor([0, 2])), ["support"]),
    "a product of nothing": (lambda: Product([]), ["has parts", "none"]),
    "a product of two batches": (
        lambda: Product([Categorical(torch.zeros(2, 3)), Categorical(torch.zeros(3, 3))]),
        ["one batch shape", "(2,), (3,)"],
    ),
    "a column twice": (
        lambda: Product([Categorical(torch.zeros(2)), Categorical(torch.zeros(2))], [[0], [0]]),
        ["each of the 2 once", "[[0], [0]]"],
    ),
    "an action outside a part": (
        lambda: Product([Categorical(torch.zeros(2)), make(("up",), scale=torch.ones(1))]).log_prob(
            torch.tensor([2.0, 1.0])
        ),
        ["support", "IntegerInterval(lower_bound=0, upper_bound=1) x box("],
    ),
    "no such choice": (lambda: Categorical(torch.zeros(2)).log_prob(torch.tensor(2)), ["support", "upper_bound=1"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_why_and_what_works(name: str) -> None:
    act, words = REFUSED[name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (every word of it is checked below)
        act()
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in\n{caught.value}"


def test_validation_can_be_left_out() -> None:
    nan = torch.tensor([math.nan])
    assert BoxNormal(nan, torch.ones(1), validate_args=False).log_prob(torch.zeros(1)).isnan()
    assert BoxNormal(torch.zeros(1), -torch.ones(1), validate_args=False).expand((2,)).scale[0] == -1
    squash = make(("squash",), scale=torch.ones(1), validate_args=False)
    assert squash.log_prob(torch.tensor([99.0])) == squash.log_prob(torch.tensor([3.0]))
    assert Categorical(nan, validate_args=False).logits.isnan()


# ------------------------------------------------------------------------------------------------------------ KL


def other_than(case: Box) -> Box:
    """Another density on the same box."""
    return Box(
        case.names,
        tuple(m + 0.4 for m in case.loc),
        tuple(1.3 * s for s in case.std),
        tuple(0.5 * c for c in case.corr),
        tuple(tuple(0.5 * v for v in row) for row in case.shared),
    )


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_kl_of_smooth_maps_is_the_normals(case: Box) -> None:
    p, q = case.density(), other_than(case).density()
    exact = kl_divergence(
        MultivariateNormal(p.loc, scale_tril=p.scale_tril), MultivariateNormal(q.loc, scale_tril=q.scale_tril)
    )
    close(kl_divergence(p, q), exact)
    close(kl_divergence(p, BoxNormal(q.loc, scale_tril=q.scale_tril, geometry=q.geometry)), exact)
    action, log_p = p.sample_and_log_prob((20_000,))
    ratio = log_p - q.log_prob(action)
    assert abs(ratio.mean() - exact) <= SIGMAS * ratio.std() / math.sqrt(20_000)
    close(kl_divergence(p, p), 0, atol=1e-12)
    assert gradcheck(lambda m, s: kl_divergence(q, rebuilt(case, m, s)), parameters(case))


ROUGH = [c for c in INTEGRABLE if isinstance(c, Box) and {"wrap", "clip", "clip_up", "clip_down"} & set(c.names)]


@pytest.mark.parametrize("case", ROUGH, ids=str)
def test_latent_kl_bounds_the_kl_from_above(case: Box) -> None:
    p, q = case.density(), other_than(case).density()
    action, log_p, mass = quadrature(case)
    true = np.sum(mass * (log_p - q.log_prob(torch.as_tensor(action)).numpy()))
    bound = latent_kl(p, q)
    assert -1e-9 < true <= bound * (1 + 1e-6)
    close(latent_kl(p, p), 0, atol=1e-12)
    assert gradcheck(lambda m, s: latent_kl(q, rebuilt(case, m, s)), parameters(case))
    turns = torch.tensor([3 * TWO_PI * (name == "wrap") for name in case.names], dtype=torch.float64)
    close(latent_kl(BoxNormal(p.loc + turns, **spread_of(case, p), geometry=p.geometry), q), bound)
    with pytest.raises(NotImplementedError, match="latent_kl"):
        kl_divergence(p, q)


@pytest.mark.parametrize(
    ("scale", "move", "bound", "truth"), [(1.0, 2.0, 2.0, 1.553), (2.0, math.sqrt(9.6), 1.2, 0.075)]
)
def test_latent_kl_of_a_wrapped_normal_in_figures(scale: float, move: float, bound: float, truth: float) -> None:
    p, q = Box(("wrap",), (0.0,), (scale,)), Box(("wrap",), (TWO_PI + move,), (scale,))
    action, log_p, mass = quadrature(p)
    true = np.sum(mass * (log_p - q.density().log_prob(torch.as_tensor(action)).numpy()))
    assert latent_kl(p.density(), q.density()).item() == pytest.approx(bound)
    assert true == pytest.approx(truth, abs=1e-3)


def test_kl_of_different_boxes_is_refused() -> None:
    p, q = BOXES[0].density(), BOXES[1].density()
    with pytest.raises(NotImplementedError, match="different boxes"):
        kl_divergence(p, q)
    with pytest.raises(ValueError, match="one geometry"):
        latent_kl(p, q)


def test_kl_of_categoricals_is_torchs() -> None:
    a, b = torch.tensor([[0.3, -INF, 1.0], [0.0, 1.0, 2.0]]), torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.5, 0.0]])
    want = kl_divergence(torch.distributions.Categorical(logits=a), torch.distributions.Categorical(logits=b))
    close(kl_divergence(Categorical(a), Categorical(b)), want, rtol=1e-5)
    assert kl_divergence(Categorical(b), Categorical(a))[0] == INF


def test_kl_of_betas_is_torchs_and_the_quadrature() -> None:
    for case, other in itertools.pairwise(BETAS[:5]):
        p, q = case.density(), other.density()
        theirs = kl_divergence(*(torch.distributions.Beta(d.alpha, d.beta) for d in (p, q)))
        close(kl_divergence(p, q), theirs.sum(-1), rtol=1e-6, atol=1e-9)
        action, log_p, mass = quadrature(case)
        true = np.sum(mass * (log_p - q.log_prob(torch.as_tensor(action)).numpy()))
        close(kl_divergence(p, q), true, rtol=1e-5, atol=1e-7)
    close(kl_divergence(p, p), 0, atol=1e-9)
    with pytest.raises(NotImplementedError, match="different boxes"):
        kl_divergence(p, Beta(torch.ones(1), torch.ones(1)))


def test_kl_of_several_choices_and_of_products_is_the_sum() -> None:
    p, q = SEVERAL[1].density(), Choices(torch.tensor([[0.0, 1.0]] * 3, dtype=torch.float64))
    theirs = (torch.distributions.Independent(torch.distributions.Categorical(logits=d.logits), 1) for d in (p, q))
    close(kl_divergence(p, q), kl_divergence(*theirs))
    for case in (BESIDE[0], BESIDE[3]):
        p = case.density(batch=(3,))
        q = Product([part.density(batch=(3,)).expand((3,)) for part in case.parts])
        q = case.density(batch=(6,)) if case is BESIDE[0] else q
        q = one_of(q, (slice(3, 6),)) if case is BESIDE[0] else q
        action, log_p = p.sample_and_log_prob((40_000,))
        ratio = log_p - q.log_prob(action)
        slack = SIGMAS * ratio.std(0) / math.sqrt(40_000) + 1e-9
        assert ((ratio.mean(0) - kl_divergence(p, q)).abs() <= slack).all()
    with pytest.raises(NotImplementedError, match="other columns"):
        kl_divergence(BESIDE[0].density(), BESIDE[1].density())
    with pytest.raises(NotImplementedError, match="latent_kl"):
        kl_divergence(BESIDE[1].density(), BESIDE[1].density())


# ---------------------------------------------------------------------------------------- in other people's code


@pytest.mark.parametrize(
    "names", [("squash", "squash"), ("clip", "clip"), ("squash", "clip", "up"), ("wrap",)], ids=str
)
def test_functorch_maps_and_differentiates_the_score(names: tuple[str, ...]) -> None:
    g, d = geometry(*names), len(names)
    latent = make(names, scale=torch.ones(d)).draw((6,)).latent

    def log_prob(loc: Tensor, scale: Tensor, latent: Tensor) -> Tensor:
        return BoxNormal(loc, scale, geometry=g, validate_args=False).log_prob_latent(latent)

    loc, scale = torch.randn(6, d, requires_grad=True), (torch.rand(6, d) + 0.5).requires_grad_()
    total = log_prob(loc, scale, latent)
    slopes = torch.func.vmap(torch.func.grad(log_prob, argnums=(0, 1)))(loc, scale, latent)
    close(torch.func.vmap(log_prob)(loc, scale, latent), total.detach(), rtol=1e-5)
    for mapped, plain in zip(slopes, torch.autograd.grad(total.sum(), (loc, scale)), strict=True):
        close(mapped, plain, rtol=1e-5, atol=1e-6)


@each_box
def test_inference_mode_leaves_nothing_behind(case: Box) -> None:
    """What is made once and kept, under inference_mode say, must serve autograd afterwards."""
    scalar._nodes.cache_clear()
    with torch.inference_mode():
        p = case.density()
        p.sample_and_log_prob()
        _ = p.mean
    loc, spread = parameters(case)
    q = rebuilt(case, loc, spread)
    (q.sample_and_log_prob()[1] + q.mean.sum()).backward()
    assert loc.grad is not None
    assert loc.grad.isfinite().all()


def test_geometries_are_values() -> None:
    assert geometry("wrap", "clip") == geometry("wrap", "clip") != geometry("clip", "wrap")
    assert hash(geometry("up")) == hash(geometry("up"))
    assert geometry("wrap", "clip", "wrap", "up").order == (3, 0, 2, 1)
    assert Geometry.box([0, 0], [1, 1], periodic=(-1,)).kinds == ("squash", "wrap")
    assert Geometry.box(0.0, 1.0, bounds="clip").kinds == ("clip",)
    assert Geometry.box([-INF, 0, -INF], [INF, INF, 0], bounds="clip").kinds == ("free", "clip", "clip")


def test_execute_clips_an_unclipped_gaussian_only() -> None:
    g = geometry("mean", "unbound", "free")
    assert torch.equal(g.execute(torch.tensor([-5.0, 5.0, 50.0])), torch.tensor([-1.0, 1.0, 50.0]))
    for case in BOXES:
        if not {"mean", "unbound"} & set(case.names):
            action = case.density().sample((50,))
            assert torch.equal(case.density().geometry.execute(action), action)


def test_printing_names_what_it_is() -> None:
    assert str(BOXES[1].density()) == "BoxNormal(diagonal covariance, (squash), batch_shape=())"
    assert "full covariance, (wrap, squash)" in str(Box(("wrap", "squash"), (0, 0), (1, 1), (0.5,)).density())
    assert str(BOXES[-1].density()).startswith("BoxNormal(low-rank covariance, (free, squash")
    assert str(BETAS[5].density()) == "Beta(2 dimensions, batch_shape=())"
    assert str(SEVERAL[0].density()) == "Choices(2 of up to 3, batch_shape=())"
    assert str(BESIDE[3].density()).startswith("Product(Categorical(4 choices")
    assert str(Categorical(torch.zeros(2, 3))) == "Categorical(3 choices, batch_shape=(2,))"
