"""NaN and infinity after the window: seen by the loss's own value, and traced through the graph that autograd has kept.

The trail is over by then; what is left is autograd's graph of the very loss, with the values that it has saved, and the
trail of an earlier loss of the same place, which tells the lines. NumPy says itself where it made a NaN, by a warning.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from covary.doctor.case import Backward, Case
from covary.doctor.reading.paths import words
from covary.doctor.sites import Site, here
from covary.doctor.trail import Node

CODE = "non-finite"
EVERY = 16  # calls of backward between looks, on a device that must be waited for
WORDS = (
    "invalid value encountered",
    "divide by zero encountered",
    "overflow encountered",
    "mean of empty slice",
    "degrees of freedom",
)
TRAIL_OPS = {  # autograd's name for a call -> the trail's
    "div": ("div", "rdiv", "div_"),
    "pow": ("pow", "pow_", "square", "rpow"),
    "std": ("std", "std_mean", "normalize"),
    "log": ("log", "log_"),
    "var": ("var", "var_mean"),
    "sub": ("sub", "rsub", "sub_"),
    "logsoftmax": ("log_softmax", "cross_entropy"),
    "mseloss": ("mse_loss",),
    "linalgvectornorm": ("norm", "vector_norm"),
    "exp": ("exp", "exp_"),
    "binarycrossentropy": ("binary_cross_entropy",),
    "mul": ("mul", "mul_"),
}
HAZARDS = words("""
    log log2 log10 log_ div rdiv div_ sqrt sqrt_ rsqrt exp exp_ pow rpow pow_ reciprocal std var mean acos asin
    atanh logit softmax prod true_divide divide power truediv xlogy
