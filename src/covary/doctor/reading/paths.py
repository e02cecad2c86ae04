"""Questions about the ways between a value and a loss that several rules ask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from covary.doctor.case import Backward, Case
from covary.doctor.sites import Site, statement
from covary.doctor.trail import Node


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# the same values in another form, or in another place
VIEWS = words("""
    view view_as reshape reshape_as squeeze squeeze_ unsqueeze unsqueeze_ flatten ravel T mT t transpose permute
    expand expand_as broadcast_to broadcast_tensors contiguous clone copy alias detach detach_ data numpy cpu to
    float double astype item tolist tensor as_tensor from_numpy array asarray type_as requires_grad_ swapaxes
    movedim
""")


def some_backwards(case: Case, first: int = 2, last: int = 3) -> list[Backward]:
    """Of each place that calls backward the first and the latest few whose trail is still known, in order."""
    by_site: dict[Site | None, list[Backward]] = defaultdict(list)
    for one in case.backwards:
        if one.loss.op != "forgotten":
            by_site[one.site].append(one)
    chosen = {id(one): one for many in by_site.values() for one in (*many[:first], *many[-last:])}
    return sorted(chosen.values(), key=lambda one: one.serial)


def consumers(nodes: list[Node]) -> dict[int, list[Node]]:
    """By identity of a node, those of `nodes` that were computed from it directly."""
    found: dict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        for one in node.inputs:
            found[id(one)].append(node)
    return found


def base(node: Node, through: frozenset[str] = VIEWS) -> Node:
    """The value itself, behind its views and copies."""
    while node.op in through and node.inputs:
        node = node.inputs[0]
    return node


def layer_before(node: Node, most: int = 24) -> tuple[Node, frozenset[int]] | None:
    """The nearest call before a value that used parameters directly, and their keys."""
    seen, queue = {id(node)}, list(node.inputs)
    for one in queue:
        if id(one) in seen or len(seen) > most:
            continue
        seen.add(id(one))
        keys = frozenset(other.param for other in one.inputs if other.param is not None)
        if keys:
            if one.op in ("add", "sub", "mul", "add_", "mul_"):  # a bias or a scale by hand: the weights are before it
                keys |= {other.param for before in one.inputs for other in before.inputs if other.param is not None}
            return one, keys
        if one.param is not None:
            return one, frozenset((one.param,))
        queue += one.inputs
    return None


def same_statement(one: Site | None, other: Site | None) -> bool:
    """Whether two places lie within one statement of the user's."""
    if one is None or other is None or one.file != other.file or one.function != other.function:
        return False
    if one.line == other.line:
        return True
    covering = statement(one.file, one.line)
    if covering is None or getattr(covering, "body", None):
        return False
    return covering.lineno <= other.line <= (covering.end_lineno or covering.lineno)


def operands(node: Node) -> Iterator[Node]:
    """The operands of a call that are values, without those inside lists."""
    for one in (*node.args, *(node.kwargs or {}).values()):
        if type(one) is Node:
            yield one
