"""A loss taken apart: which terms it is a sum of, with what sign, and what each is multiplied by.

The walk goes from a loss backwards through sums, differences, products, means, selections and growing functions, and
ends at what gives a term its meaning: a log-probability, an entropy, a network's output, a squared error. Signs are
of d loss / d leaf with the factors left aside; 0 where they cannot be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from covary.doctor.case import Backward, Case, Optimizer
from covary.doctor.trail import Node

_CANON = {
    "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "truediv": "div", "negative": "neg",
    "add.reduce": "sum", "power": "pow", "fmin": "minimum", "fmax": "maximum", "idiv": "div", "isub": "sub",
}  # fmt: skip


def words(text: str) -> frozenset[str]:
    """A set of names, written as a line of text."""
    return frozenset(text.split())


# the value of the first operand goes on, only fewer, other or reordered elements of it, or all of them weighed alike
SELECT = words(
    "squeeze unsqueeze view view_as reshape flatten ravel expand expand_as getitem select index_select take gather "
    "masked_select take_along_dim narrow permute transpose swapaxes t T mT H mH clone contiguous to float double half "
    "bfloat16 type type_as cpu cuda repeat repeat_interleave tile roll flip unbind split chunk tensor_split unflatten "
    "movedim diagonal diag alias broadcast_to broadcast_tensors atleast_1d atleast_2d astype copy data detach numpy "
    "item tolist tensor as_tensor asarray array ascontiguousarray asanyarray from_numpy stack vstack hstack dstack cat "
    "concatenate column_stack row_stack setitem masked_fill nan_to_num pin_memory index_put rename vsplit hsplit "
    "moveaxis append"
)
REDUCE = words("mean sum nanmean nansum cumsum amax amin max min median trace")
GROWING = words(
    "exp log log1p expm1 tanh sigmoid softplus relu leaky_relu elu selu celu sqrt clamp clip clamp_min clamp_max "
    "hardtanh atan arctan erf sinh asinh relu6 threshold"
)
EXTREME = words("minimum maximum")
MIXING = words(
    "linear addmm matmul rmatmul mm bmm mv conv1d conv2d conv3d bilinear embedding einsum baddbmm addmv dot compiled"
)
PRODUCT = words("dot inner vdot matmul rmatmul mv mm")
SQUARED = words("mse_loss smooth_l1_loss huber_loss l1_loss")
CUTS = words("detach data numpy item tolist tensor as_tensor from_numpy float int array asarray")
_POSITIVE = words(
    "exp exp2 softplus sigmoid abs std var norm softmax relu sqrt square ones ones_like full_like arange linalg_norm"
)
MOST = 6000


@lru_cache(maxsize=4096)
def canon(op: str) -> str:
    """One word for the same operation of PyTorch, of NumPy, of Python, in place or not."""
    op = op.rstrip("_")
    return _CANON.get(op, op)


@dataclass(slots=True)
class Term:
    """One leaf of a loss. factors: the nodes it is multiplied by. numbers: the constants. link: (node, link), from the
    leaf's own node up to the loss."""

    leaf: Node
    sign: int
    factors: tuple[Node, ...]
    numbers: tuple[float, ...]
    link: Any

    def path(self) -> Iterator[Node]:
        """From the leaf up to the loss, both included."""
        link = self.link
        while link is not None:
            yield link[0]
            link = link[1]


def by_gradient(parent: Node, child: Node) -> bool:
    """Only where a gradient flows."""
    return child.grad and parent.grad and not parent.tag("leaf", False)


def anyhow(parent: Node, child: Node) -> bool:
    return True


def uncut(parent: Node, child: Node) -> bool:
    """Where a gradient would flow if there were one."""
    return parent.off is None and canon(parent.op) not in CUTS


