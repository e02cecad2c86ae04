"""A column met a row by accident: [B] with [B, 1] made [B, B], and the loss averages over all pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from covary.doctor.case import Case
from covary.doctor.findings import Finding
from covary.doctor.reading.paths import (
    VIEWS,
    base,
    consumers,
    layer_before,
    operands,
    same_statement,
    some_backwards,
    words,
)
from covary.doctor.sites import Site
from covary.doctor.trail import Node

CODE = "broadcast"
RANK = 30
EXPLAINS = frozenset(
    {"reduced-log-prob", "wrong-sign", "dead-relu", "saturation", "std-collapse", "target-not-detached"}
)

LOSSES = words("mse_loss l1_loss smooth_l1_loss huber_loss poisson_nll_loss gaussian_nll_loss soft_margin_loss")
ELEMENTWISE = words("""
    add sub rsub mul div rdiv pow rpow add_ sub_ mul_ div_ minimum maximum fmin fmax min max where lerp addcmul
    addcdiv hypot atan2 floor_divide remainder subtract multiply divide true_divide power float_power logaddexp
    xlogy dist floordiv mod truediv
""")
WHOLE = words("Categorical OneHotCategorical MultivariateNormal Independent")  # one log-probability for a row
# what treats a square as a square: whoever calls it on the result wanted all pairs
SQUARE = words("""
    matmul mm bmm mv linear einsum tensordot softmax log_softmax logsumexp softmin cross_entropy nll_loss
    masked_fill masked_fill_ masked_select tril triu tril_ triu_ diagonal diag fill_diagonal_ gather topk sort
    argsort argmax argmin amax amin cdist conv1d conv2d layer_norm cumsum cumprod addmm baddbmm kl_div bilinear
    scaled_dot_product_attention inverse det cholesky nonzero trace eigh svd dot batch_norm embedding
