"""One network's loss moves another one: the critic is stepped with the actor's gradient, and learns to please it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from covary.doctor.case import Backward, Case
from covary.doctor.findings import Finding
from covary.doctor.reading import terms
from covary.doctor.reading.paths import words
from covary.doctor.reading.terms import canon
from covary.doctor.trail import Node

CODE = "crossed-gradients"
RANK = 42
PROBABLE = words("softmax exp sigmoid gumbel_softmax")
EXPLAINS = frozenset({"wrong-sign", "std-collapse", "saturation", "missing-zero-grad"})


def examine(case: Case) -> Iterator[Finding]:
    losses = [one for one in terms.examined(case) if one.reached]
    alone = _outputs(losses)
    fitted = _fitted(losses)
    found: dict[tuple[str, int], list[tuple[Backward, frozenset[int], frozenset[int]]]] = defaultdict(list)
    for backward in losses:
        if backward.site is None:
            continue
        moved = terms.moved(case, backward) & backward.reached
        for term in terms.terms(backward.loss):
            heads = terms.heads(term.leaf)
            if not heads & moved or heads not in fitted:
                continue  # a network in a chain of its own outputs, unrolled in time, is no critic
            behind = terms.grad_params(term.leaf)
            if term.factors:  # of a discrete actor: its probabilities times the critic's values
                behind = behind.union(*(terms.grad_params(one) for one in term.factors if canon(one.op) in PROBABLE))
            for own in alone.get(heads, ()):
                actor = (behind - own) & moved
                critic = behind & own & moved
                if actor and critic and own < behind:
                    found[backward.site.place].append((backward, actor, critic))
                    break
    for hits in found.values():
        yield _finding(case, hits)


def _fitted(losses: list[Backward]) -> set[frozenset[int]]:
    """The last layers of networks whose output a squared error compares with something."""
    found = set()
    for backward in losses:
        for _, *sides in terms.errors(backward.loss):
            for side in sides:
                found |= {terms.heads(one.leaf) for one in terms.terms(side)}
    return found - {frozenset()}


def _outputs(losses: list[Backward]) -> dict[frozenset[int], set[frozenset[int]]]:
    """By a network's last layer, each set of parameters behind an output of it: with and without an actor's."""
    found: dict[frozenset[int], set[frozenset[int]]] = defaultdict(set)

    def enter(one: Node) -> bool:
        return one.grad

    for backward in losses:
        for node in backward.loss.walk(enter):
            if node.grad and (heads := terms.heads(node)):
                found[heads].add(terms.grad_params(node))
    return found


def _finding(case: Case, hits: list[tuple[Backward, frozenset[int], frozenset[int]]]) -> Finding:
    backward, _, _ = hits[0]
    actor = frozenset().union(*(one[1] for one in hits))
    critic = frozenset().union(*(one[2] for one in hits))
    joint = len(terms.movers(case).get(id(backward), ())) == 1
    how = (
        "both stand in one loss, and one step moves both"
        if joint
        else "the gradient that this backward leaves in the critic is still there when the critic's optimizer steps"
    )
    return Finding(
        CODE,
        "error",
        "The actor's loss also moves the critic",
        backward.site,
        f"This backward differentiates the critic's own value of the actor's action, and {how}. The critic is thus "
        f"trained to rate "
        "whatever the actor does higher, and no longer says what it is worth.",
        "Keep them apart: critic_opt.zero_grad(); critic_loss.backward(); critic_opt.step(), then "
        "actor_opt.zero_grad(); actor_loss.backward(); actor_opt.step(), and call critic_opt.zero_grad() before the "
        "next critic_loss.backward().",
        case.named(critic),
        {"moved by the actor's loss": len(critic), "the actor's own": len(actor), "times seen": len(hits)},
        True,
        critic,
    )
