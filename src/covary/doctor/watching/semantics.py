"""What PyTorch's distributions mean: a sample, a log-probability, an entropy, whatever they compute inside."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from covary.doctor.sites import here
from covary.doctor.trail import Node
from covary.doctor.watching.mode import top_mode

MEANINGS = ("sample", "rsample", "log_prob", "entropy")


class Semantics:
    """Gives the outermost call of a distribution's method one node: `op` is the method's name.

    Its first operand is what was computed inside; of a log_prob, the second is the value that was scored. `tags`:
    "of", the class of the distribution; "dist", a number for the very object; "given", the nodes of its parameters.
    """

    def __init__(self, watch: Any) -> None:
        self.watch = watch
        self.depth = 0
        self.numbers: dict[int, int] = {}

    def start(self, patches: Any) -> None:
        seen, todo = set(), [Distribution]
        while todo:
            kind = todo.pop()
            if kind in seen:
                continue
            seen.add(kind)
            todo += kind.__subclasses__()
            self._lay(kind, patches)
        semantics = self

        def later(original: Any) -> Any:
            def __init_subclass__(cls: Any, **kwargs: Any) -> None:
                super(Distribution, cls).__init_subclass__(**kwargs)  # type: ignore[misc]
                semantics._lay(cls, patches)

            return classmethod(__init_subclass__)

        patches.put(Distribution, "__init_subclass__", later)

    def _lay(self, kind: type, patches: Any) -> None:
        for name in MEANINGS:
            if name in vars(kind) and callable(vars(kind)[name]):
                patches.put(kind, name, lambda original, name=name: self._meaning(name, original))

    def _meaning(self, name: str, original: Any) -> Any:
        @functools.wraps(original)
        def method(distribution: Any, *args: Any, **kwargs: Any) -> Any:
            watch = self.watch
            if self.depth or not watch.trail.open or not watch.mine() or watch.mode.paused:
                return original(distribution, *args, **kwargs)
            self.depth += 1
            lifted = _known(distribution) and top_mode() is watch.mode
            if lifted:
                watch.mode.__exit__(None, None, None)
            try:
                result = original(distribution, *args, **kwargs)
            finally:
                self.depth -= 1
                if lifted:
                    watch.mode.__enter__()
            if isinstance(result, Tensor):
                watch.safely(self._note, name, distribution, args, result, lifted)
            return result

        return method

    def _note(self, name: str, distribution: Any, args: Any, result: Tensor, lifted: bool) -> None:
        trail = self.watch.trail
        value = trail.of(args[0]) if name == "log_prob" and args else None
        given = {key: trail.of(one) for key, one in parameters(distribution).items()}
        off = trail.grad_off[-1] if trail.grad_off and not torch.is_grad_enabled() else None
        if lifted and result is not (args[0] if args else None):
            of = tuple(given.values()) if value is None else (*given.values(), value)
            inner = Node("inside", here(), of, None, tuple(result.shape), result.requires_grad, off, trail.tick())
        else:
            inner = trail.of(result)
        node = Node(name, here(), (inner, value) if value is not None else (inner,), None, tuple(result.shape),
                    result.requires_grad, off, trail.tick())  # fmt: skip
        node.tags = {"of": type(distribution).__name__, "dist": id(distribution), "given": given}
        if name == "sample":
            node.inputs = (*node.inputs, *(one for one in given.values() if isinstance(one, Node)))
        if result is not (args[0] if args else None):
            trail.put(result, node)
        for listener in self.watch.mode.listeners.get(name, ()):
            listener(node, args, {"distribution": distribution}, result)


SIMPLE = frozenset(
    ("Normal", "Categorical", "MultivariateNormal", "LowRankMultivariateNormal", "Bernoulli", "OneHotCategorical",
     "Beta", "Gamma", "Dirichlet", "Laplace", "Uniform", "Poisson", "Exponential", "StudentT", "Cauchy", "Binomial")
)  # fmt: skip


def _known(distribution: Any) -> bool:
    """Whether what a distribution computes inside is PyTorch's own, of its parameters alone: it need not be watched."""
    while type(distribution).__name__ == "Independent":
        distribution = vars(distribution).get("base_dist")
    kind = type(distribution)
    return kind.__name__ in SIMPLE and kind.__module__.startswith("torch.distributions")


def parameters(distribution: Any) -> dict[str, Tensor]:
    """The tensors that a distribution was made with, by name."""
    found: dict[str, Tensor] = {}
    for name in ("loc", "scale", "covariance_matrix", "scale_tril", "precision_matrix", "probs", "logits",
                 "concentration", "concentration0", "concentration1", "rate", "low", "high", "df"):  # fmt: skip
        value = vars(distribution).get(name, vars(distribution).get(f"_unbroadcasted_{name}"))
        if isinstance(value, Tensor):
            found[name] = value
    for name in ("base_dist", "_param", "_categorical", "_normal"):
        inner = vars(distribution).get(name)
        if isinstance(inner, Distribution):
            found.update({f"{name}.{key}": one for key, one in parameters(inner).items()})
    return found
