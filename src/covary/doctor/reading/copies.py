"""What was written into a parameter from outside its optimizer: of what the written value was made."""

from __future__ import annotations

from dataclasses import dataclass, field

from covary.doctor.trail import Node
from covary.doctor.watching.mode import VIEWS

ANEW = frozenset(  # what stood there before has no part in the result
    [
        "copy_",
        "data=",
        "zero_",
        "fill_",
        "uniform_",
        "normal_",
        "random_",
        "trunc_normal_",
        "exponential_",
        "log_normal_",
        "geometric_",
        "cauchy_",
        "bernoulli_",
        "set_",
        "eye_",
        "constant_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "orthogonal_",
    ]
)
RANDOM = frozenset(
    [
        "uniform_",
        "normal_",
        "random_",
        "trunc_normal_",
        "exponential_",
        "log_normal_",
        "rand",
        "randn",
        "rand_like",
        "randn_like",
        "normal",
        "randint",
        "randperm",
        "bernoulli",
        "kaiming_uniform_",
        "kaiming_normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "orthogonal_",
    ]
)
_SAME = VIEWS | frozenset(("clone", "to", "cpu", "cuda", "float", "double", "copy", "requires_grad_", "type_as"))


@dataclass
class Origin:
    """own: it was made from this parameter as it is now. old: as it was at an earlier step. others: other parameters.

    pure: it is a plain copy, of whatever. random: random numbers are in it. unknown: values from nowhere known.
    """

    own: bool = False
    old: bool = False
    others: set[int] = field(default_factory=set)
    nodes: list[Node] = field(default_factory=list)
    pure: bool = True
    random: bool = False
    unknown: bool = False


def operands(node: Node) -> tuple[Node, ...]:
    """What a node's value was made of: for a write that keeps nothing, not what stood there before."""
    if node.op in ANEW:
        return tuple(one for one in node.args[1:] if type(one) is Node)
    return node.inputs


def origin(node: Node, key: int, since: int) -> Origin:
    """Of what a write (`node`) to the parameter `key` was made; `since`: the serial of the last step before it."""
    found = Origin(random=node.op in RANDOM)
    todo = [(one, node.serial) for one in operands(node)]
    seen = {id(node)}
    if node.op not in ANEW:
        found.pure = False
    while todo:
        one, when = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if one.param == key:
            if one.serial > since and one.op not in VIEWS and one.op != "parameter":
                todo += [(other, one.serial) for other in operands(one)]  # written since, so look behind that
                found.random |= one.op in RANDOM
            elif when > since:
                found.own = True
            else:
                found.old = True
        elif one.param is not None:
            found.others.add(one.param)
            found.nodes.append(one)
        elif one.inputs:
            found.pure &= one.op in _SAME
            todo += [(other, one.serial if one.op not in VIEWS else when) for other in operands(one)]
        elif one.op in RANDOM:
            found.random = True
        else:
            found.unknown |= one.op == "source"
    return found


def weights_of(node: Node, since: int, depth: int = 0) -> dict[int, float] | None:
    """A value as a weighted sum of parameters: {key: weight}; None where it is something else."""
    if depth > 40:
        return None
    op = node.op.rstrip("_") if node.op not in ("copy_", "data=") else node.op
    if node.param is not None and (node.op == "parameter" or node.op in VIEWS or node.serial <= since):
        return {node.param: 1.0}
    inner = [one for one in node.args if type(one) is Node]
    if op in ("copy_", "data="):
        return weights_of(inner[1], since, depth + 1) if len(inner) > 1 else None
    if op in _SAME and inner:
        return weights_of(inner[0], since, depth + 1)
    if op in ("mul", "rmul", "div") and len(node.args) > 1:
        number = next((one for one in node.args if isinstance(one, (int, float))), None)
        if number is None or len(inner) != 1 or (op == "div" and not number):
            return None
        given = weights_of(inner[0], since, depth + 1)
        by = 1.0 / number if op == "div" else float(number)
        return None if given is None else {key: by * weight for key, weight in given.items()}
    if op in ("add", "sub", "lerp") and len(inner) > 1:
        first, second = weights_of(inner[0], since, depth + 1), weights_of(inner[1], since, depth + 1)
        if first is None or second is None:
            return None
        by = (node.kwargs or {}).get("alpha", 1.0)
        if op == "sub":
            by = -by if isinstance(by, (int, float)) else by
        if op == "lerp":
            numbers = [one for one in (*node.args, *(node.kwargs or {}).values()) if isinstance(one, (int, float))]
            if not numbers:
                return None
            by = float(numbers[0])
            first = {key: (1.0 - by) * weight for key, weight in first.items()}
        if not isinstance(by, (int, float)):
            return None
        total = dict(first)
        for key, weight in second.items():
            total[key] = total.get(key, 0.0) + by * weight
        return total
    return None