""")


def examine(case: Case) -> Iterator[Finding]:
    seen: dict[tuple[str, int], list[tuple[Node, tuple[int, ...], tuple[int, ...], frozenset[int]]]] = defaultdict(list)
    wanted: set[tuple[str, int]] = set()
    for backward in some_backwards(case):
        nodes = list(backward.loss.walk())
        born: list[tuple[Node, Node | None, Node | None]] = []
        for node in nodes:
            if len(node.shape) < 2 and node.op not in LOSSES:
                continue
            if (pair := _mixes(node)) is not None:
                born.append((node, *pair))
            elif node.site is not None and _outer(node):
                wanted.add(node.site.place)  # elsewhere the same line makes a rectangle: it is meant
        if not born:
            continue
        after = consumers(nodes)
        below = _below([node for node, _, _ in born], after)
        for node, flat, column in born:
            if node.site is None or not _by_accident(node, flat, column, after, below):
                continue
            keys = backward.reached & case.before(backward.loss)
            seen[node.site.place].append((node, _shape(flat, node, 1), _shape(column, node, 2), keys))
    for place, hits in sorted(seen.items(), key=lambda item: item[1][0][0].serial):
        if place not in wanted:
            yield _finding(case, hits)


def _shape(operand: Node | None, node: Node, rank: int) -> tuple[int, ...]:
    if operand is not None and _size(operand.shape):
        return operand.shape
    size = node.shape[0] if node.shape else 0
    return (size,) if rank == 1 else (size, 1)


def _flat_and_column(node: Node) -> tuple[Node, Node] | None:
    """The operands of shapes [B] and [B, 1], for one B above 1 (or with more axes of length 1 before it)."""
    values = list(operands(node))
    for flat in values:
        if (size := _size(flat.shape)) > 1:
            for column in values:
                if column.shape == (*flat.shape, 1) and (flat.shape[-1] == size or len(node.shape) > 2):
                    return flat, column
    return None


def _size(shape: tuple[int, ...]) -> int:
    """The length of the only axis that is longer than 1; 0 where there is another."""
    long = [size for size in shape if size != 1]
    return long[0] if len(long) == 1 else 0


def _side(node: Node) -> int:
    """B of a value of shape [B, B], axes of length 1 aside; else 0."""
    long = [size for size in node.shape if size != 1]
    return long[0] if len(long) == 2 and long[0] == long[1] else 0


def _mixes(node: Node) -> tuple[Node | None, Node | None] | None:
    """Whether a call makes [B, B] of [B] and [B, 1], and of which operands."""
    if node.op in LOSSES:
        return _flat_and_column(node)
    if not _side(node):
        return None
    if node.op in ELEMENTWISE:
        shapes = node.tag("shapes")  # of NumPy's operands, which need not have a trail
        if shapes and {(node.shape[0],), (node.shape[0], 1)} <= set(shapes):
            known = {one.shape: one for one in operands(node)}
            return known.get((node.shape[0],)), known.get((node.shape[0], 1))
        return _flat_and_column(node)
    if node.op == "log_prob" and len(node.args) > 1 and type(node.args[1]) is Node:
        value = node.args[1]
        given = [one for one in (node.tag("given") or {}).values() if isinstance(one, Node)]
        rows = any(len(one.shape) == 2 and one.shape[:1] == node.shape[:1] for one in given)
        if rows and value.shape == (node.shape[0], 1) and node.tag("of") in WHOLE:
            return given[0], value
    return None


def _outer(node: Node) -> bool:
    """Whether an elementwise call of [N] and [M, 1] made [M, N] with unequal sizes."""
    if node.op not in ELEMENTWISE or len(node.shape) != 2 or node.shape[0] == node.shape[1] or min(node.shape) < 2:
        return False
    shapes = {one.shape for one in operands(node)}
    return (node.shape[1],) in shapes and (node.shape[0], 1) in shapes


def _below(born: list[Node], after: dict[int, list[Node]]) -> set[int]:
    found, queue = set(), list(born)
    for node in queue:
        if id(node) not in found:
            found.add(id(node))
            queue += after.get(id(node), ())
    return found


def _by_accident(
    node: Node, flat: Node | None, column: Node | None, after: dict[int, list[Node]], below: set[int]
) -> bool:
    if node.op in LOSSES or node.op == "log_prob":
        return True
    if flat is not None and column is not None:
        if base(flat) is base(column) or flat.op == "parameter" or column.op == "parameter" or flat.param is not None:
            return False  # a value with itself; a weight for each feature
        if _is_feature(flat) or _is_feature(column):
            return False
    explicit = (column is not None and _made_on_purpose(column, node)) or (
        flat is not None and _made_on_purpose(flat, node)
    )
    return _reduced_blindly(node, after, below, explicit)


def _is_feature(node: Node) -> bool:
    """Whether the only axis of a value is the output of a layer, and not a batch."""
    layer = layer_before(node, 8)
    if layer is None or layer[0].op not in ("linear", "matmul", "addmm", "mv"):
        return False
    return len(layer[0].shape) == 1 and layer[0].shape[0] == node.shape[0]


def _made_on_purpose(operand: Node, node: Node) -> bool:
    """Whether the operand got its form in the very statement of the call."""
    if not same_statement(operand.site, node.site):
        return False
    if operand.op in ("unsqueeze", "view", "reshape", "getitem", "expand", "transpose", "T", "t"):
        return bool(operand.inputs) and len(operand.inputs[0].shape) != len(operand.shape)
    return bool((operand.kwargs or {}).get("keepdim"))


def _reduced_blindly(node: Node, after: dict[int, list[Node]], below: set[int], explicit: bool) -> bool:
    """Whether nothing between the square and the loss uses it as a square.

    Where the form was asked for in the statement itself, the square must moreover serve as the target of a value that
    is no square: nobody compares all pairs with one column.
    """
    target = False
    seen, queue = {id(node)}, [node]
    for one in queue:
        for user in after.get(id(one), ()):
            if id(user) in seen:
                continue
            if user.op in SQUARE or (
                user.op in ("max", "min", "where") and len(user.shape) < 2 <= len(one.shape) and user.shape
            ):
                return False
            others = [other for other in operands(user) if other is not one]
            for other in others:
                if (
                    other.shape == node.shape
                    and id(other) not in below
                    and other.op not in VIEWS
                    and user.op != "where"
                ):
                    return False  # met by a square of another origin
                if other.shape == node.shape and other.op in ("getitem", "eye", "bool"):
                    return False
                if other.grad and not one.grad and _size(other.shape) == _side(node):
                    target = target or user.op in ("sub", "rsub") or user.op in LOSSES
            if user.op == "getitem" and user.shape and len(user.shape) == 1 and user.shape[0] not in node.shape:
                return False  # some of the pairs
            seen.add(id(user))
            if user.shape and user.op not in LOSSES:
                queue.append(user)
    return target if explicit else True


def _finding(case: Case, hits: list[tuple[Node, tuple[int, ...], tuple[int, ...], frozenset[int]]]) -> Finding:
    node, flat, column, _ = hits[0]
    site: Site | None = node.site
    size = max(flat, default=0)
    keys = frozenset().union(*(one[3] for one in hits)) & case.stepped.keys()
    made = [size, size]
    return Finding(
        CODE,
        "error",
        f"Shapes {list(flat)} and {list(column)} mix into {made}",
        site,
        f"`{node.op}` got one operand of shape {list(flat)} and one of shape {list(column)}. They are meant to match "
        f"element by element, and PyTorch pairs each with every other: {made}. The loss then averages over all pairs, "
        f"so each prediction is pulled to the mean of the whole batch, whatever its own target says.",
        "Give both the same shape before they meet: `x.squeeze(-1)` on the column, or `y.unsqueeze(-1)` on the other.",
        case.named(keys),
        {"shapes": [list(flat), list(column)], "result": made, "times seen": len(hits)},
        True,
        frozenset(keys),
    )
