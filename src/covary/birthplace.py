"""Where the first number that is not finite was born: a minibatch gone through again in the order in which its numbers
come to be, with an eye on every layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LARGE = 1e6
"""A weight or an input beyond this has grown there; it was not an operation's fault."""

_RATE = "a learning rate that is too high, or rewards of a very large scale"
_LOWER = "a learning rate ten times lower; the checkpoints before this step are good"


@dataclass(frozen=True)
class Birth:
    """Where the first number that is not finite came to be.

    kind: batch (what goes in), parameter, output (of a layer), loss (or what stands between the outputs and it),
    gradient, or kernel (where only the fast path has such a number).
    """

    kind: str
    value: float
    what: str  # as a sentence names it
    cause: str = _RATE
    fix: str = _LOWER
    network: str = ""
    layer: str = ""
    term: str = ""


def find(
    networks: Mapping[str, nn.Module],
    batch: Mapping[str, Tensor],
    rows: Callable[[], Mapping[str, Any]],
    losses: Callable[[], Any] | None = None,
    *,
    rate: float = 0.0,
    derived: Mapping[str, Tensor] | None = None,
) -> Birth | None:
    """Goes through a minibatch again, one kind of number after another: where the first one that is not finite was
    born; None where all are.

    Args:
        networks: by name.
        batch: what goes in.
        rows: computes what stands between the networks' outputs and the losses; without gradients.
        losses: computes the named terms, whose sum is differentiated.
        rate: the learning rate, for the likely cause.
        derived: what was made from the networks' outputs before, and goes into the losses beside the batch.
    """
    if birth := _entry(batch) or _parameter(networks, rate):
        return birth
    with torch.enable_grad(), _Watch(networks) as watch:
        with torch.no_grad():
            between = rows()
        if watch.birth is None:
            watch.birth = _between(networks, between) or _entry(derived or {})
        terms = losses()._asdict() if losses is not None and watch.birth is None else {}
        if birth := watch.birth or _between(networks, terms):
            return birth
        return _gradient(networks, terms, watch) if terms else None


def unrepeated(networks: Mapping[str, nn.Module], gradient: NDArray[Any] | None) -> Birth:
    """What to say where a number was not finite, but all are when they are computed again.

    gradient: what the fast path's kernels made of it, laid out as the parameters; None on the general path.
    """
    if gradient is None:
        cause = "a module that gives other numbers the second time, as dropout does"
        return Birth("loss", math.nan, "a loss, but not when it was computed again", cause, "a torso without chance")
    begin = 0
    for network, name, parameter in _named(networks):
        if parameter.requires_grad:
            part = torch.from_numpy(gradient[begin : begin + parameter.numel()]).view_as(parameter)
            begin += parameter.numel()
            if found := _first(part):
                what = f"the gradient of {network}.{name}{found[0]} on the fast path alone"
                return Birth("kernel", found[1], what, fix="--no-fast; or " + _LOWER, network=network)
    return Birth("kernel", math.nan, "a loss or a norm on the fast path alone", fix="--no-fast; or " + _LOWER)


def _first(x: Tensor) -> tuple[str, float] | None:
    """Index and value of the first entry that is not finite: "[3, 1]"."""
    bad = ~x.detach().isfinite()
    if not bool(bad.any()):
        return None
    at = tuple(bad.nonzero()[0].tolist())
    return f"[{', '.join(map(str, at))}]" if at else "", float(x.detach()[at])


def _largest(tensors: Any) -> float:
    """The largest size of a number, 0 where there is none."""
    return max((float(t.detach().abs().max()) for t in tensors if t.numel()), default=0.0)


def _named(networks: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, Tensor]]:
    for network, module in networks.items():
        for name, parameter in module.named_parameters():
            yield network, name, parameter


_REWARDS = ("rewards so large that their sums overflow", "smaller rewards, or scale_rewards=True")
_OBSERVATIONS = ("observations so large that their statistics overflow", "observations of order one")
_WHY = dict.fromkeys(("reward", "advantage", "target"), _REWARDS) | dict.fromkeys(("x", "next_x"), _OBSERVATIONS)


