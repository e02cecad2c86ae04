"""The optimizer holds other parameters than those that are trained: a copy, a re-created network, or only a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from covary.doctor.case import Backward, Case, Event, Optimizer
from covary.doctor.findings import Finding
from covary.doctor.reading import captures
from covary.doctor.reading.order import by_hand
from covary.doctor.sites import Site, first_own
from covary.doctor.trail import Node
from covary.doctor.watching.weights import Weights

CODE = "optimizer-mismatch"
RANK = 16
EXPLAINS = frozenset({"graph-cut", "learning-rate", "target-network", "weights-overwritten", "order-of-calls"})
LEAST = 3  # backward calls, and steps, before anything is said
SUMS = frozenset("add sub rsub neg mul rmul div mean sum stack cat squeeze".split())  # noqa: SIM905


@dataclass
class Told:
    """One mismatch: what to change, and why."""

    site: Site | None
    what: str
    fix: str
    idle: frozenset[int] = frozenset()
    certain: bool = True


def examine(case: Case) -> Iterator[Finding]:
    weights = case.weights
    if weights is None or len(case.steps) < LEAST:
        return
    lost = _lost(case, weights)
    while lost:
        group, told = _explain(case, weights, lost)
        if not group:
            return
        made = {weights.born[key][1] for key in group if key in weights.born}
        group |= {key for key in lost if key in weights.born and weights.born[key][1] in made}  # made anew many times
        lost -= group
        if told is None or told.site is None:
            continue
        times = sum(bool(one.reached & group) for one in case.backwards)
        yield Finding(
            CODE,
            "error" if told.certain else "warning",
            f"{len(group)} parameters are trained by the loss and held by no optimizer",
            told.site,
            f"{times} backward calls computed gradients for them, and no optimizer ever steps them, so they keep their "
            f"initial values. {told.what}",
            told.fix,
            case.named(group),
            {"backwards": times, "held by no optimizer": len(group), "stepped without gradient": len(told.idle)},
            told.certain,
            group | told.idle,
        )


# ----------------------------------------------------------------------------------------------------- what is amiss


def _lost(case: Case, weights: Weights) -> frozenset[int]:
    """Parameters that losses reach, and that nothing steps: no optimizer of this run, and nobody by hand."""
    held = {key for optimizer in case.optimizers for key in optimizer.params} | case.stepped.keys()
    times: Counter[int] = Counter()
    for one in case.backwards:
        if one.only is None:
            times.update(one.reached - held)
    hand = by_hand(case)
    frozen = {event.what for event in case.events if event.kind == "requires_grad" and not event.more}
    known = {key for keys in weights.trees for key in keys} | weights.born.keys()
    known |= {key for loose in weights.loose for key in loose.keys}
    known |= {key for key, count in times.items() if count > LEAST}  # no input, which would be new each time
    found = frozenset(key for key in times if key in known and key not in hand | frozen | case.trail.fresh)
    return found if sum(bool(one.reached & found) for one in case.backwards) >= LEAST else frozenset()


def _idle(case: Case, optimizer: Optimizer) -> frozenset[int]:
    """What an optimizer steps although no loss has ever reached it."""
    if optimizer.steps < LEAST:
        return frozenset()
    return frozenset(
        key
        for key in optimizer.params
        if key in case.stepped and key not in case.reached and not case.strength.get(key)
    )


def _explain(case: Case, weights: Weights, lost: frozenset[int]) -> tuple[frozenset[int], Told | None]:
    """One group of lost parameters, and what is to be said of it; nothing where it may well be meant."""
    for optimizer in case.optimizers:
        idle = _idle(case, optimizer)
        group = _counterpart(case, weights, lost, idle)
        if group:
            return group, _swapped(case, weights, optimizer, group, idle)
        later = frozenset(key for key in lost if weights.born.get(key, (0,))[0] > optimizer.serial)
        together = [keys for keys in weights.trees if keys & later and keys & case.stepped.keys()]
        group = later & together[0] if together else later if idle >= set(optimizer.params) else frozenset()
        if group and (idle or (together and optimizer.steps >= LEAST)):
            return group, _swapped(case, weights, optimizer, group, idle)
    for loose in weights.loose:
        group = loose.keys & lost
        if group and loose.registered & case.stepped.keys():
            site = captures.attribute_line(loose.kind, loose.attribute, _born(weights, group), _files(case))
            wrapper = "nn.ModuleDict" if loose.holder == "dict" else "nn.ModuleList"
            if loose.holder in ("Tensor", "Parameter"):
                wrapper = "nn.Parameter"
            return group, Told(
                site,
                f"`{loose.kind}` holds them in a plain {loose.holder}, so parameters() does not list them.",
                f"self.{loose.attribute} = {wrapper}(…)",
            )
    group = _alone(case, lost)
    if group:
        return group, _without_optimizer(case, group)
    return _part(case, weights, lost)


def _files(case: Case) -> set[str]:
    sites = [*(one.site for one in case.optimizers), *(one.site for one in case.backwards[:20])]
    return {site.file for site in sites if site is not None}


def _born(weights: Weights, keys: frozenset[int]) -> tuple[Site, ...]:
    return next((weights.born[key][1] for key in sorted(keys) if key in weights.born), ())


# ---------------------------------------------------------------------------- one network trained, another one stepped


def _counterpart(case: Case, weights: Weights, lost: frozenset[int], idle: frozenset[int]) -> frozenset[int]:
    """Lost parameters that have the shapes of an optimizer's idle ones: the same network twice."""
    wanted = Counter(case.shapes[key] for key in idle)
    if not idle or not any(len(shape) > 1 for shape in wanted):
        return frozenset()
    copies = [frozenset(event.more[1]) for event in case.events if event.kind == "deepcopy"]
    trees = sorted((keys for keys in weights.trees if keys & lost), key=lambda keys: -len(keys))
    for keys in (*trees, *(keys for keys in copies if keys & lost), lost):
        mine = keys & lost
        shapes = Counter(case.shapes.get(key, ()) for key in mine)
        if shapes and (shapes == wanted or (len(mine) > 1 and (shapes <= wanted or wanted <= shapes))):
            return lost if keys in copies else mine
    return frozenset()


