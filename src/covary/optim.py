"""The only ways in which a parameter changes.

The parameters of an optimizer are views of one vector, so that a step costs a handful of operations and not a handful
for each tensor (torch's Adam over 13 small tensors: 361 us). Modules stay ordinary PyTorch modules.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

LOOK_EVERY = 16
"""Steps of an online learner between two looks at its parameters: one that is not finite shows in a loss or a gradient
at once, but for a few, such as an infinite bias before a tanh."""


def laid_out(modules: Sequence[nn.Module]) -> tuple[list[nn.Parameter], list[int], Tensor]:
    """The parameters of some modules, how many numbers each module has, and the vector that they are views of now."""
    owned = [[p for p in module.parameters() if p.requires_grad] for module in modules]
    parameters = [p for own in owned for p in own]
    vector = torch.cat([p.detach().reshape(-1) for p in parameters])
    for p, part in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
        p.data = part.view_as(p)
    return parameters, [sum(p.numel() for p in own) for own in owned], vector


class Traces:
    """Eligibility traces of N environments (Sutton & Barto 2018, sec. 12.2): z <- z + grad score, and, once it was
    learned from, z <- discount lam lambda z. The transition's lam is 0 where the episode was cut: nothing crosses it.

    Args:
        vector: the parameters, (P,); segments, lams: how many there are of each network, and its lambda.

    Attributes:
        vectors: (N, P)
    """

    def __init__(self, vector: Tensor, segments: Sequence[int], lams: Sequence[float], environments: int = 1) -> None:
        self.vectors = vector.new_zeros(environments, len(vector))
        self.lams = [float(lam) for lam in lams]
        self.keep = torch.cat([vector.new_full((n,), lam) for n, lam in zip(segments, self.lams, strict=True)])

    def decay(self, environments: Tensor, weight: Tensor) -> None:
        """environments: which, (B,) of them; weight: discount times lam, (B,)."""
        self.vectors[environments] *= weight.unsqueeze(-1) * self.keep

    def start_anew(self, environments: Any) -> None:
        """These environments have begun an episode; an array (N,) of bool, or a slice."""
        self.vectors[environments] = 0.0


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) over the parameters of some modules, laid out in one vector.

    Args:
        modules: each module's gradient is clipped by its own norm, so that none drowns another.
        lr: learning rate, one or one for each module.
        betas, eps: the paper's.

    After it is made, move the modules to no other device: their parameters are views of `vector`.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        lr: float | Sequence[float],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters, self.segments, self.vector = laid_out(modules)
        self.betas, self.eps = betas, eps
        self.taken = np.zeros(1)  # steps so far, where a kernel can count them
        self._share = self._scale = 1.0
        self.settings = np.array([0.0, 1.0, *betas, eps])  # what kernels read: a bound on norms, share * scale, these
        self.first, self.second = torch.zeros_like(self.vector), torch.zeros_like(self.vector)
        self.gradient, self.root = torch.zeros_like(self.vector), torch.zeros_like(self.vector)  # room for a step
        self.views = [
            part.view_as(p)
            for p, part in zip(self.parameters, self.gradient.split([p.numel() for p in self.parameters]), strict=True)
        ]
        self.kernel: Callable[..., bool] | None = None  # `covary.fast.descent.descend`, in place of what stands here
        self._memory: tuple[Any, ...] | None = None
        self.traces: Traces | None = None  # of whoever learns by them; saved with the moments
        self.rates = [float(lr)] * len(modules) if isinstance(lr, int | float) else [float(rate) for rate in lr]
        self.rate = torch.cat([self.vector.new_full((n,), r) for n, r in zip(self.segments, self.rates, strict=True)])

    @property
    def memory(self) -> tuple[Any, ...]:
        """What a kernel works on: parameters, gradient, first, second, segments."""
        vectors = (self.vector, self.gradient, self.first, self.second)
        return *(x.numpy() for x in vectors), np.array(self.segments)

    @property
    def steps(self) -> int:
        return int(self.taken[0])

    @property
    def share(self) -> float:
        """Of the learning rate, for annealing; may be assigned to between steps."""
        return self._share

    @share.setter
    def share(self, share: float) -> None:
        self._share = float(share)
        self.settings[1] = self._share * self._scale

    @property
    def scale(self) -> float:
        """What a run that was rolled back multiplies its learning rate by; saved with it."""
        return self._scale

    @scale.setter
    def scale(self, scale: float) -> None:
        self._scale = float(scale)
        self.settings[1] = self._share * self._scale

    def of(self, module: int) -> tuple[list[nn.Parameter], Tensor]:
        """The parameters of one of the modules, and their part of `vector`."""
        begin = sum(self.segments[:module])
        ends = itertools.accumulate(p.numel() for p in self.parameters)
        mine = [p for p, end in zip(self.parameters, ends, strict=True) if begin < end <= begin + self.segments[module]]
        return mine, self.vector[begin : begin + self.segments[module]]

    def state(self) -> dict[str, Tensor]:
        """The moments, the number of steps, the traces where there are any and, once a run was rolled back, the scale
        of its rate."""
        state = {"first": self.first, "second": self.second, "steps": torch.tensor(self.steps)}
        state |= {"traces": self.traces.vectors} if self.traces is not None else {}
        return state | ({"scale": torch.tensor(self.scale, dtype=torch.float64)} if self.scale != 1 else {})

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.first.copy_(state["first"])
        self.second.copy_(state["second"])
        self.taken[0] = int(state["steps"])
        if self.traces is not None:
            self.traces.vectors.copy_(state["traces"])
        self.scale = float(state.get("scale", 1.0))

    def copy(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """All that a step changes, for `back_to`."""
        return self.vector.clone(), self.first.clone(), self.second.clone(), self.steps

    def back_to(self, copy: tuple[Tensor, Tensor, Tensor, int]) -> None:
        """Undoes every step since the copy was taken."""
        for mine, kept in zip((self.vector, self.first, self.second), copy[:3], strict=True):
            mine.copy_(kept)
        self.taken[0] = copy[3]

    def _gathered(self, gradients: Sequence[Tensor]) -> Tensor:
        """In one vector, where some of them may lie already."""
        if self.kernel is None:
            return torch.cat([g.reshape(-1) for g in gradients], out=self.gradient)
        for mine, g in zip(self.views, gradients, strict=True):
            if g.data_ptr() != mine.data_ptr():
                mine.copy_(g)
        return self.gradient

    def step_in_place(self, max_norm: float) -> Tensor:
        """`step` along what stands in `gradient`, by the kernel."""
        assert self.kernel is not None
        return self._by_kernel(self.kernel, max_norm)

    def _by_kernel(self, kernel: Callable[..., bool], max_norm: float) -> Tensor:
        self.settings[0] = max_norm
        if self._memory is None:
            self._memory = (*self.memory, np.array(self.rates), self.settings, self.taken)
        norms = np.zeros(len(self.segments))
        if not kernel(*self._memory, norms):
            raise FloatingPointError(f"norms of gradients {norms.tolist()}")
        return torch.from_numpy(norms)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], max_norm: float, *, look: bool = True) -> Tensor:
        """One step along these gradients, each module's clipped to `max_norm`. Returns the norms, (modules,).

        Args:
            look: whether to make sure that the norms are finite, for which the host waits for a device.

        Raises:
            FloatingPointError: a norm that is not finite; nothing was changed.
        """
        grad = self._gathered(gradients)
        if self.kernel is not None:
            return self._by_kernel(self.kernel, max_norm)
        parts = grad.split(self.segments)
        norms = torch.stack([torch.linalg.vector_norm(part) for part in parts])
        if look and not math.isfinite(sum(norms.tolist())):
            raise FloatingPointError(f"norms of gradients {norms.tolist()}")
        if max_norm > 0:
            for part, factor in zip(parts, (max_norm / (norms + 1e-6)).clamp_(max=1.0), strict=True):
                part.mul_(factor)
        self.taken += 1
        beta1, beta2 = self.betas
        self.first.lerp_(grad, 1 - beta1)  # m_t
        self.second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)  # v_t
        # The paper's sec. 2: both corrections go into the step and eps, so that neither costs a pass of its own.
        correction = math.sqrt(1 - beta2**self.steps)
        root = torch.sqrt(self.second, out=self.root).add_(self.eps * correction)
        size = self.share * self.scale * correction / (1 - beta1**self.steps)
        self.vector.addcdiv_(grad.copy_(self.first).mul_(self.rate), root, value=-size)
        return norms


class Target(Generic[Network]):
    """A copy of a network that follows it: theta' <- theta' + tau (theta - theta') (Lillicrap 2016, arXiv:1509.02971).

    Args:
        network: the first of the optimizer's modules.
        optimizer: who moves it; the copy's parameters are views of one vector as its own are.

    Attributes:
        network: the copy.
    """

    def __init__(self, network: Network, optimizer: Adam) -> None:
        self.network: Network = copy.deepcopy(network).requires_grad_(False)
        moved = [p.requires_grad for p in network.parameters()]
        mine = [p for p, moves in zip(self.network.parameters(), moved, strict=True) if moves]
        self.source = optimizer.vector[: optimizer.segments[0]]
        self.vector = self.source.clone()
        for p, part in zip(mine, self.vector.split([p.numel() for p in mine]), strict=True):
            p.data = part.view_as(p)
        self.kernel: Callable[..., None] | None = None  # `covary.fast.descent.follow`

    def follow(self, tau: float) -> None:
        if self.kernel is not None:
            self.kernel(self.vector.numpy(), self.source.numpy(), tau)
        else:
            self.vector.lerp_(self.source, tau)


def descend(loss: Tensor, optimizer: Adam, max_norm: float = 0.0, *, look: bool = True) -> Tensor:
    """One step down the gradient of `loss` in the optimizer's own parameters and no others: there is nothing to freeze
    and nothing to zero. Returns each module's gradient norm before clipping (max_norm 0: none).

    Args:
        look: whether to make sure that loss and norms are finite, for which the host waits for a device.

    Raises:
        FloatingPointError: one of them that is not; nothing was changed.
    """
    if look and not math.isfinite(loss.item()):
        raise FloatingPointError(f"a loss of {loss.item()}")
    gradients = torch.autograd.grad(loss, optimizer.parameters, allow_unused=True, materialize_grads=True)
    return optimizer.step(gradients, max_norm, look=look)


class NaturalStep(NamedTuple):
    """What `climb` has done."""

    share: float  # of the longest step within the radius; 0 where none was taken
    kl: float  # where it ended
    loss: float  # there
    norm: float  # of the loss's gradient


SHRINK = 0.7  # from each trial of `climb` to the next


def climb(
    terms: Callable[[], tuple[Tensor, Tensor]],
    optimizer: Adam,
    module: int,
    radius: float,
    *,
    damping: float = 0.0,
    iterations: int = 10,
    trials: int = 10,
) -> NaturalStep:
    """One natural step of one of the optimizer's modules: down F^-1 g, as far as the quadratic of the divergence allows
    (Schulman 2015, appendix C), then shrunk until the loss has fallen and the divergence itself is within the radius.

    Args:
        terms: () -> loss and mean KL from the module as it was to the module as it is.
        module: which one, by its place among those that the optimizer was made for.
        damping: is added to F's diagonal while the direction is looked for.
        iterations: of conjugate gradients.
        trials: step lengths, the last of which may fail as well: then nothing moves.

    Raises:
        FloatingPointError: the loss, its gradient or the direction is not finite; nothing was changed.
    """
    parameters, part = optimizer.of(module)

    def flat(of: Tensor, again: bool = False) -> Tensor:
        slopes = torch.autograd.grad(
            of, parameters, retain_graph=True, create_graph=again, allow_unused=True, materialize_grads=True
        )
        return torch.cat([slope.reshape(-1) for slope in slopes])

    loss, kl = terms()
    gradient, slope = flat(loss), flat(kl, again=True)
    norm = float(torch.linalg.vector_norm(gradient))
    if not math.isfinite(float(loss.detach()) + norm):
        raise FloatingPointError(f"a loss of {loss.item()}, its gradient's norm {norm}")

    def fisher(vector: Tensor) -> Tensor:
        return flat(torch.dot(slope, vector))

    direction = conjugate_gradient(lambda v: fisher(v) + damping * v, gradient, iterations)
    curvature = float(torch.dot(direction, fisher(direction)))
    if not math.isfinite(curvature):
        raise FloatingPointError(f"a natural gradient of curvature {curvature}")
    before = float(loss.detach())
    none = NaturalStep(0.0, 0.0, before, norm)
    if curvature <= 0:
        return none
    start, longest = part.clone(), math.sqrt(2 * radius / curvature)  # the paper's beta
    for trial in range(trials):
        share = SHRINK**trial
        with torch.no_grad():
            part.copy_(start - share * longest * direction)
            now, far = (float(term) for term in terms())
        if now < before and far <= radius:  # which NaN is not
            return NaturalStep(share, far, now, norm)
    part.copy_(start)
    return none


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """x where A x = b, from v -> A v with A symmetric and positive definite (Hestenes & Stiefel 1952). b: (P,)"""
    x, rest, way = torch.zeros_like(b), b.clone(), b.clone()
    square = enough = torch.dot(rest, rest)
    for _ in range(iterations):
        if square <= 1e-12 * enough:  # what is left is round-off
            break
        image = product(way)
        size = square / torch.dot(way, image)
        x, rest = x + size * way, rest - size * image
        before, square = square, torch.dot(rest, rest)
        way = rest + square / before * way
    return x


class ObGD:
    """Overshooting-bounded gradient descent along an eligibility trace (Elsayed 2024, algorithm 3).

    A step of size alpha would change what is predicted by about alpha delta ||z||_1 for inputs of order one. Where
    kappa times that is more than the error itself, the step is shortened to it.

    Args:
        modules: each has a trace, a lambda and a step size of its own.
        alpha: the largest step size.
        kappas, lams: one for each module.
    """

    def __init__(
        self, modules: Sequence[nn.Module], alpha: float, kappas: Sequence[float], lams: Sequence[float]
    ) -> None:
        self.parameters, self.segments, self.vector = laid_out(modules)
        self.traces = Traces(self.vector, self.segments, lams)
        self.rates, self.kappas = [float(alpha)] * len(modules), [float(kappa) for kappa in kappas]
        self.taken = np.zeros(1)  # steps so far, where a kernel can count them
        self.settings = np.array([alpha, *kappas])  # what a kernel reads: alpha times the scale, the kappas
        self._scale = 1.0

    @property
    def steps(self) -> int:
        return int(self.taken[0])

    @property
    def scale(self) -> float:
        """What a run that was rolled back multiplies alpha by; saved with it."""
        return self._scale

    @scale.setter
    def scale(self, scale: float) -> None:
        self._scale = float(scale)
        self.settings[0] = self.rates[0] * self._scale

    def state(self) -> dict[str, Tensor]:
        """The traces, the number of steps and, once a run was rolled back, the scale of alpha."""
        state = {"traces": self.traces.vectors, "steps": torch.tensor(self.steps)}
        return state | ({"scale": torch.tensor(self.scale, dtype=torch.float64)} if self.scale != 1 else {})

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.traces.vectors.copy_(state["traces"])
        self.taken[0] = int(state["steps"])
        self.scale = float(state.get("scale", 1.0))

    @torch.no_grad()
    def step(self, delta: float) -> list[float]:
        """w <- w + alpha' delta z for each module. Returns the norms ||z||_1.

        Raises:
            FloatingPointError: an error or a norm that is not finite; no parameter was changed.
        """
        traces = self.traces.vectors[0].split(self.segments)
        norms = [float(trace.abs().sum()) for trace in traces]
        if not math.isfinite(sum(norms) + delta):
            raise FloatingPointError(f"an error of {delta} along traces of norm {norms}")
        alpha, bound = self.settings[0], max(abs(delta), 1.0)
        parts = self.vector.split(self.segments)
        for part, trace, norm, kappa in zip(parts, traces, norms, self.kappas, strict=True):
            part.add_(trace, alpha=alpha / max(1.0, alpha * kappa * bound * norm) * delta)  # algorithm 3
        self.taken += 1
        return norms


def descend_traced(
    scores: Tensor,
    delta: Tensor,
    environments: Tensor,
    optimizer: Adam,
    max_norm: float = 0.0,
    bonus: Tensor | None = None,
) -> Tensor:
    """One step up the mean of delta_n z_n, after z_n <- z_n + grad score_n; and up the gradient of `bonus`.

    Args:
        scores, delta: (B,); environments: whose they are, (B,).

    Raises:
        FloatingPointError: a score, a delta or a norm that is not finite; no parameter was changed.
    """
    traces = optimizer.traces
    assert traces is not None
    if not math.isfinite(told := (delta * scores).sum().item()):
        raise FloatingPointError(f"scores that weigh {told}")
    for n, score in zip(environments.tolist(), scores, strict=True):
        traces.vectors[n] += _slope(score, optimizer.parameters)
    step = -(delta @ traces.vectors[environments]) / len(delta)
    if bonus is not None:
        step -= _slope(bonus, optimizer.parameters)
    return optimizer.step([step], max_norm)


def climb_traced(score: Tensor, delta: Tensor, loss: Tensor, optimizer: ObGD) -> list[float]:
    """z <- z + grad score, and a step of this TD error along it. Returns the norms ||z||_1 of the modules' traces.

    Args:
        score: a number; delta: (1,); loss: what is logged of the step.

    Raises:
        FloatingPointError: a loss or a norm that is not finite; no parameter was changed.
    """
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"a loss of {loss.item()}")
    optimizer.traces.vectors[0] += _slope(score, optimizer.parameters)
    return optimizer.step(delta.item())


def _slope(score: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The gradient of a number in all of these, in one vector; the graph is kept."""
    gradients = torch.autograd.grad(
        score, list(parameters), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([g.reshape(-1) for g in gradients])
