"""A NaN or an infinity was born in one operation, and has reached the loss or the gradient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from covary.doctor.case import Backward, Case, Step
from covary.doctor.findings import Finding
from covary.doctor.reading.paths import consumers, words
from covary.doctor.rules import std_collapse
from covary.doctor.sites import Site
from covary.doctor.trail import Node
from covary.doctor.watching import aftermath

CODE = "non-finite"
RANK = 10
EXPLAINS = frozenset(
    {
        "learning-rate",
        "saturation",
        "dead-relu",
        "std-collapse",
        "wrong-sign",
        "graph-cut",
        "weights-overwritten",
        "target-network",
    }
)

BIRTHS = words("""
    log log2 log10 log1p logit div rdiv div_ sqrt sqrt_ rsqrt exp exp_ exp2 expm1 pow rpow pow_ square
    reciprocal std var mean std_mean var_mean norm vector_norm acos asin atanh acosh arccos arcsin arctanh tan
    sinh cosh softmax log_softmax logsumexp normalize cosine_similarity cross_entropy nll_loss
    binary_cross_entropy kl_div mse_loss smooth_l1_loss huber_loss gaussian_nll_loss poisson_nll_loss xlogy
    lgamma digamma prod cumprod inverse cholesky solve logdet slogdet det mul mul_ sub sub_ rsub add add_ sum
    logaddexp batch_norm layer_norm median var_ remainder fmod true_divide_ softplus
""")  # fmt: skip
SOURCES = ("tensor", "as_tensor", "from_numpy", "empty", "empty_like", "new_tensor", "array")
NUMPY = words("""
    divide true_divide log log2 log10 sqrt exp power mean std var reciprocal arccos arcsin arctanh nanmean
    average multiply subtract truediv pow linalg.norm norm corrcoef
""")
EDGES = {"sqrt", "sqrt_", "pow", "pow_", "acos", "asin", "arccos", "arcsin", "atan2", "rsqrt"}
TAKES_INFINITY = words("""
    softmax log_softmax logsumexp softmin cross_entropy sigmoid tanh clamp clamp_ clamp_min clamp_max hardtanh
    minimum maximum erf reciprocal atan expit