def _swapped(case: Case, weights: Weights, optimizer: Optimizer, group: frozenset[int], idle: frozenset[int]) -> Told:
    """The optimizer steps `idle`, the loss trains `group`: why they differ."""
    fix = f"{optimizer.kind}(…) over the parameters of the network that is trained, built after it"
    wrong = Told(optimizer.site, "This optimizer was given the parameters of another network.", fix, idle)
    for event in case.events:
        if event.kind != "deepcopy":
            continue
        source, copy = frozenset(event.more[0]), frozenset(event.more[1])
        if copy & idle and source & group:
            return wrong
        if copy & group and (source & idle or not source):
            if optimizer.serial > event.serial and _has_a_role(case, idle):
                return wrong
            others = tuple(one.stack for one in case.events if _is_other_copy(one, event))
            site = first_own(event.stack, others) if event.stack else event.site
            what = f"This line trains a copy, while {optimizer.kind} (line {_line(optimizer)}) holds the original."
            return Told(site, what, fix, idle)
    mine, theirs = _born(weights, group), _born(weights, idle)
    if not mine or weights.born[min(key for key in group if key in weights.born)][0] > optimizer.serial:
        if not mine:
            site = captures.rebinding(optimizer.site, case.names.get(min(group), ""))
            return Told(site, "The network is another one since this line.", fix, idle) if site else wrong
        what = f"They were made anew here, after {optimizer.kind} (line {_line(optimizer)}) was built for the old ones."
        return Told(captures.making(mine, theirs), what, fix, idle)
    if _has_a_role(case, idle):
        return wrong
    captured = captures.captured_at([call.site for call in weights.calls.values() if call.keys & group], optimizer.site)
    if captured is not None:
        what = "The function that was made here keeps the network of that moment; a new one has been made since."
        return Told(
            captured, what, "Make the function anew for each network, or hand it the network as an argument.", idle
        )
    new, old = captures.making(theirs, mine), captures.making(mine, theirs)
    if new is not None and old is not None and captures.same_target(new, old):
        what = "The network was made anew here, and the loss is still computed with the old one."
        return Told(new, what, "Hand the new network on to whatever computes the loss.", idle)
    return wrong


def _is_other_copy(one: Event, event: Event) -> bool:
    return one.kind == "deepcopy" and one.site == event.site and one.stack != event.stack


def _has_a_role(case: Case, keys: frozenset[int]) -> bool:
    """Whether losses were computed from them, if only as targets."""
    return any(case.before(one.loss) & keys for one in case.backwards[-20:])


def _line(optimizer: Optimizer) -> int:
    return optimizer.site.line if optimizer.site else 0


# -------------------------------------------------------------------------------- parameters that nobody ever steps


def _gradient(node: Node) -> frozenset[int]:
    """The parameters that a value's own graph leads to, along the trail."""
    return frozenset(
        one.param
        for one in node.walk(lambda one: one.grad)
        if one.param is not None and (one.grad or one.op == "parameter")
    )


def _terms(loss: Node) -> Iterator[Node]:
    """What a loss is the sum of."""
    todo = [loss]
    while todo:
        node = todo.pop()
        parts = [one for one in node.inputs if one.grad]
        weighted = node.op in ("add", "sub", "rsub", "neg") or (
            node.op in SUMS and len(parts) == 1 and node.shape == ()
        )
        if parts and node.shape == () and ((weighted and all(one.shape == () for one in parts)) or node.op == "stack"):
            todo += parts
        else:
            yield node