""")
STEEP = (
    "sqrt",
    "sqrt_",
    "acos",
    "asin",
    "arccos",
    "arcsin",
    "pow",
    "pow_",
    "rsqrt",
    "atan2",
    "log",
    "log_",
    "div",
    "rdiv",
    "exp",
    "norm",
    "std",
)


class Aftermath:
    """Looks at each loss after the window, and once into its graph when it is not finite."""

    def __init__(self, watch: Any) -> None:
        self.watch = watch
        self.calls = 0
        self.done = False

    def start(self, patches: Any) -> None:
        patches.put(warnings, "showwarning", self._showwarning)

    def _showwarning(self, original: Any) -> Any:
        @functools.wraps(original)
        def showwarning(message: Any, category: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(category, type) and issubclass(category, RuntimeWarning) and self.watch.mine():
                text = str(message).lower()
                if any(word in text for word in WORDS):
                    said = _memory(self.watch.case).setdefault("warned", [])
                    if len(said) < 200:
                        said.append((self.watch.trail.serial, here()))
            return original(message, category, *args, **kwargs)

        return showwarning

    def backward(self, tensors: Any) -> None:
        """Told of each call of backward after the window, before it runs: the graph is still there."""
        if self.done:
            return
        self.calls += 1
        try:
            loss = tensors if isinstance(tensors, Tensor) else tensors[0]
            if loss.numel() != 1 or (loss.is_cuda and self.calls % EVERY):
                return
            value = loss.item()
        except Exception:  # whatever is wrong with it, PyTorch will say so
            return
        if value - value != 0.0:
            self.done = True
            self.watch.safely(self._trace, loss)

    def _trace(self, loss: Tensor) -> None:
        case = self.watch.case
        memory = _memory(case)
        memory["updates"] = case.counts["updates"]
        self._weights(memory)
        if "weights" in memory:
            return
        site = here()
        birth = _birth(loss)
        if birth is not None:
            memory["birth"] = (site, *birth)
        else:
            memory["loss"] = site

    def _weights(self, memory: dict[Any, Any]) -> None:
        bad = []
        held = {key for optimizer in self.watch.case.optimizers for key in optimizer.params}
        for key, reference in self.watch.trail.params.items():
            parameter = reference()
            if parameter is not None and key in held and _bad(parameter.detach()):
                bad.append(key)
        if bad:
            memory["weights"] = frozenset(bad)

    def stop(self) -> None:
        """The end of the run: are the weights still numbers?"""
        if not self.done:
            memory = _memory(self.watch.case)
            self._weights(memory)
            memory.setdefault("updates", self.watch.case.counts["updates"])


def _memory(case: Case) -> dict[Any, Any]:
    return case.memory.setdefault(CODE, {})


# ------------------------------------------------------------------------------------------------ autograd's own graph


def _graph(loss: Tensor) -> Iterator[Any]:
    """The functions behind a tensor, nearest first."""
    seen: set[Any] = set()
    queue = [loss.grad_fn]
    for function in queue:
        if function is None or function in seen or len(seen) > 20_000:
            continue
        seen.add(function)
        yield function
        queue += [following for following, _ in function.next_functions]


def _saved(function: Any) -> dict[str, Any]:
    found = {}
    for name in dir(function):
        if name.startswith("_saved_"):
            with suppress(RuntimeError):  # freed already
                found[name[7:]] = getattr(function, name)
    return found


def _kind(function: Any) -> str:
    return function.name().removesuffix("Backward0").removesuffix("Backward1").removesuffix("Backward").lower()


_AGAIN = {  # what a function computed, of those that save their operands alone
    "log": lambda s: s["self"].log(),
    "log1p": lambda s: s["self"].log1p(),
    "acos": lambda s: s["self"].acos(),
    "asin": lambda s: s["self"].asin(),
    "atanh": lambda s: s["self"].atanh(),
    "logit": lambda s: s["self"].logit(),
    "div": lambda s: (s["self"] if isinstance(s.get("self"), Tensor) else 1.0) / s["other"],
    "pow": lambda s: s["self"] ** s["exponent"],
    "mul": lambda s: s["self"] * s["other"],
    "mseloss": lambda s: (s["self"] - s["target"]) ** 2,
}


def _bad(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all())


def _birth(loss: Tensor) -> tuple[str, int, int, str] | None:
    """The function nearest the leaves that made a NaN or an infinity: its name, its place among those of its name, how
    many there are, and how: "made", or "given" where a constant that it was given was none already."""
    counts: dict[str, int] = {}
    found: list[tuple[str, int, str]] = []
    with torch.no_grad():
        for function in _graph(loss):
            name = _kind(function)
            index = counts.get(name, 0)
            counts[name] = index + 1
            saved = _saved(function)
            result = saved.pop("result", None)
            operands = [one for one in saved.values() if isinstance(one, Tensor)]
            if any(_bad(one) for one in operands):
                found.append((name, index, "given"))
                continue
            if not isinstance(result, Tensor) and name in _AGAIN:
                try:
                    result = _AGAIN[name](saved)
                except (RuntimeError, KeyError, TypeError):
                    result = None
            if _bad(result):
                found.append((name, index, "made"))
    made = [one for one in found if one[2] == "made"]
    if not found:
        return None
    name, index, how = (made or found)[-1]
    return name, index, counts[name], how


# ----------------------------------------------------------------------------------------------- which line it was


def found(case: Case) -> tuple[Site | None, str, bool, frozenset[int], int] | None:
    """What went wrong after the window: line, call, whether that is certain, the parameters, the update."""
    memory = case.memory.get(CODE, {})
    updates = memory.get("updates", 0)
    if "birth" in memory:
        site, name, index, count, how = memory["birth"]
        line, op, certain = _line(case, site, name, index, count, how)
        return line or site, op, certain and line is not None, frozenset(case.stepped), updates
    if "weights" in memory:
        keys = memory["weights"]
        node = _steepest(case, keys)
        if node is not None:
            return node.site, node.op, False, keys, updates
        site = warned(case, 1 << 60) or (case.backwards[-1].site if case.backwards else None)
        return site, "", False, keys, updates
    if "loss" in memory:
        return warned(case, 1 << 60) or memory["loss"], "", False, frozenset(case.stepped), updates
    return None


def warned(case: Case, serial: int) -> Site | None:
    """The latest place before a moment where NumPy warned of a NaN or an infinity."""
    said = [site for when, site in case.memory.get(CODE, {}).get("warned", ()) if when <= serial and site is not None]
    return said[-1] if said else None


def _like(case: Case, site: Site | None) -> Backward | None:
    """The latest loss of the same place whose trail is known; else the latest of all."""
    known = [one for one in case.backwards if one.loss.op != "forgotten"]
    same = [one for one in known if one.site is not None and site is not None and one.site.place == site.place]
    return same[-1] if same else known[-1] if known else None


def _line(case: Case, site: Site | None, name: str, index: int, count: int, how: str) -> tuple[Site | None, str, bool]:
    backward = _like(case, site)
    if backward is None:
        return None, name, False
    ops = TRAIL_OPS.get(name, (name,))
    nodes = [one for one in backward.loss.walk() if one.grad and one.op in ops and one.site is not None]
    if not nodes:
        return None, name, False
    places = {one.site.place for one in nodes if one.site}
    node = nodes[index] if index < len(nodes) and len(nodes) == count else nodes[-1]
    certain = len(places) == 1 or len(nodes) == count
    if how == "made":
        return node.site, node.op, certain
    site = warned(case, 1 << 60)
    if site is not None:
        return site, "warned", True
    for operand in node.inputs:
        if not operand.grad:
            for one in operand.walk(lambda one: not one.grad):
                if one.op in HAZARDS and one.site is not None:
                    return one.site, one.op, certain
    return node.site, node.op, False


def _steepest(case: Case, keys: frozenset[int]) -> Node | None:
    """The call whose derivative is likeliest to have been infinite, behind which the spoilt weights stand."""
    best: tuple[int, int] | None = None
    chosen = None
    for backward in [one for one in case.backwards if one.loss.op != "forgotten"][-6:]:
        for node in backward.loss.walk():
            if node.grad and node.op in STEEP and node.site is not None and case.before(node) & keys:
                if node.op in ("pow", "pow_") and not any(isinstance(one, float) and 0 < one < 1 for one in node.args):
                    continue
                score = (-STEEP.index(node.op), len(case.before(node) & keys))
                if best is None or score > best:
                    best, chosen = score, node
    return chosen


def in_traceback(case: Case) -> tuple[Site | None, str, bool] | None:
    """Where the value was born that made the script raise: among the tensors of the frames that raised."""
    trace = case.raised.__traceback__ if case.raised is not None else None
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        for value in list(frame.f_locals.values())[:60]:
            if isinstance(value, Tensor) and value.grad_fn is not None and _bad(value.detach()):
                birth = _birth(value)
                if birth is not None:
                    name, index, count, how = birth
                    site, op, certain = _line(case, None, name, index, count, how)
                    if site is not None:
                        return site, op, certain and False
    site = warned(case, 1 << 60)
    return None if site is None else (site, "warned", False)
