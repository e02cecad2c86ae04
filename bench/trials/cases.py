"""Random cases through the densities: finite input gives finite results, at any scale that float32 has.

for row in run(1_000_000, 0): print(row)

A case is one density of one to four dimensions and one action. Where float32 gives what is not finite, the same is
computed in float64: what lies beyond float32 there counts as `beyond`, and so do cases whose derivative by the scale,
(z^2 + 1) / scale, does; all else counts as `non_finite`.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covary.distributions import Beta, BoxNormal, Categorical, Choices, Geometry

BATCH = 1000
LARGEST = float(np.finfo(np.float32).max)
Floats = NDArray[np.float64]


class Case(NamedTuple):
    """B densities on one box, and an action of each."""

    geometry: Geometry
    loc: Tensor  # (B, D) float32
    log_std: Tensor  # (B, D) beside `unit`
    unit: Tensor  # (D,) what a deviation is a share of
    coupling: (
        Tensor | None
    )  # (B, D, D) of a full covariance, in the geometry's order: rows of norm 1, positive diagonal
    shared: Tensor | None  # (B, D, 2) of one of rank 1: rows of norm 1, the second entry positive
    noise: Tensor  # (B, D), of rank 1 (B, D + 1)
    action: Tensor  # (B, D)


# ------------------------------------------------------------------------------------------------- the boxes


def box(rng: np.random.Generator, d: int, size: str) -> tuple[Floats, Floats]:
    """(D,) bounds: of a usual, an extreme, or the least width that float32 has."""
    exponent = rng.uniform(-3, 3, d) if size == "usual" else rng.uniform(-30, 30, d)
    middle = rng.choice([-1.0, 1.0, 0.0], d) * 10**exponent
    width = 10 ** (rng.uniform(-3, 3, d) if size == "usual" else rng.uniform(-30, 30, d))
    low = (middle - width * rng.uniform(0, 1, d)).astype(np.float32)
    high = (low + width.astype(np.float32)).astype(np.float32)
    if size == "ulp":
        high = np.nextafter(low, np.float32(np.inf))
    low, high = low.astype(np.float64), high.astype(np.float64)
    low[rng.uniform(size=d) < 0.1] = -np.inf
    high[rng.uniform(size=d) < 0.1] = np.inf
    return low, high


def geometry(rng: np.random.Generator, kind: str, size: str) -> Geometry:
    """Raises ValueError where no such geometry exists, as of a width that float32 rounds to 0."""
    d = int(rng.integers(1, 5))
    low, high = box(rng, d, size)
    finite = np.isfinite(low) & np.isfinite(high)
    periodic = np.flatnonzero(finite & (rng.uniform(size=d) < 0.3)).tolist() if kind in ("wrap", "mixed") else []
    words = ["auto", "clip", "free"]
    bounds = [str(rng.choice(words)) for _ in range(d)] if kind == "mixed" else kind if kind in words else "auto"
    return Geometry.box(low, high, bounds=bounds, periodic=periodic)  # type: ignore[arg-type]


def case(rng: np.random.Generator, kind: str, size: str, covariance: str, batch: int = BATCH) -> Case:
    g = geometry(rng, kind, size)
    full = covariance == "full"
    if covariance != "diagonal":
        g.check_full()
    d, low, high = g.dim, np.array(g.low), np.array(g.high)
    width = np.where(np.isfinite(high - low), high - low, 1.0)
    latent = np.isin(g.kinds, ("squash", "half", "wrap"))  # whose latent has a unit of its own
    unit = np.where(latent, 1.0, width)
    start = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - width, 0.0))
    centre = np.where(latent, 0.0, start + width / 2)
    loc = centre + unit * rng.choice([0.0, 1.0, 30.0, 1e4], (batch, d)) * rng.normal(size=(batch, d))
    log_std = rng.uniform(-9, 6, (batch, d))
    noise = rng.choice([0.0, 1.0, 8.0], (batch, d)) * rng.normal(size=(batch, d))
    coupling = np.tril(rng.normal(size=(batch, d, d)), -1) * rng.choice([0.1, 3.0, 30.0], (batch, 1, 1)) + np.eye(d)
    coupling /= np.linalg.norm(coupling, axis=-1, keepdims=True)

    def tensor(x: Floats) -> Tensor:
        return torch.as_tensor(np.clip(x, -LARGEST, LARGEST).astype(np.float32))

    shared = None
    if covariance == "rank 1":
        v = rng.choice([0.1, 3.0, 30.0], (batch, 1)) * rng.normal(size=(batch, d))
        shared = tensor(np.stack([v, np.ones_like(v)], -1) / np.hypot(v, 1.0)[..., None])
        noise = np.concatenate([noise, rng.normal(size=(batch, 1))], -1)
    actions = tensor(_actions(rng, low, high, start, width, (batch, d)))
    return Case(
        g,
        tensor(loc),
        tensor(log_std),
        tensor(unit),
        tensor(coupling) if full and d > 1 else None,
        shared,
        tensor(noise),
        actions,
    )


def _actions(
    rng: np.random.Generator, low: Floats, high: Floats, start: Floats, width: Floats, shape: tuple[int, int]
) -> Floats:
    """Inside the box, at its bounds and next to them; zero with either sign and subnormal numbers where they lie
    inside."""
    inside = start + width * rng.uniform(size=shape)
    lo, hi = (np.broadcast_to(x, shape).astype(np.float32) for x in (low, high))
    up, down = np.nextafter(lo, hi).astype(np.float64), np.nextafter(hi, lo).astype(np.float64)
    tiny = np.full(shape, 1e-42)
    choices = np.stack([inside, lo, hi, up, down, tiny, -tiny, np.zeros(shape), -np.zeros(shape)])
    picked = np.take_along_axis(choices, rng.integers(0, len(choices), (1, *shape)), 0)[0]
    good = (np.abs(picked) < LARGEST) & (picked >= low) & (picked <= high)  # next to no bound lies the largest number
    return np.clip(np.where(good, picked, inside), low, high)


# ------------------------------------------------------------------------------------------------ the results


def results(c: Case) -> dict[str, Tensor]:
    """What a policy's training needs of a density, row by row, (B, ...): gradients by the mean and the logarithm of the
    deviation, as a head's parameters get them."""
    loc, log_std = c.loc.clone().requires_grad_(), c.log_std.clone().requires_grad_()
    std = c.unit * log_std.exp()
    if c.shared is not None:
        rows = std.unsqueeze(-1) * c.shared
        density = BoxNormal(loc, loading=rows[..., :1], residual=rows[..., 1], geometry=c.geometry)
    elif c.coupling is None:
        density = BoxNormal(loc, std, geometry=c.geometry)
    else:
        order = list(c.geometry.order)
        density = BoxNormal(loc, factor=std[:, order].unsqueeze(-1) * c.coupling, geometry=c.geometry)
    log_prob = density.log_prob(c.action)
    drawn = density.draw(noise=c.noise)
    out = {"log_prob": log_prob, "action": drawn.action, "latent": drawn.latent, "drawn log_prob": drawn.log_prob}
    out["median"] = density.median
    with contextlib.suppress(NotImplementedError):
        out["entropy"] = density.entropy()
    for name in ("log_prob", "drawn log_prob", "entropy"):
        if name in out and out[name].requires_grad:
            # as an algorithm scores it later: from the latent that was kept, which no gradient goes through
            value = density.log_prob_latent(drawn.latent.detach()) if name == "drawn log_prob" else out[name]
            by_loc, by_std = torch.autograd.grad(value.sum(), (loc, log_std), retain_graph=True, allow_unused=True)
            for what, gradient, unit in (("loc", by_loc, c.unit), ("log_std", by_std, 1.0)):
                if gradient is not None:
                    out[f"d {name} / d {what}"] = gradient * unit
    return {name: value.detach() for name, value in out.items()}


