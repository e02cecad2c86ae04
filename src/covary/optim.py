"""The only ways in which a parameter changes.

The parameters of an optimizer are views of one vector, so that a step costs a handful of operations and not a handful
for each tensor (torch's Adam over 13 small tensors: 361 us). Modules stay ordinary PyTorch modules.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from covary.traces import Traces

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
