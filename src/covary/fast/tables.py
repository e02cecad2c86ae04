"""What the kernels need of an agent: its networks and its policy's head as tables of numbers.

`read` raises Unknown with the reason wherever there is something that the kernels do not do; the general path, which
knows every module, then runs instead.
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covary.distributions import Geometry
from covary.heads import CategoricalHead, GaussianHead
from covary.more_heads import BetaHead, ChoicesHead, ProductHead
from covary.nets import RunningNorm, Value
from covary.optim import Adam, Target
from covary.policies import Policy
from covary.traces import ObGD
from covary.types import Rollout

# As the kernels have them; repeated here so that this file is read without Numba.
ACTIVATIONS: dict[type[nn.Module], int] = {nn.Identity: 0, nn.Tanh: 1, nn.ReLU: 2, nn.ELU: 3, nn.LeakyReLU: 4}
LEAK, NORM_EPS = 0.01, 1e-5
OTHERS: dict[type[nn.Module], str] = {
    BetaHead: "a Beta policy",
    ChoicesHead: "several choices at once",
    ProductHead: "a policy of several parts",
}
KINDS = {"free": 0, "squash": 1, "half": 2, "wrap": 3, "clip": 4}


Owner = Adam | ObGD | Target[Any]
"""Of a vector that parameters are views of."""


class Unknown(Exception):
    """Something that the kernels do not do; says what."""


class Tables(NamedTuple):
    """See `covary.fast.dense` and `covary.fast.densities` for the columns."""

    layers: NDArray[np.int64]  # (layers, 8) the policy's, then the critic's
    rows: int  # of `work`
    plan: NDArray[np.int64]  # (12,)
    dims: NDArray[np.int64]  # (D, 5)
    box: NDArray[np.float64]  # (D, 7)
    given: NDArray[np.float64]  # (D, D)
    slopes: int  # numbers in the slope of a score


def read(policy: Policy, critic: Value, optimizer: Adam | ObGD, *, entropy: bool = False) -> Tables:
    """The tables of these networks, whose parameters are views of the optimizer's vector.

    Args:
        entropy: whether the loss has an entropy bonus.
    """
    if type(policy) is not Policy or type(critic) is not Value:
        raise Unknown("networks of other classes")
    normalizer_of(policy.normalizer, 0)
    if optimizer.vector.dtype != torch.float32:
        raise Unknown(f"parameters of {optimizer.vector.dtype}")
    check_nobody_watches()
    head = policy.head
    if not isinstance(head, GaussianHead | CategoricalHead) or type(head) not in (GaussianHead, CategoricalHead):
        raise Unknown(OTHERS.get(type(head), f"a head of type {type(head).__name__}"))
    if entropy and type(head) is GaussianHead:
        raise Unknown("an entropy bonus of a Gaussian policy")
    for module in (policy, policy.normalizer, head, critic):
        check_unchanged(module)
    last = head.out if isinstance(head, GaussianHead) else head.logits
    layers: list[tuple[int, ...]] = []
    parts, judges = [*modules_of(policy.torso), last], [*modules_of(critic.torso), critic.head]
    inputs = inputs_of(parts)
    top = stack(layers, parts, optimizer, fills=inputs)
    depth = len(layers)
    end = top + last.out_features
    value = stack(layers, judges, optimizer, fills=end)
    if inputs_of(judges) != inputs:
        raise Unknown("a critic that reads something else than the policy")
    dims, box, given, about, slopes = _head(head, optimizer)
    check_apart(layers, optimizer)
    plan = np.array([*about, depth, top, value], np.int64)
    return Tables(np.array(layers, np.int64), value + 1, plan, dims, box, given, slopes)


def check_entropy(head: nn.Module) -> None:
    """Raises Unknown for a policy whose entropy `covary.fast.streaming` does not compute."""
    if type(head) is GaussianHead and (head.full or head.matrix is not None or head.geometry.columns("wrap", "clip")):
        raise Unknown("an entropy bonus of correlated, wrapped or clipped dimensions")


def check_nobody_watches() -> None:
    """Raises Unknown where something changes, or wants to see, every operation of torch."""
    if torch.is_autocast_enabled("cpu"):
        raise Unknown("autocast, which computes in fewer digits")
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        raise Unknown("a mode that watches torch's operations")
    if torch.nn.modules.module._has_any_global_hook():
        raise Unknown("hooks on all modules")


def modules_of(torso: nn.Module) -> list[nn.Module]:
    """The layers of a torso, one after another."""
    known = (nn.Linear, nn.LayerNorm, *ACTIVATIONS)
    if type(torso) in (nn.Sequential, *known):
        check_unchanged(torso)
    if type(torso) in known:
        return [torso]
    if type(torso) is nn.Sequential:
        return [inner for part in torso for inner in modules_of(part)]
    raise Unknown(f"a torso with {type(torso).__name__}")


def inputs_of(modules: list[nn.Module]) -> int:
    """Of the first linear layer; every network here ends with one."""
    return next(int(module.in_features) for module in modules if isinstance(module, nn.Linear))


def stack(layers: list[tuple[int, ...]], modules: list[nn.Module], owner: Owner, fills: int) -> int:
    """Adds a layer for each linear module and each LayerNorm, with the activation that follows it; the row that the
    last one fills."""
    from covary.fast.blas import worth  # which needs Numba

    reads = 0
    modules = [m for m in modules if type(m) is not nn.Identity]
    for before, module, following in zip([None, *modules], modules, [*modules[1:], None], strict=False):
        if isinstance(module, nn.LayerNorm):
            _check_norm(module, before)
            width, activation = module.normalized_shape[0], _activation(following)
            layers.append((-1, -1, width, width, activation, reads, fills, 0))
            reads, fills = fills, fills + width
            continue
        if not isinstance(module, nn.Linear):
            if not isinstance(before, nn.Linear | nn.LayerNorm):
                raise Unknown("an activation that follows no linear layer")
            if isinstance(module, nn.ELU) and module.alpha != 1.0:
                raise Unknown("an ELU whose alpha is not 1")
            if isinstance(module, nn.LeakyReLU) and module.negative_slope != LEAK:
                raise Unknown(f"a leaky ReLU whose slope is not {LEAK:g}")
            continue
        if type(module) is not nn.Linear:
            raise Unknown(f"a layer of type {type(module).__name__}")
        check_unchanged(module)
        activation = _activation(following)
        bias = -1 if module.bias is None else place(module.bias, owner)
        sizes = (module.in_features, module.out_features)
        if tuple(module.weight.shape) != sizes[::-1] or (bias >= 0 and module.bias.shape != sizes[1:]):
            raise Unknown("a layer of other sizes than it says")
        layers.append((place(module.weight, owner), bias, *sizes, activation, reads, fills, int(worth(*sizes))))
        reads, fills = fills, fills + module.out_features
    return reads


def _activation(following: nn.Module | None) -> int:
    return 0 if following is None else ACTIVATIONS.get(type(following), 0)


def _check_norm(module: nn.LayerNorm, before: nn.Module | None) -> None:
    """Raises Unknown for a LayerNorm that learns something, or stands elsewhere than behind a linear layer."""
    if module.weight is not None or module.bias is not None or module.eps != NORM_EPS:
        raise Unknown("a LayerNorm that is learned, or of another epsilon")
    if not isinstance(before, nn.Linear) or tuple(module.normalized_shape) != (before.out_features,):
        raise Unknown("a LayerNorm that follows no linear layer of its width")


def check_unchanged(module: nn.Module) -> None:
    """Raises Unknown where somebody listens to a module or has changed what its class does, whom a kernel would not
    reach."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(module, name) for name in hooks):
        raise Unknown("a module with hooks")
    cls = type(module)
    home = vars(sys.modules[cls.__module__])
    own = getattr(cls.forward, "__globals__", home) is home  # even a wrapper that took over its name has others
    if not own or any(hasattr(cls, name) for name in vars(module)):
        raise Unknown(f"a {cls.__name__} whose methods were changed")