def terms(
    loss: Node, follow: Callable[[Node, Node], bool] = by_gradient, most: int = MOST, once: bool = False
) -> list[Term]:
    """What a loss is a sum of; once: each leaf by one way alone, however many lead to it."""
    found: list[Term] = []
    todo: list[Term] = [Term(loss, 1, (), (), (loss, None))]
    seen: set[Any] = set()
    while todo and most:
        most -= 1
        one = todo.pop()
        key = id(one.leaf) if once else (id(one.leaf), one.sign, tuple(id(factor) for factor in one.factors))
        if key in seen:
            continue
        seen.add(key)
        below = operands(one.leaf)
        if below is None:
            found.append(one)
            continue
        for child, sign, factor, number in below:
            if follow(one.leaf, child):
                factors = one.factors if factor is None else (*one.factors, factor)
                numbers = one.numbers if number is None else (*one.numbers, number)
                todo.append(Term(child, one.sign * sign, factors, numbers, (child, one.link)))
    return found


Operand = tuple[Node, int, Node | None, float | None]


def operands(node: Node) -> list[Operand] | None:
    """What a node is a sum, product or growing function of: (operand, sign, factor, number); None at a leaf."""
    op = canon(node.op)
    args = node.args
    if op in SELECT or op in GROWING:
        if op == "setitem":
            return _all([args[0], args[-1]])
        if op == "copy":
            return _all(args[-1:])
        return _all(args[:1]) if args else None
    if op in REDUCE:
        if op in ("max", "min") and len(args) > 1 and type(args[1]) is Node:
            return _all(args)
        return _all(args[:1]) if args else None
    if op == "neg":
        return _all(args[:1], -1)
    if op in EXTREME or op == "where":
        return _all(args[1:] if op == "where" else args)
    if op in ("add", "sub", "rsub") and len(args) >= 2:
        scale = (node.kwargs or {}).get("alpha", 1)
        by = 0 if type(scale) is Node else 1 if scale > 0 else -1
        first, second = (-1, 1) if op == "rsub" else (1, by if op == "add" else -by)
        return _all(args[:1], first) + _all(args[1:2], second)
    if (op == "mul" or op in PRODUCT) and len(args) >= 2:
        a, b = args[:2]
        if a is b or (op in PRODUCT and any(type(x) is Node and x.param is not None for x in (a, b))):
            return None
        return _scaled_square(node, a, b) or _times(a, b) + _times(b, a)
    if op == "div" and len(args) >= 2:
        return _times(args[0], args[1])
    return None


def _all(args: Any, sign: int = 1) -> list[Operand]:
    out: list[Operand] = []
    for one in args:
        if type(one) is Node:
            out.append((one, sign, None, None))
        elif type(one) is tuple:
            out += _all(one, sign)
    return out


def _scaled_square(node: Node, a: Any, b: Any) -> list[Operand]:
    """-0.5 * z * z, which Python reads as (-0.5 * z) * z: minus one half of a square."""
    for one, other in ((a, b), (b, a)):
        if type(one) is not Node or type(other) is not Node:
            continue
        number: Any = -1.0 if canon(one.op) == "neg" else None
        if canon(one.op) == "mul" and len(one.args) > 1:
            number = next((x for x in one.args if type(x) in (int, float) and x), None)
        if number is not None and any(x is other for x in one.args):
            square = Node("square", node.site, (other,), None, node.shape, node.grad, node.off, node.serial)
            return [(square, 1 if number > 0 else -1, None, float(number))]
    return []


def _times(a: Any, b: Any) -> list[Operand]:
    """The operand `a` of a product with `b`."""
    if type(a) is not Node:
        return []
    if type(b) in (int, float, bool):
        return [] if b == 0 else [(a, 1 if b > 0 else -1, None, float(b))]
    if type(b) is not Node:
        return [(a, 1, None, None)]
    if (sign := sign_of(b)) and is_scalar(b) and is_temperature(b):
        return [(a, sign, None, None)]
    return [(a, 1, b, None)]


def is_scalar(node: Node) -> bool:
    return all(size == 1 for size in node.shape)


def is_temperature(node: Node) -> bool:
    """A number, perhaps learned, that does not depend on data: only scalars are behind it."""
    for i, one in enumerate(node.walk()):
        if i > 40 or not is_scalar(one) or one.tag("reward", False) or one.op in ("source", "log_prob", "reward"):
            return False
    return True


