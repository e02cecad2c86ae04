"""Torsos, value networks and the running normaliser."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

Activation = Literal["tanh", "relu", "leaky_relu", "elu", "silu", "gelu"]
Init = Literal["orthogonal", "sparse"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}
assert set(_ACTIVATIONS) == set(get_args(Activation))


@contextmanager
def threads_of_torch(threads: int = 1) -> Iterator[None]:
    """Runs torch on this many threads and gives back its own number afterwards: more than one make networks this small
    slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """A linear layer with orthogonal weights of this gain and no bias to start with (Saxe 2014)."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(gain * orthogonal(outputs, inputs))
    nn.init.zeros_(layer.bias)
    return layer


def orthogonal(rows: int, columns: int) -> Tensor:
    """A random matrix with orthonormal rows or columns, whichever are fewer, from torch's generator.

    What nn.init.orthogonal_ gives from the same numbers, by Gram and Schmidt's method, twice for its round-off:
    LAPACK's code would take 13 MB of memory for these few numbers.
    """
    normal = torch.empty(rows, columns).normal_().double().numpy()
    tall = normal.copy() if rows >= columns else normal.T.copy()
    for k in range(tall.shape[1]):
        for _ in range(2):
            tall[:, k] -= tall[:, :k] @ (tall[:, :k].T @ tall[:, k])
        tall[:, k] /= np.sqrt(tall[:, k] @ tall[:, k])
    return torch.from_numpy(tall if rows >= columns else tall.T).float()


SPARSITY = 0.9
"""Share of a row's weights that are 0 where a network starts sparse."""


@torch.no_grad()
def make_sparse(network: nn.Module) -> None:
    """Draws the weights of every linear layer anew: of each row 90 % are 0 and the others uniform within
    1 / sqrt(inputs) (Elsayed 2024, sec. 3.1; LeCun 1998). One at least is kept, so that no unit is blind. Biases stay
    as they are."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            rows, inputs = layer.weight.shape
            kept = max(inputs - int(SPARSITY * inputs), 1)
            places = torch.rand(rows, inputs).argsort(1)[:, :kept]
            bound = inputs**-0.5
            values = torch.empty(rows, kept).uniform_(-bound, bound)
            layer.weight.zero_().scatter_(1, places, values)


def gain_of(activation: Activation) -> float:
    """Of the layers before it, so that what they give keeps its size."""
    return {"tanh": 5 / 3, "relu": 2**0.5, "leaky_relu": 2**0.5}.get(activation, 1.0)


def mlp(inputs: int, hidden: Sequence[int], activation: Activation = "tanh", layer_norm: bool = False) -> nn.Sequential:
    """(..., inputs) -> (..., hidden[-1]), every layer followed by the activation; the identity where hidden is ().

    Args:
        layer_norm: whether what a layer gives is standardised before the activation, by nothing that is learned.
    """
    gain = gain_of(activation)
    layers: list[nn.Module] = []
    for width in hidden:
        norm = [nn.LayerNorm(width, elementwise_affine=False)] if layer_norm else []
        layers += [linear(inputs, width, gain), *norm, _ACTIVATIONS[activation]()]
        inputs = width
    return nn.Sequential(*layers)


def width_of(torso: nn.Module, inputs: int) -> int:
    """How many features a torso gives for (1, inputs); raises ValueError unless they are (1, F)."""
    mode = torso.training
    try:
        with torch.no_grad():
            features = torso.eval()(torch.zeros(1, inputs))
    except Exception as error:
        raise ValueError(
            f"A torso maps (B, {inputs}) observations to (B, F) features.\n  given: {type(error).__name__}: {error}"
        ) from error
    finally:
        torso.train(mode)
    if not (isinstance(features, Tensor) and features.dim() == 2 and features.shape[0] == 1):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"A torso maps (B, {inputs}) observations to (B, F) features.\n  given: {shape} for one observation\n"
            "  fix:   flatten its output, or return the features alone"
        )
    return int(features.shape[1])


class Value(nn.Module):
    """A state value: (..., O) normalised observations -> (...)."""

    def __init__(self, torso: nn.Module, features: int) -> None:
        super().__init__()
        self.torso, self.head = torso, linear(features, 1, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.head(self.torso(x))
        return value.squeeze(-1)


class Scalar(nn.Module):
    """One number that is learned."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


class QValues(nn.Module):
    """K action values that share nothing: (B, O) normalised observations, (B, A) coordinates of actions -> (K, B).

    Args:
        observation: O.
        torso: makes features (B, F) of observations, each value its own copy; the observations themselves, where it is
            left out.
    """

    def __init__(
        self,
        number: int,
        observation: int,
        coordinates: int,
        hidden: Sequence[int],
        activation: Activation,
        torso: nn.Module | None = None,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.observation = observation
        features = observation if torso is None else width_of(torso, observation)
        self.torsos = nn.ModuleList() if torso is None else nn.ModuleList(copy.deepcopy(torso) for _ in range(number))
        bodies = [mlp(features + coordinates, hidden, activation, layer_norm) for _ in range(number)]
        last = hidden[-1] if hidden else features + coordinates
        self.values = nn.ModuleList(nn.Sequential(*body, linear(last, 1, 1.0)) for body in bodies)

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        if self.torsos:
            inputs = [torch.cat([torso(x), action], -1) for torso in self.torsos]
        else:
            inputs = [torch.cat([x, action], -1)] * len(self.values)
        return torch.cat([value(z) for value, z in zip(self.values, inputs, strict=True)], -1).mT

    def smallest(self, x: Tensor, action: Tensor) -> Tensor:
        """(B,) the smallest of the K values."""
        return self(x, action).amin(0)

    def first(self, x: Tensor, action: Tensor) -> Tensor:
        """(B,) the first of the K values, computed alone."""
        features = self.torsos[0](x) if self.torsos else x
        value: Tensor = self.values[0](torch.cat([features, action], -1))
        return value.squeeze(-1)


class RunningNorm(nn.Module):
    """Standardises by the mean and variance of all that it was shown, then clips to +-10.

    The statistics change in `update` alone. Sums are kept in float64 (Chan, Golub & LeVeque 1983), what the forward
    pass reads in float32.
    """

    CLIP = 10.0
    FEWEST = 10  # observations before the statistics are trusted: the deviation of one is 0
    count: Tensor
    mean64: Tensor
    m2: Tensor
    mean: Tensor
    inv_std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean64", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("m2", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("inv_std", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * self.inv_std).clamp(-self.CLIP, self.CLIP)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """x: (B, features)."""
        x = x.to(torch.float64)
        n, mean = x.shape[0], x.mean(0)
        total = self.count + n
        delta = mean - self.mean64
        self.m2 += (x - mean).square().sum(0) + delta.square() * (self.count * n / total)
        self.mean64 += delta * (n / total)
        self.count.copy_(total)
        if total < self.FEWEST:
            return
        self.mean.copy_(self.mean64)
        self.inv_std.copy_((self.m2 / total + 1e-8).rsqrt())