def check_apart(layers: list[tuple[int, ...]], owner: Owner) -> None:
    """Raises Unknown where two layers have a parameter in common, whose gradients would have to be added."""
    owners = np.zeros(owner.vector.numel(), np.int64)
    for weight, bias, inputs, outputs, *_ in layers:
        if weight < 0:
            continue
        owners[weight : weight + inputs * outputs] += 1
        owners[bias : bias + outputs] += bias >= 0
    if (owners > 1).any():
        raise Unknown("a parameter that two layers share")


def place(parameter: Tensor, owner: Owner) -> int:
    """Where a parameter begins in its owner's vector."""
    vector = owner.vector
    offset, rest = divmod(parameter.data_ptr() - vector.data_ptr(), vector.element_size())
    inside = 0 <= offset <= vector.numel() - parameter.numel() and not rest
    moves = parameter.requires_grad is not isinstance(owner, Target)
    if not inside or not parameter.is_contiguous() or not moves:
        raise Unknown("a parameter that is frozen, or shared with something else")
    check_plain(parameter)
    return offset


def check_plain(parameter: Tensor) -> None:
    """Raises Unknown for a parameter whose gradient somebody wants to see, or which computes in a way of its own."""
    if type(parameter) is not nn.Parameter or parameter._backward_hooks:
        raise Unknown("a parameter with hooks, or of a class of its own")