def double(c: Case) -> Case:
    return c._replace(**{k: v.double() for k, v in c._asdict().items() if isinstance(v, Tensor)})


def faults(c: Case) -> Counter[str]:
    """By name of the result: rows that are not finite though they could be; those that could not as `beyond`."""
    found: Counter[str] = Counter()
    exact: dict[str, Tensor] | None = None
    for name, value in results(c).items():
        bad = ~value.isfinite().reshape(len(value), -1).all(-1)
        if not bad.any():
            continue
        exact = exact or results(double(c))
        could = (exact[name].reshape(len(value), -1).abs().amax(-1) < LARGEST / 10) & _within(c)
        found[name] += int((bad & could).sum())
        found["beyond"] += int((bad & ~could).sum())
    low, high = torch.tensor(c.geometry.low), torch.tensor(c.geometry.high)
    return found + Counter({"outside": _outside(c, low, high)})


def _within(c: Case) -> Tensor:
    """(B,) whether float32 holds the derivatives by loc and scale of the Gaussian behind, with room for rounding."""
    d, order = double(c), list(c.geometry.order)
    std = (d.unit * d.log_std.exp())[:, order]
    deviation = (c.geometry.from_action(c.action).double() - d.loc)[:, order]
    if d.shared is not None:
        own = std * d.shared[:, order, 1]
        least, z = own, deviation / own
    elif d.coupling is None:
        least, z = std, deviation / std
    else:
        factor = std.unsqueeze(-1) * d.coupling
        least = factor.diagonal(dim1=-2, dim2=-1)
        z = torch.linalg.solve_triangular(factor, deviation.unsqueeze(-1), upper=False).squeeze(-1)
    steepest = (z.square().sum(-1) + 1) / least.amin(-1) * std.amax(-1).clamp(min=1) / std.amin(-1).clamp(max=1)
    return (steepest < LARGEST / 1e6) & (least.amin(-1) > 1e-30) & (std.amax(-1) < 1e30)


