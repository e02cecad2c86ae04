"""The graph was cut between a network and its loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from covary.doctor.case import Backward, Case
from covary.doctor.findings import Finding
from covary.doctor.sites import Site
from covary.doctor.trail import Node

CODE = "graph-cut"
RANK = 20
EXPLAINS = frozenset(
    {"sample-not-rsample", "learning-rate", "saturation", "wrong-sign", "optimizer-mismatch", "clipped-action"}
)

FLAT = frozenset(  # a gradient, and it is 0
    ("round", "sign", "sgn", "floor", "ceil", "trunc", "fix", "heaviside", "sign_", "round_")
)
HOW = {
    "detach": "`.detach()` returns a tensor without its history",
    "detach_": "`.detach_()` takes a tensor's history away",
    "data": "`.data` is the bare tensor without its history",
    "numpy": "a NumPy array has no history; nothing that is computed from it leads back to the network",
    "item": "`.item()` returns a Python number, which has no history",
    "float": "`float(…)` returns a Python number, which has no history",
    "int": "`int(…)` returns a Python number, which has no history",
    "tolist": "`.tolist()` returns Python numbers, which have no history",
    "tensor": "a tensor that is made anew from values is a constant: it has their values and not their history",
    "as_tensor": "a tensor that is made from values is a constant: it has their values and not their history",
    "argmax": "an index does not change when the scores change a little: there is no gradient through argmax",
    "one_hot": "a one-hot code is made of indices, which have no gradient",
    "autograd.grad": "without create_graph=True a derivative has its value and no history",
    "sample": "`.sample()` draws without a gradient",
    "multinomial": "`multinomial` draws indices, which have no gradient",
}  # fmt: skip
FIX = {
    "numpy": "Compute with tensors all the way: write the helper in torch, and hand it the network's output as it is.",
    "item": "Keep the tensor: collect the tensors themselves and join them with torch.stack(…).",
    "float": "Keep the tensor: collect the tensors themselves and join them with torch.stack(…).",
    "tolist": "Keep the tensor: collect the tensors themselves and join them with torch.stack(…).",
    "tensor": "Join the tensors with torch.stack(list) or torch.cat(list); torch.tensor(…) is for constants.",
    "as_tensor": "Join the tensors with torch.stack(list) or torch.cat(list); torch.as_tensor(…) is for constants.",
    "autograd.grad": "(g,) = torch.autograd.grad(y.sum(), x, create_graph=True)",
    "argmax": "Use log_prob of a sampled action, a softmax, or F.gumbel_softmax(logits, hard=True).",
}  # fmt: skip


def examine(case: Case) -> Iterator[Finding]:
    starved = set(case.starved)
    for backward in case.backwards:
        if not backward.reached and not backward.loss.grad:
            starved |= case.before(backward.loss) & (case.stepped.keys() | _held(case))
    if not starved:
        return
    blamed: set[int] = set()
    for site, keys, nodes, certain in _candidates(case, frozenset(starved)):
        new = keys - blamed
        if not new:
            continue
        blamed |= keys
        yield _finding(case, site, keys, nodes, certain)


def _held(case: Case) -> set[int]:
    return {key for optimizer in case.optimizers for key in optimizer.params}


def cuts_below(backward: Backward, starved: frozenset[int], case: Case) -> list[tuple[Node, frozenset[int]]]:
    """The calls on the way from a loss down to starved parameters at which the gradient ends."""
    found = []
    for node in backward.loss.walk():
        if node.is_cut or (node.op in FLAT and any(one.grad for one in node.inputs)):
            keys = frozenset().union(*(case.live(one) for one in node.inputs if one.grad)) & starved
            if node.op not in FLAT:
                keys -= case.reached  # autograd leads there by another way: the gradient is 0 there, and not cut
            if keys:
                found.append((node, keys))
    return found


def _candidates(case: Case, starved: frozenset[int]) -> Iterator[tuple[Site, frozenset[int], list[Node], bool]]:
    """Places that cut, the likeliest first: on the way of a loss, no sample if something else will do, the latest."""
    near: dict[Site, list[tuple[int, int, Node, frozenset[int]]]] = {}
    examined: Counter[Site | None] = Counter()
    for backward in reversed(case.backwards):
        examined[backward.site] += 1
        if examined[backward.site] > 20:
            continue
        for node, keys in cuts_below(backward, starved, case):
            if (site := node.off or node.site) is not None:
                near.setdefault(site, []).append((int(is_draw(node)), backward.serial - node.serial, node, keys))
    ranked = sorted(near.items(), key=lambda item: min(one[:2] for one in item[1]))
    for site, hits in ranked:
        if all(one[0] for one in hits):
            continue  # a draw alone: whether it should have been rsample is another rule's question
        yield site, frozenset().union(*(one[3] for one in hits)), [one[2] for one in hits], True
    if near and any(not one[0] for hits in near.values() for one in hits):
        return
    left = starved - case.reached - frozenset().union(frozenset(), *(one[3] for hits in near.values() for one in hits))
    if left:
        yield from _lost(case, left)


def _lost(case: Case, starved: frozenset[int]) -> Iterator[tuple[Site, frozenset[int], list[Node], bool]]:
    """The trail was lost between the cut and the loss: every cut with starved parameters behind it, by likelihood."""
    order = ("float", "item", "tolist", "numpy", "data", "detach")
    found = []
    for node in case.trail.cuts.values():
        keys = frozenset().union(*(case.live(one) for one in node.inputs if one.grad)) & starved
        site = node.off or node.site
        if keys and site is not None and not is_draw(node) and node.op not in ("argmax", "multinomial"):
            found.append((order.index(node.op) if node.op in order else 9, -node.serial, site, keys, node))
    for _, _, site, keys, node in sorted(found, key=lambda one: one[:2]):
        yield site, keys, [node], False


def is_draw(node: Node) -> bool:
    """Whether a node is a random draw, or was computed inside one."""
    return node.op in ("sample", "multinomial", "normal", "bernoulli", "poisson")


def _finding(case: Case, site: Site, keys: frozenset[int], nodes: list[Node], certain: bool) -> Finding:
    node = nodes[0]
    optimizers = {case.stepped[key].kind for key in keys if key in case.stepped}
    steps = max((case.stepped[key].steps for key in keys if key in case.stepped), default=0)
    if node.off is not None:
        how = "inside no_grad (or inference_mode) nothing is recorded, so what is computed there has no history"
        fix = "Compute what the loss needs outside of no_grad; keep no_grad for acting and for targets."
    elif node.op in FLAT:
        how = f"`{node.op}` is flat: its gradient is 0 everywhere"
        fix = f"Use a smooth form, or the straight-through form x + ({node.op}(x) - x).detach()."
    else:
        how = HOW.get(node.op, f"the result of `{node.op}` has no gradient")
        fix = FIX.get(node.op, "Hand the tensor on as it is, so that the loss stays connected to the network.")
    return Finding(
        CODE,
        "error",
        f"The gradient ends here: {len(keys)} parameters never get one",
        site,
        f"The loss was computed from these parameters, but only through this line, and {how}. "
        f"The optimizer steps them, and they never change.",
        fix,
        case.named(keys),
        {"cut": node.op, "optimizers": sorted(optimizers), "updates": steps, "times seen": len(nodes)},
        certain,
        keys,
    )