""")
TAKES_ALL = words("where masked_fill masked_fill_ nan_to_num nan_to_num_ isnan isfinite isinf nanmean nansum argmax")
COMPARE = words("lt gt le ge eq ne logical_and logical_or logical_not bitwise_and bitwise_or bitwise_not")
WHY = {
    "log": "the logarithm of 0 is -inf, of a negative number NaN",
    "sqrt": "the derivative of a square root at 0 is infinite (below 0 the root itself is NaN)",
    "div": "a division by 0 (0 / 0 is NaN)",
    "true_divide": "a division by 0 (0 / 0 is NaN)",
    "divide": "a division by 0 (0 / 0 is NaN)",
    "exp": "exp of more than 88 is infinite in float32",
    "std": "the standard deviation of a single number is NaN",
    "var": "the variance of a single number is NaN",
    "mean": "the mean of nothing is NaN",
    "pow": "a power of 0 or of a negative number, or one too large for float32",
    "softmax": "a softmax over -inf alone is NaN",
    "acos": "the derivative of acos is infinite at -1 and 1",
    "asin": "the derivative of asin is infinite at -1 and 1",
}
FIX = {
    "log": "Work with log_softmax / logits instead of log(softmax), or use torch.log(x.clamp_min(1e-8)).",
    "sqrt": "Put the small number inside: torch.sqrt(x + 1e-8), or use torch.linalg.norm(v, dim=-1).",
    "exp": "Subtract the maximum first (torch.softmax and torch.logsumexp do), or clamp: x.clamp(max=20).exp().",
    "std": "Normalise only where there are at least two numbers, or use x.std(unbiased=False) + 1e-8.",
    "mean": "Leave the term out where the mask selects nothing.",
    "acos": "Clamp the argument: torch.acos(x.clamp(-1 + 1e-6, 1 - 1e-6)).",
    "asin": "Clamp the argument: torch.asin(x.clamp(-1 + 1e-6, 1 - 1e-6)).",
}


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for one in values:
        if isinstance(one, torch.Tensor):
            yield one
        elif isinstance(one, (tuple, list)):
            yield from _tensors(one)


def _look(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """Marks a call whose operands were finite and whose result is not, or whose derivative cannot be."""
    if not isinstance(result, torch.Tensor) or not result.is_floating_point() or result.numel() > 4_000_000:
        return
    total = float(result.detach().sum())
    if total - total == 0.0:
        if node.grad and node.op in EDGES and _on_the_edge(node.op, args, kwargs, result.detach()):
            node.mark(edge=True)
        return
    if bool(result.isfinite().all()):
        return  # only the sum was too large
    nan = bool(result.isnan().any())
    given = [one.detach() for one in (*_tensors(args), *_tensors(kwargs.values())) if one.is_floating_point()]
    before_nan = any(bool(one.isnan().any()) for one in given if one is not result)
    before_inf = any(bool(one.isinf().any()) for one in given if one is not result)
    if before_nan or (before_inf and not nan):
        return
    _born(case, node, "nan" if nan else "inf")


def _on_the_edge(op: str, args: Any, kwargs: Any, result: torch.Tensor) -> bool:
    if op in ("sqrt", "sqrt_"):
        return bool((result == 0).any())
    if op in ("pow", "pow_"):
        exponent = args[1] if len(args) > 1 else kwargs.get("exponent")
        return isinstance(exponent, float) and 0 < exponent < 1 and bool((result == 0).any())
    base = args[0] if args and isinstance(args[0], torch.Tensor) else None
    if base is None:
        return False
    if op == "atan2":
        return bool(((base == 0) & (args[1] == 0)).any())
    return op != "rsqrt" and bool((base.detach().abs() == 1).any())


def _look_at_source(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    if isinstance(result, torch.Tensor) and result.is_floating_point() and 0 < result.numel() <= 4_000_000:
        total = float(result.detach().sum())
        if total - total != 0.0 and not bool(result.isfinite().all()):
            node.mark(entered=True)


def _look_at_numpy(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    try:
        array = np.asarray(result).view(np.ndarray)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            given = [
                np.asarray(one).view(np.ndarray) for one in args if isinstance(one, (np.ndarray, float, np.floating))
            ]
            if all(np.isfinite(one).all() for one in given if one.dtype.kind == "f"):
                _born(case, node, "nan" if np.isnan(array).any() else "inf")
    except (TypeError, ValueError):
        pass


def _born(case: Case, node: Node, kind: str) -> None:
    node.mark(born=kind)
    seen = case.memory.setdefault(CODE, {}).setdefault("born", [])
    if node.site is not None and len(seen) < 4000 and sum(one[1] == node.site for one in seen[-200:]) < 50:
        seen.append((node.serial, node.site, node.op, kind))


LISTENS = (
    dict.fromkeys(BIRTHS, _look)
    | dict.fromkeys(("acos", "asin", "arccos", "arcsin", "atan2"), _look)
    | dict.fromkeys(SOURCES, _look_at_source)
    | {f"numpy.{name}": _look_at_numpy for name in NUMPY}
)


def examine(case: Case) -> Iterator[Finding]:
    if next(std_collapse.examine(case), None) is not None:
        return  # what a scale that runs away ends in
    bad = next((step for step in case.steps if any(_is_bad(size) for size in step.grads.values())), None)
    if bad is not None:
        keys = frozenset(key for key, size in bad.grads.items() if _is_bad(size))
        yield from _at_step(case, bad, keys)
        return
    late = aftermath.found(case)
    if late is not None:
        site, op, certain, keys, updates = late
        yield _finding(case, site, op, keys, "loss", updates, certain)
        return
    if case.raised is not None and _about_numbers(case.raised):
        last = max((one.serial for one in case.events if one.kind == "step"), default=0)
        usual = _usual(case, last)
        born = [one for one in case.memory.get(CODE, {}).get("born", ()) if one[0] > last and one[1].place not in usual]
        if born:
            _, site, op, _ = born[0]
            yield _finding(case, site, op, frozenset(case.stepped), "value", case.counts["updates"], True)
            return
        raising = aftermath.in_traceback(case)
        if raising is not None:
            site, op, certain = raising
            yield _finding(case, site, op, frozenset(case.stepped), "value", case.counts["updates"], certain)


def _is_bad(size: float | None) -> bool:
    return size is not None and size - size != 0.0


def _about_numbers(error: BaseException) -> bool:
    """Whether an exception may come from a number that is none."""
    kinds = (ValueError, RuntimeError, ArithmeticError, AssertionError)
    words = r"\bnans?\b|\binf\b|infinit|invalid values|singular|positive-definite|not finite|non-?finite|converge"
    return isinstance(error, kinds) and re.search(words, str(error).lower()) is not None


def _usual(case: Case, before: int) -> set[tuple[str, int]]:
    """Places where infinities were born before, and nothing came of it: masks."""
    return {site.place for serial, site, _, _ in case.memory.get(CODE, {}).get("born", ()) if serial < before}


def _at_step(case: Case, bad: Step, keys: frozenset[int]) -> Iterator[Finding]:
    """The first step with a gradient that is no number: its cause is in a loss since the step before."""
    number = next((i for i, step in enumerate(case.steps) if step is bad), 0) + 1
    losses = [one for one in case.backwards if one.serial < bad.serial and one.reached & keys]
    losses = losses[-6:] or [one for one in case.backwards if one.serial < bad.serial][-1:]
    wrong = next((one for one in losses if one.value - one.value != 0.0), None)
    if wrong is not None:
        good = max((one.serial for one in case.backwards if one.serial < wrong.serial), default=0)
        node, certain = _root(wrong, _usual(case, good))
        if node is not None and node.tag("entered"):
            site = aftermath.warned(case, node.serial)
            yield _finding(
                case, site or node.site, "data" if site is None else "warned", keys, "loss", number, site is not None
            )
        elif node is not None:
            yield _finding(case, node.site, node.op, keys, "loss", number, certain)
        elif (site := aftermath.warned(case, wrong.serial)) is not None:
            yield _finding(case, site, "warned", keys, "loss", number, False)
        else:
            yield _finding(case, wrong.loss.site or wrong.site, "", keys, "loss", number, False)
        return
    best: tuple[int, int] | None = None
    chosen: Node | None = None
    for one in losses[-2:]:
        for node in one.loss.walk():
            if node.grad and node.site is not None and (node.tag("edge") or node.tag("born")):
                score = (len(case.before(node) & keys), -node.serial)
                if score[0] and (best is None or score > best):
                    best, chosen = score, node
    if chosen is not None:
        yield _finding(case, chosen.site, chosen.op, keys, "gradient", number, True)
    elif losses:
        yield _finding(case, losses[-1].site, "", keys, "gradient", number, False)


def _root(backward: Backward, usual: set[tuple[str, int]]) -> tuple[Node | None, bool]:
    """Where the loss's NaN or infinity was born: the first birth that nothing takes out again on the way to it."""
    nodes = list(backward.loss.walk())
    after = consumers(nodes)
    born = sorted(
        (one for one in nodes if one.tag("born") and one.site is not None),
        key=lambda one: (one.site is not None and one.site.place in usual, one.serial),
    )
    for node in born:
        if _arrives(node, backward.loss, after):
            return node, True
    entered = sorted((one for one in nodes if one.tag("entered") and one.site is not None), key=lambda one: one.serial)
    if entered:
        return entered[0], False
    return (born[0], False) if born else (None, False)