def _head(
    head: nn.Module, optimizer: Adam | ObGD
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], list[int], int]:
    """dims, box, given, the plan's first nine numbers and how many slopes a score has."""
    if type(head) is CategoricalHead:
        choices = head.logits.out_features
        nothing = np.zeros((0, 0))
        return np.zeros((0, 5), np.int64), np.zeros((0, 7)), nothing, [0] * 8 + [choices], choices
    assert type(head) is GaussianHead
    geometry, d = head.geometry, head.geometry.dim
    fixed = head.matrix is not None
    if head.rank:
        raise Unknown("a covariance of low rank")
    if (head.full or fixed) and len(geometry.columns("wrap", "clip")) > 1:
        raise Unknown("two correlated dimensions that are angles or clipped")
    learned = head.config.covariance != "fixed"
    own = learned and not head.per_state
    about = [d, len(head.angles), head.couplings, int(head.per_state), int(learned)]
    about += [place(head.log_std, optimizer) if own else 0]
    about += [place(head.coupling, optimizer) if own and head.couplings else 0, int(fixed), 0]
    given = np.zeros((d, d)) if head.matrix is None else head.matrix.double().numpy().copy()
    dims, box = _dimensions(geometry, head)
    return dims, box, given, about, d + len(head.angles) + d + head.couplings


def _dimensions(geometry: Geometry, head: GaussianHead) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    order = geometry.order
    dims, box = np.zeros((geometry.dim, 5), np.int64), np.zeros((geometry.dim, 7))
    for i, kind in enumerate(geometry.kinds):
        angle = head.angles.index(i) if kind == "wrap" else 0
        dims[i] = KINDS[kind], i in head.kept, angle, order.index(i), order[i]
        low, high = np.float32(geometry.low[i]), np.float32(geometry.high[i])
        start = (float(x[i]) for x in (head.offset, head.gain, head.base_log_std))
        box[i] = low, high, np.nextafter(high, low), *start, 1.0 if math.isinf(high) else -1.0
    return dims, box


def numpy_of(tensor: Tensor) -> NDArray[Any]:
    """The tensor's own memory."""
    array: NDArray[Any] = tensor.detach().numpy()
    return array


def normalizer_of(module: Any, features: int) -> tuple[tuple[NDArray[Any], ...], float]:
    """count, mean64, m2, mean, inv_std; and where standardised observations are clipped, infinite for not at all.

    Raises Unknown for a normaliser of another kind.
    """
    if type(module) not in (RunningNorm, nn.Identity):
        raise Unknown(f"a normalizer of type {type(module).__name__}")
    if type(module) is RunningNorm:
        kept = (module.count.view(1), module.mean64, module.m2, module.mean, module.inv_std)
        return tuple(numpy_of(x) for x in kept), module.CLIP
    nothing = (np.zeros(1), np.zeros(features), np.zeros(features))
    return (*nothing, np.zeros(features, np.float32), np.ones(features, np.float32)), np.inf


def steps_of(rollout: Rollout) -> NDArray[np.float32]:
    """(5, B) reward, discount, lam and valid, and a row to write to."""
    table = np.empty((5, rollout.reward.numel()), np.float32)
    for row, part in enumerate((rollout.reward, rollout.discount, rollout.lam, rollout.valid)):
        table[row] = part.numpy().reshape(-1)
    return table