def _outside(c: Case, low: Tensor, high: Tensor) -> int:
    """Rows whose drawn action left the box, of dimensions that cannot."""
    held = torch.tensor([kind != "free" for kind in c.geometry.kinds])
    action = results(c)["action"]
    return int((held & ((action < low) | (action > high))).any(-1).sum())


def choices(rng: np.random.Generator, batch: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """(B, K) logits, some of them forbidden, (B,) allowed choices, and (B,) uniform numbers."""
    k = int(rng.integers(1, 20))
    size = rng.choice([0.0, 1e-42, 1.0, 1e3, 1e30, 1e38], (batch, 1))
    logits = np.clip(size * rng.normal(size=(batch, k)), -LARGEST / 2, LARGEST / 2)
    allowed = rng.integers(0, k, batch)
    forbidden = rng.uniform(size=(batch, k)) < 0.3
    forbidden[np.arange(batch), allowed] = False
    logits[forbidden] = -np.inf
    uniform = rng.choice([0.0, 0.5, 1 - 2**-24], batch)
    return (
        torch.as_tensor(x, dtype=t)
        for x, t in ((logits, torch.float32), (allowed, torch.int64), (uniform, torch.float32))
    )  # type: ignore[return-value]


def faults_of_choices(logits: Tensor, allowed: Tensor, uniform: Tensor) -> Counter[str]:
    logits = logits.clone().requires_grad_()
    density = Categorical(logits)
    log_prob, entropy = density.log_prob(allowed), density.entropy()
    drawn = density.sample_latent(noise=uniform)
    found = Counter(log_prob=int((~log_prob.isfinite()).sum()), entropy=int((~entropy.isfinite()).sum()))
    found["drawn a forbidden choice"] += int(logits.gather(-1, drawn.unsqueeze(-1)).isinf().sum())
    for name, value in (("log_prob", log_prob), ("entropy", entropy)):
        (gradient,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
        found[f"d {name} / d logits"] += int((~gradient.isfinite()).any(-1).sum())
    return found


def faults_of_several(logits: Tensor, allowed: Tensor, uniform: Tensor) -> Counter[str]:
    """The same of two such choices at once, in either order."""
    logits = torch.stack([logits, logits.flip(0)], 1).requires_grad_()
    allowed, uniform = (torch.stack([x, x.flip(0)], 1) for x in (allowed, uniform))
    density = Choices(logits)
    drawn = density.draw(noise=uniform)
    found: Counter[str] = Counter()
    # two log-probabilities that float32 has may have a sum that it has not
    beyond = density.log_prob(allowed).isinf() & (density.each.log_prob(allowed).double().sum(-1) < -LARGEST)
    found["beyond"] = int(beyond.sum())
    for name, value in (
        ("log_prob", density.log_prob(allowed)),
        ("drawn log_prob", drawn.log_prob),
        ("entropy", density.entropy()),
    ):
        (gradient,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
        found[name] += int((~value.isfinite() & ~(beyond if name == "log_prob" else torch.zeros_like(beyond))).sum())
        found[f"d {name} / d logits"] += int((~gradient.isfinite()).flatten(1).any(-1).sum())
    return found


def faults_of_betas(rng: np.random.Generator, batch: int = BATCH) -> Counter[str]:
    """Betas of any shape that a head gives, on a usual box: everything is finite, and every action inside."""
    d = int(rng.integers(1, 4))
    low = rng.normal(size=d) * 10 ** rng.uniform(-3, 3, d)
    box = Geometry.box(low, low + 10 ** rng.uniform(-2, 3, d))
    a, b = (
        torch.as_tensor(1 + 10 ** rng.uniform(-8, 8, (batch, d)), dtype=torch.float32).requires_grad_() for _ in "ab"
    )
    density = Beta(a, b, geometry=box)
    noise = rng.choice([0.0, 1.0, 5.0], (batch, 1)) * rng.normal(size=(batch, *density.noise_shape))
    drawn = density.draw(noise=torch.as_tensor(noise, dtype=torch.float32))
    low_, high_ = (torch.tensor(x, dtype=torch.float32) for x in (box.low, box.high))
    at = torch.as_tensor(rng.choice([0.0, 1.0, 0.5, 1e-6], (batch, d)), dtype=torch.float32)
    action = torch.minimum(low_ + at * (high_ - low_), high_)
    found = Counter(outside=int((~density.support.check(drawn.action)).sum()))
    for name, value in (
        ("log_prob", density.log_prob(action)),
        ("drawn log_prob", density.log_prob_latent(drawn.latent.detach())),
        ("action", drawn.action.sum(-1)),
        ("entropy", density.entropy()),
        ("mean", density.mean.sum(-1)),
    ):
        found[name] += int((~value.isfinite()).sum())
        for slope in torch.autograd.grad(value.sum(), (a, b), retain_graph=True):
            found[f"d {name}"] += int((~slope.isfinite()).any(-1).sum())
    return found


# ---------------------------------------------------------------------------------------------------- the trial

KINDS = ("auto", "wrap", "clip", "free", "mixed")
SIZES = ("usual", "extreme", "ulp")


def run(n: int, seed: int) -> Iterator[dict[str, Any]]:
    """n cases in all, in equal shares of the kinds; a row for each kind.

    kind, size, covariance, cases, refused (boxes that no density has, with a message), non_finite (by name), beyond,
    tracebacks (exceptions where no refusal was due).
    """
    torch.set_num_threads(1)
    plans: list[tuple[str, str, str]] = [(k, s, c) for k in KINDS for s in SIZES for c in ("diagonal", "full")]
    plans += [(k, s, "rank 1") for k in KINDS for s in SIZES]
    share = -(-n // (len(plans) + 3))
    for number, (kind, size, covariance) in enumerate(plans):
        rng = np.random.default_rng((seed, number))

        def one(rng: np.random.Generator = rng, k: str = kind, s: str = size, c: str = covariance) -> Counter[str]:
            try:
                drawn = case(rng, k, s, c, min(BATCH, share))
            except ValueError:
                return Counter(refused=min(BATCH, share))
            return faults(drawn)

        yield {"kind": kind, "size": size, "covariance": covariance} | _counted(one, share)
    rng = np.random.default_rng((seed, len(plans)))
    batch = min(BATCH, share)
    for name, one in (
        ("choices", lambda: faults_of_choices(*choices(rng, batch))),
        ("several choices", lambda: faults_of_several(*choices(rng, batch))),
        ("betas", lambda: faults_of_betas(rng, batch)),
    ):
        yield {"kind": name, "size": "extreme", "covariance": ""} | _counted(one, share)


def _counted(one: Callable[[], Counter[str]], share: int) -> dict[str, Any]:
    cases = 0
    found: Counter[str] = Counter()
    tracebacks: Counter[str] = Counter()
    while cases < share:
        cases += min(BATCH, share)
        try:
            found += one()
        except Exception as error:
            tracebacks[f"{type(error).__name__}: {error}"[:200]] += 1
    beyond, refused = found.pop("beyond", 0), found.pop("refused", 0)
    counts = {"cases": cases, "refused": refused, "non_finite": dict(+found), "beyond": beyond}
    return counts | {"tracebacks": dict(tracebacks)}


if __name__ == "__main__":
    for row in run(int(sys.argv[1]), int(sys.argv[2])):
        print(row, flush=True)