def sign_of(node: Any, depth: int = 0) -> int:
    """+1 or -1 where every element has that sign for certain, else 0."""
    if type(node) in (int, float, bool):
        return (node > 0) - (node < 0)
    if type(node) is tuple:
        signs = {sign_of(one, depth + 1) for one in node[:64]} if node and depth < 12 else {0}
        return signs.pop() if len(signs) == 1 else 0
    if type(node) is not Node or depth > 12:
        return 0
    op, args = canon(node.op), node.args
    if op in _POSITIVE:
        return 1
    if op == "full":
        return sign_of(args[1], depth + 1) if len(args) > 1 else 0
    if op == "pow" and len(args) > 1 and type(args[1]) in (int, float) and args[1] % 2 == 0:
        return 1
    if op in ("clamp", "clip", "clamp_min") and len(args) > 1 and type(args[1]) in (int, float) and args[1] >= 0:
        return 1
    if op in SELECT or op in REDUCE or (op in GROWING and op not in ("log", "log1p", "expm1")):
        return sign_of(args[0], depth + 1) if args and op != "setitem" else 0
    if op == "neg":
        return -sign_of(args[0], depth + 1)
    if op in ("mul", "div") and len(args) > 1:
        return 1 if args[0] is args[1] else sign_of(args[0], depth + 1) * sign_of(args[1], depth + 1)
    if op == "add" and len(args) > 1:
        a, b = sign_of(args[0], depth + 1), sign_of(args[1], depth + 1)
        return a if a == b else 0
    return 0


# ------------------------------------------------------------------------------------------------ what a leaf means


def heads(node: Node) -> frozenset[int]:
    """Of a network's output, the parameters of its last layer; empty where a node is no such output."""
    if canon(node.op) not in MIXING:
        return frozenset()
    found = set()
    for one in node.inputs:
        while one.param is None and canon(one.op) in SELECT and one.inputs:
            one = one.inputs[0]
        if one.param is not None:
            found.add(one.param)
    return frozenset(found)


def grad_params(node: Node, ends: frozenset[str] = frozenset()) -> frozenset[int]:
    """The parameters that a gradient from this node reaches; ends: operations that it does not pass."""

    def enter(one: Node) -> bool:
        return one.grad and one.op not in ends and not one.tag("leaf", False)

    return frozenset(one.param for one in node.walk(enter) if one.param is not None and one.grad)


_NEGATIVE_SCORES = words(
    "cross_entropy nll_loss binary_cross_entropy binary_cross_entropy_with_logits gaussian_nll_loss"
)


@dataclass(slots=True)
class Score:
    """A log-probability in a loss. sign: of d loss / d log-probability, factors aside. value: what was scored.

    entropy: it is weighed by its own probabilities, and so stands for minus an entropy."""

    term: Term
    sign: int
    value: Node | None
    entropy: bool = False


def score(term: Term) -> Score | None:
    """The log-probability that a term stands for: of a distribution, or written by hand where it can be told."""
    leaf, op = term.leaf, canon(term.leaf.op)
    if op == "log_prob":
        value = leaf.args[1] if len(leaf.args) > 1 and type(leaf.args[1]) is Node else None
        return Score(term, term.sign, value)
    if op in _NEGATIVE_SCORES:
        value = leaf.args[1] if len(leaf.args) > 1 and type(leaf.args[1]) is Node else None
        return Score(term, -term.sign, value)
    above = {canon(one.op) for one in term.path()}
    if op in ("log_softmax", "logsigmoid", "logsumexp") or (op in ("softmax", "sigmoid") and "log" in above):
        sign = -term.sign if op == "logsumexp" else term.sign
        own = any(factor.grad and _shares(factor, leaf) for factor in term.factors)
        if own:
            return Score(term, sign, None, entropy=True)
        picked = above & {"gather", "getitem", "index_select", "take_along_dim", "select", "take"}
        masked = any(factor.shape == leaf.shape and not factor.grad for factor in term.factors)
        return Score(term, sign, None) if picked or masked else None
    if term.factors and (inner := squared(leaf)) is not None:
        difference = inner
        for _ in range(3):
            if canon(difference.op) == "div" and type(difference.args[0]) is Node:
                difference = difference.args[0]
            elif canon(difference.op) == "mul":  # (value - mean) * exp(-log_std)
                parts = [one for one in difference.args if type(one) is Node]
                difference = next((one for one in parts if canon(one.op) == "sub"), difference)
        if canon(difference.op) == "sub":
            for value, mean in (difference.args[:2], difference.args[1::-1]):
                if type(mean) is not Node or not mean.grad or type(value) is not Node:
                    continue
                if not value.grad or any(one is mean for one in value.walk(lambda one: one.grad)):
                    return Score(term, -term.sign, value)
    return None