def _alone(case: Case, lost: frozenset[int]) -> frozenset[int]:
    """Lost parameters which have a loss, or a term of one, for themselves: it can have no effect."""
    times: Counter[int] = Counter()
    for one in case.backwards[-60:]:
        if one.only is not None or not one.reached & lost:
            continue
        if one.reached <= lost:
            times.update(one.reached)
        elif one.loss.op != "forgotten":
            for term in _terms(one.loss):
                keys = _gradient(term)
                if keys and keys <= lost:
                    times.update(keys)
    return frozenset(key for key, count in times.items() if count >= LEAST)


def _without_optimizer(case: Case, group: frozenset[int]) -> Told | None:
    """The optimizer that should have been given a network which has a loss of its own."""
    following: Counter[Optimizer] = Counter()
    pending = False
    for event in case.events:
        if event.kind == "backward" and isinstance(event.what, Backward):
            pending = bool(event.what.reached & group)
        elif event.kind == "step" and pending:
            following[event.what] += 1
            pending = False
    held: Counter[frozenset[int]] = Counter(frozenset(one.params) for one in case.optimizers if one.total)
    for optimizer, _ in following.most_common():
        if held[frozenset(optimizer.params)] > 1:
            return Told(
                optimizer.site,
                "This optimizer was given the parameters of a network that another optimizer steps already.",
                f"{optimizer.kind}(…) over the parameters of this network",
                certain=True,
            )
    if not following:
        return None
    optimizer = following.most_common(1)[0][0]
    return Told(
        optimizer.site,
        "A term of the loss depends on them alone, and this optimizer was not given them.",
        f"{optimizer.kind}([*first.parameters(), *second.parameters()], …)",
    )


def _part(case: Case, weights: Weights, lost: frozenset[int]) -> tuple[frozenset[int], Told | None]:
    """A network of which an optimizer was given only a part, where the rest cannot be a frozen extractor."""
    loaded = {key for event in case.events if event.kind == "load_state_dict" for key in event.what}
    loaded |= {key for event in case.events if event.kind == "deepcopy" for key in event.more[1]}
    for keys, tree in sorted(weights.trees.items(), key=lambda item: len(item[0])):
        rest, mine = keys & lost, keys & case.stepped.keys()
        if not rest or not mine or rest & loaded:
            continue
        optimizer = Counter(case.stepped[key] for key in mine).most_common(1)[0][0]
        given = [name for name, child in tree.children.items() if child & set(optimizer.params)]
        if all(_is_upstream(case, key, mine) for key in rest) and len(given) < 2:
            return rest, None  # features that are not trained, below a head that is: often meant
        missing = [name for name, child in tree.children.items() if child & rest]
        return rest, Told(
            optimizer.site,
            f"This optimizer was given {', '.join(given)} of `{tree.kind}`, and not {', '.join(missing)}.",
            f"{optimizer.kind}(network.parameters(), …)",
        )
    return _left_out(case, weights, lost - loaded) or (lost, None)


def _left_out(case: Case, weights: Weights, lost: frozenset[int]) -> tuple[frozenset[int], Told] | None:
    """A whole network, as new as the others, that an optimizer over a list of several was not given."""
    whole = [keys for keys in weights.trees if not any(keys < other for other in weights.trees)]
    missing = [keys for keys in whole if keys <= lost]
    for optimizer in case.optimizers:
        given = [keys for keys in whole if keys <= set(optimizer.params)]
        if optimizer.steps < LEAST or len(given) < 2 or not missing:
            continue
        group = frozenset[int]().union(*missing)
        return group, Told(
            optimizer.site,
            f"This optimizer was given {len(given)} networks of those that the loss goes through, and not this one.",
            f"{optimizer.kind}([*first.parameters(), *second.parameters(), …], …)",
            certain=False,
        )
    return None


def _is_upstream(case: Case, key: int, stepped: frozenset[int] | set[int]) -> bool:
    """Whether a parameter is only used below the stepped ones: what it makes is what they are applied to."""
    for one in case.backwards[-10:]:
        if key not in one.reached or one.loss.op == "forgotten":
            continue
        below = above = False
        for node in one.loss.walk(lambda node: node.grad):
            if any(other.param == key for other in node.inputs):
                above |= any(case.before(other) & stepped for other in node.inputs if other.param != key)
            elif any(other.param in stepped for other in node.inputs):
                below |= any(key in case.before(other) for other in node.inputs if other.param is None)
        if above or not below:
            return False
    return True
