"""Exact densities on action spaces: pure PyTorch, usable without the rest of Covary.

geometry = Geometry.box(low, high, periodic=(0,))
density = BoxNormal(loc, scale_tril=tril, geometry=geometry)
action, log_prob = density.sample_and_log_prob()
"""

from covary.distributions.beta import Beta
from covary.distributions.box_normal import BoxNormal, Drawn, latent_kl
from covary.distributions.categorical import Categorical
from covary.distributions.choices import Choices
from covary.distributions.geometry import Bounds, Geometry, Kind
from covary.distributions.marginal import marginal
from covary.distributions.product import Product
from covary.distributions.scalar import log_ndtr, wrapped_normal_entropy, wrapped_normal_log_prob

__all__ = [
    "Beta",
    "Bounds",
    "BoxNormal",
    "Categorical",
    "Choices",
    "Drawn",
    "Geometry",
    "Kind",
    "Product",
    "latent_kl",
    "log_ndtr",
    "marginal",
    "wrapped_normal_entropy",
    "wrapped_normal_log_prob",
]