def squared(node: Node) -> Node | None:
    """What a node is the square of."""
    op, args = canon(node.op), node.args
    if (op == "pow" and len(args) > 1 and args[1] == 2) or op == "square":
        return args[0] if type(args[0]) is Node else None
    if op == "mul" and len(args) > 1 and args[0] is args[1] and type(args[0]) is Node:
        return args[0]
    return None


def _shares(factor: Node, leaf: Node) -> bool:
    """Whether a factor is made of the same scores as the leaf: p beside log p."""
    below = {id(one) for one in leaf.inputs} | {id(leaf)}
    for i, one in enumerate(factor.walk(lambda one: one.grad)):
        if id(one) in below:
            return True
        if i > 12:
            return False
    return False


def errors(loss: Node, follow: Callable[[Node, Node], bool] = by_gradient) -> Iterator[tuple[Term, Node, Node]]:
    """Every squared (or like) error in a loss, and its two sides."""
    for term in terms(loss, follow):
        leaf = term.leaf
        if canon(leaf.op) in SQUARED and len(leaf.args) > 1:
            if type(leaf.args[0]) is Node and type(leaf.args[1]) is Node:
                yield term, leaf.args[0], leaf.args[1]
            continue
        inner = squared(leaf) if canon(leaf.op) != "abs" else leaf.args[0]
        while type(inner) is Node and canon(inner.op) in SELECT and type(inner.args[0]) is Node:
            inner = inner.args[0]
        if type(inner) is Node and canon(inner.op) in ("sub", "rsub"):
            one, other = (*inner.args, None, None)[:2]
            if type(one) is Node and type(other) is Node:
                yield term, one, other


# ------------------------------------------------------------------------------------------ whose update a loss is


def movers(case: Case) -> dict[int, frozenset[Optimizer]]:
    """For each backward, by id: the optimizers that stepped with what it left, before that was zeroed."""
    if (known := case.memory.get("movers")) is not None:
        return known
    waiting: dict[Optimizer, list[Backward]] = {}
    found: dict[int, set[Optimizer]] = {}
    held = {optimizer: frozenset(optimizer.params) for optimizer in case.optimizers}
    for event in case.events:
        if event.kind == "backward":
            for optimizer in held:
                waiting.setdefault(optimizer, []).append(event.what)
        elif event.kind == "step" and event.what is not None:
            for one in waiting.pop(event.what, ()):
                found.setdefault(id(one), set()).add(event.what)
        elif event.kind == "zero_grad" and event.more:
            for optimizer, keys in held.items():
                if keys & event.more:
                    waiting.pop(optimizer, None)
    result = {key: frozenset(some) for key, some in found.items()}
    case.memory["movers"] = result
    return result


def moved(case: Case, backward: Backward) -> frozenset[int]:
    """The parameters that are stepped with a backward's gradient."""
    some = movers(case).get(id(backward), frozenset())
    return frozenset(key for optimizer in some for key in optimizer.params)


def examined(case: Case, each: int = 3) -> Iterator[Backward]:
    """The first and the last backwards of each place: enough to judge by."""
    places: dict[Any, list[Backward]] = {}
    for backward in case.backwards:
        if backward.loss.op != "forgotten":
            places.setdefault((backward.site, backward.loss.site), []).append(backward)
    for some in places.values():
        yield from some if len(some) <= 2 * each else some[:each] + some[-each:]