def _entry(batch: Mapping[str, Tensor]) -> Birth | None:
    for name, part in batch.items():
        if found := _first(part):
            at, value = found
            return Birth("batch", value, f"{name}{at} of the batch", *_WHY.get(name, (_RATE, _LOWER)), term=name)
    return None


def _parameter(networks: Mapping[str, nn.Module], rate: float) -> Birth | None:
    for network, name, parameter in _named(networks):
        if found := _first(parameter):
            at, value = found
            cause, fix = (
                ("something outside of training wrote to it", "find what writes there: a callback, a hook, a script")
                if rate < 1
                else (f"a learning rate of {rate:g}", _LOWER)
            )
            layer = name.rpartition(".")[0]
            return Birth("parameter", value, f"{network}.{name}{at}", cause, fix, network, layer)
    return None


_MADE_BY = {"actor": "policy", "entropy": "policy", "log_prob": "policy", "ratio": "policy", "density": "policy"}
_MADE_BY |= {"kl": "policy", "critic": "critic", "delta": "critic", "value": "critic", "next_value": "critic"}


def _between(networks: Mapping[str, nn.Module], made: Mapping[str, Any]) -> Birth | None:
    """Of what is made from the networks' outputs, by row, and of the terms of the loss."""
    for name, x in made.items():
        for _, part in _tensors(x):
            if found := _first(part):
                at, value = found
                network = _MADE_BY.get(name, "")
                grown = _largest(networks[network].parameters()) if network else 0.0
                cause = f"weights up to {grown:.1e} in {network}: {_RATE}" if grown > LARGE else _RATE
                what = f"{name}{at}" if at else f"loss term {name}"
                what = f"{what} of the {network}" if network else what
                return Birth("loss", value, what, cause, network=network, term=name)
    return None


def _gradient(networks: Mapping[str, nn.Module], terms: Mapping[str, Tensor], watch: _Watch) -> Birth | None:
    owned = [(network, name, p) for network, name, p in _named(networks) if p.requires_grad]
    total = torch.stack([term.reshape(()) for term in terms.values() if term.requires_grad]).sum()
    gradients = torch.autograd.grad(total, [p for *_, p in owned], allow_unused=True, materialize_grads=True)
    bad = [
        (network, name, found)
        for (network, name, _), gradient in zip(owned, gradients, strict=True)
        if (found := _first(gradient))
    ]
    grown = _largest(p for *_, p in owned) > LARGE
    if not bad:
        return _overflown_norm(owned, gradients)
    cause, fix, layer = _RATE, _LOWER, ""
    network, name, (at, value) = bad[-1]  # of the last layer, where gradients come first
    if watch.turned is not None:
        (network, layer), how = watch.turned
        bad = [one for one in bad if one[0] == network] or bad
        name, at, value = bad[-1][1], *bad[-1][2]
        place = f"{_called(network, layer)}{how}" if layer or how else f"what is made of what {network} gives"
        if not grown:
            cause = f"in {place}: the slope of a root, a norm or a quotient at 0, also where torch.where discards it"
            fix = "keep its operand away from 0, as in (x + 1e-8).sqrt()"
    return Birth("gradient", value, f"the gradient of {network}.{name}{at}", cause, fix, network, layer)


def _overflown_norm(owned: list[tuple[str, str, Tensor]], gradients: tuple[Tensor, ...]) -> Birth | None:
    """Gradients that are finite, but not their squares' sum."""
    for network in dict.fromkeys(network for network, *_ in owned):
        mine = [g for (owner, *_), g in zip(owned, gradients, strict=True) if owner == network]
        norm = torch.linalg.vector_norm(torch.cat([g.reshape(-1) for g in mine]))
        if not bool(norm.isfinite()):
            what = f"the norm of the gradient of {network}, whose largest entry is {_largest(mine):.1e}"
            return Birth("gradient", float(norm), what, network=network)
    return None


# ---------------------------------------------------------------------------------------- what each layer gives


