"""Beside the calls: which rows a network was given that were terminal, and which elements a mask lets through."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from covary.doctor.case import Case
from covary.doctor.reading.paths import words
from covary.doctor.trail import Node
from covary.doctor.watching.endings import LIMIT, key_of

HIDDEN = words(
    "linear relu relu_ tanh sigmoid elu silu gelu leaky_relu layer_norm addmm matmul mm batch_norm dropout softplus"
)


def _array(value: Any) -> Any:
    """The values of a small array or tensor without a gradient, flat; else None."""
    if isinstance(value, Tensor):
        if value.requires_grad or not 0 < value.numel() <= 4096 or value.is_sparse:
            return None
        return value.detach().cpu().numpy().ravel()
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray).ravel() if 0 < value.size <= 4096 and value.dtype.kind in "biuf" else None
    if isinstance(value, (bool, np.bool_, np.integer)):
        return np.array([float(value)])
    return None


def heard_input(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """What became of each row that a network is given."""
    x = args[1] if node.op == "addmm" and len(args) > 1 else args[0] if args else None
    known = case.memory.get("endings", {}).get("outcomes")
    if not isinstance(x, Tensor) or known is None or not known.kinds or x.ndim == 0 or x.is_sparse:
        return
    first = node.args[0]
    if (isinstance(first, Node) and first.op in HIDDEN) or x.numel() > 262_144:
        return
    width = max((one for one in known.widths if one <= x.shape[-1]), default=0)
    rows = x.numel() // x.shape[-1] if x.shape[-1] else 0
    if not width or not 0 < rows <= 1024:
        return
    values = x.detach().cpu().numpy().reshape(rows, -1)[:, :width].astype(np.float32)
    kinds = known.kinds
    found = bytes([kinds.get(key_of(row), 0) for row in values])
    if any(found):
        memory = case.memory.setdefault("bootstraps", {})
        memory["inputs"] = memory.get("inputs", 0) + 1
        if memory["inputs"] > 4000 and memory["inputs"] % 4:
            return
        if width == x.shape[-1]:
            memory["exact"] = True
        elif not memory.get("exact"):
            return  # no network takes the bare observation: the beginning of a one-hot code may look like one
        node.mark(rows=found)
        if LIMIT in found and len(limited := memory.setdefault("limited", [])) < 2000:
            limited.append(node)


def heard_product(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """Which elements a factor of zeros and one other value lets through."""
    if node.site is None or len(args) < 2:
        return
    seen = case.memory.setdefault("bootstraps", {}).setdefault("products", {}).setdefault(node.site, [0, 0])
    seen[0] += 1
    if (seen[0] > 8 and not seen[1]) or (seen[0] > 400 and seen[0] % 4):
        return
    keeps: dict[int, tuple[Any, float]] = {}
    for i in (0, 1):
        array = _array(args[i])
        if array is None:
            continue
        top = float(array.max())
        if (0 < top <= 1 and bool(((array == 0) | (array == top)).all())) or top == 0 == float(array.min()):
            keeps[i] = (array != 0, top)
    if keeps:
        seen[1] += 1
        node.mark(keeps=keeps)


def heard_place(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """Which elements a `where`, a `masked_fill` or an assignment by a mask chooses."""
    which = (
        args[0] if node.op == "where" else args[2] if node.op == "setitem" and type(args[0]) is np.ndarray else args[1]
    )
    if node.op == "setitem" and not isinstance(args[0], Tensor):
        which = args[2] if len(args) > 2 else None
    if (isinstance(which, Tensor) and "bool" in str(which.dtype)) or (
        isinstance(which, np.ndarray) and which.dtype.kind == "b"
    ):
        array = _array(which)
        if array is not None:
            node.mark(chosen=array.astype(bool))
            case.memory.setdefault("bootstraps", {})["chosen"] = True


LISTENS = {
    **dict.fromkeys(("linear", "addmm", "matmul", "mm", "mv"), heard_input),
    **dict.fromkeys(("mul", "mul_", "numpy.multiply"), heard_product),
    **dict.fromkeys(("where", "masked_fill", "masked_fill_", "setitem", "numpy.where", "numpy.setitem"), heard_place),
}
