"""The law of some dimensions of an action, whatever the others do: exact, without a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from covary.distributions.beta import Beta
from covary.distributions.box_normal import BoxNormal
from covary.distributions.choices import Choices
from covary.distributions.joint import lower_of
from covary.distributions.product import Product


def marginal(density: Any, columns: Sequence[int]) -> Any:
    """The density of these columns of the action, in this order.

    A Gaussian's is a Gaussian: the rows of a factor of its covariance make the factor of theirs. Independent parts are
    taken one by one; the columns of a Product may come from several of its parts.

    Args:
        density: BoxNormal, Beta, Choices, or a Product of such.
        columns: each once, from 0.
    """
    k = list(columns)
    if isinstance(density, BoxNormal):
        return _gaussian(density, k)
    if isinstance(density, Beta):
        return Beta(density.alpha[..., k], density.beta[..., k], geometry=density.geometry.part(k), validate_args=False)
    if isinstance(density, Choices):
        return Choices(density.logits[..., k, :], validate_args=False)
    if isinstance(density, Product):
        parts, places = [], []
        for part, its in zip(density.parts, density.columns, strict=True):
            if mine := [i for i in k if i in its]:
                parts.append(marginal(part, [its.index(i) for i in mine]) if part.event_shape else part)
                places.append([k.index(i) for i in mine])
        return parts[0] if len(parts) == 1 and parts[0].event_shape else Product(parts, places, validate_args=False)
    raise TypeError(f"A {type(density).__name__} has no marginals.")


def _gaussian(density: BoxNormal, k: list[int]) -> BoxNormal:
    geometry, loc = density.geometry.part(k), density.loc[..., k]
    if density._low is not None:
        loading, residual = density._low
        shared, own = loading[..., k, :], residual[..., k]
        return BoxNormal(loc, loading=shared, residual=own, geometry=geometry, validate_args=False)
    if density._factor is None:
        return BoxNormal(loc, density.scale[..., k], geometry=geometry, validate_args=False)
    natural = density._factor[..., density.geometry.constants(loc).unorder, :]
    rows = natural[..., [k[i] for i in geometry.order], :]
    return BoxNormal(loc, factor=lower_of(rows), geometry=geometry, validate_args=False)