def _called(network: str, layer: str) -> str:
    return f"{network} layer {layer}" if layer else network


def _tensors(x: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a module was given or gives, and what they are called in it."""
    if isinstance(x, Tensor):
        yield "", x
    elif isinstance(x, torch.distributions.Distribution):
        # a choice may be forbidden by a logit of -inf
        for name, part in vars(x).items():
            if isinstance(part, Tensor):
                yield f" ({name.strip('_')})", part.clamp(min=-3e38) if name == "logits" else part
            elif isinstance(part, tuple | torch.distributions.Distribution):  # of a density that is made of others
                yield from _tensors(part)
    elif isinstance(x, Mapping | list | tuple):
        for part in x.values() if isinstance(x, Mapping) else x:
            yield from _tensors(part)


class _Watch:
    """Looks at what goes into every module and comes out, forwards and backwards, while it is open.

    A module whose input is finite and whose output is not bore the number; where already its input is not, but
    everything that came out of modules before was, the code around it did: the forward of the module it stands in.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.networks = networks
        self.birth: Birth | None = None
        self.turned: tuple[tuple[str, str], str] | None = None  # network, layer, where in it: the first bad slope
        self._inside: list[tuple[str, str]] = []
        self._handles: list[Any] = []
        self._followed: dict[int, list[Any]] = {}  # tensors, which are kept so that no other gets their id

    def __enter__(self) -> _Watch:
        for network, root in self.networks.items():
            for name, module in root.named_modules():
                place = (network, name)
                self._handles.append(module.register_forward_pre_hook(partial(self._before, place)))
                self._handles.append(module.register_forward_hook(partial(self._after, place)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, place: tuple[str, str], module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        around = self._inside[-1] if self._inside else (place[0], "")
        self._look(around, f" before its {place[1]}", [p for x in given for p in _tensors(x)], module, given)
        self._inside.append(place)
        # Each gets a view of its own, so that its input's slope can be told from that of the output it came from.
        return tuple(self._alias(place, x) for x in given)

    def _alias(self, place: tuple[str, str], x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.requires_grad:
            return x
        alias = x.view_as(x)
        self._follow(alias, place, "")
        return alias

    def _after(self, place: tuple[str, str], module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        self._inside.pop()
        self._look(place, "", list(_tensors(made)), module, given)
        around = self._inside[-1] if self._inside else (place[0], "")
        for _, x in _tensors(made):
            if x.requires_grad:
                self._follow(x, around, f" after its {place[1]}" if place[1] else "")

    def _follow(self, x: Tensor, place: tuple[str, str], how: str) -> None:
        """Looks at the slope of x on its way back, which it gets from here. What leaves several modules at once gets it
        from what is around the outermost."""
        if id(x) not in self._followed:
            self._followed[id(x)] = [x]
            x.register_hook(partial(self._slope, id(x)))
        self._followed[id(x)][1:] = [place, how]

    def _slope(self, key: int, slope: Tensor) -> None:
        if self.turned is None and not bool(slope.isfinite().all()):
            self.turned = self._followed[key][1], self._followed[key][2]

    def _look(
        self,
        place: tuple[str, str],
        how: str,
        made: list[tuple[str, Tensor]],
        module: nn.Module,
        given: tuple[Any, ...],
    ) -> None:
        if self.birth is not None:
            return
        for label, x in made:
            if found := _first(x):
                at, value = found
                weights = _largest(module.parameters())
                inputs = 0.0 if how else _largest(p for x in given for _, p in _tensors(x))
                cause, fix = _RATE, _LOWER
                if weights > LARGE or inputs > LARGE:
                    cause = f"weights up to {weights:.1e} on inputs up to {inputs:.1e}: {_RATE}"
                elif place[1]:
                    cause = "its own arithmetic: a division by zero, the logarithm or root of a negative number"
                    fix = "keep the operand away from there, as in x / (norm + 1e-8) or x.clamp(min=1e-8).log()"
                what = f"what {_called(*place)} gives{label}{how}, at {at}"
                self.birth = Birth("output", value, what, cause, fix, *place)
                return
