"""Learning online along eligibility traces: what they are, and the steps that are taken along them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from covary.optim import Adam, laid_out


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