def _arrives(node: Node, loss: Node, after: dict[int, list[Node]]) -> bool:
    stops = TAKES_ALL | COMPARE | (TAKES_INFINITY if node.tag("born") == "inf" else frozenset())
    seen, queue = {id(node)}, [node]
    for one in queue:
        if one is loss:
            return True
        for user in after.get(id(one), ()):
            if id(user) not in seen and user.op not in stops:
                seen.add(id(user))
                queue.append(user)
    return False


def _finding(
    case: Case, site: Site | None, op: str, keys: frozenset[int], where: str, update: int, certain: bool
) -> Finding:
    name = op.strip("_") if op not in ("data", "warned") else ""
    name = {
        "rdiv": "div",
        "log2": "log",
        "log10": "log",
        "xlogy": "log",
        "arccos": "acos",
        "arcsin": "asin",
        "power": "pow",
    }.get(name, name)
    what = f"`{name}`" if name else "A calculation in NumPy" if op == "warned" else "The data"
    if where == "gradient":
        title = f"{what if name else 'Something here'} has a gradient that is NaN or infinite"
        told = "The loss is still finite there; its gradient is not, and the step writes it into the weights."
    else:
        title = (
            f"{what if op else 'Something here'} makes NaN or infinity out of finite numbers"
            if op != "data"
            else "Data that are not finite"
        )
        told = f"From here it reaches the {where}, and with the next step every weight behind it is NaN for good."
    why = WHY.get(name, "")
    return Finding(
        CODE,
        "error",
        title,
        site,
        f"{why[:1].upper() + why[1:] + '. ' if why else ''}{told}",
        FIX.get(
            name,
            "Keep the argument away from the forbidden value: clamp it, or add a small number such as 1e-8 to the "
            "denominator.",
        ),
        case.named(keys),
        {"operation": name or op, "at update": update},
        certain,
        keys,
    )
