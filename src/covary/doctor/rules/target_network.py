"""A target network that is the online network itself, or that never follows it."""

from __future__ import annotations

import ast
import bisect
import math
from collections import Counter
from collections.abc import Iterator

from covary.doctor.case import Case, Event
from covary.doctor.findings import Finding
from covary.doctor.reading import captures, copies
from covary.doctor.reading.paths import VIEWS
from covary.doctor.sites import Site, tree
from covary.doctor.trail import Node
from covary.doctor.watching.weights import Call

CODE = "target-network"
RANK = 24
EXPLAINS: frozenset[str] = frozenset()
LEAST = 50  # updates of the online network in which the target might have followed
# what may lie between a target network's output and its discounting
PASSES = VIEWS | frozenset(
    [
        "getitem",
        "gather",
        "take_along_dim",
        "index_select",
        "max",
        "amax",
        "min",
        "amin",
        "minimum",
        "maximum",
        "mean",
        "sum",
        "add",
        "sub",
        "rsub",
        "mul",
        "rmul",
        "where",
        "stack",
        "cat",
        "masked_fill",
        "masked_fill_",
        "setitem",
        "index_put_",
        "mul_",
        "sub_",
        "add_",
        "multiply",
        "subtract",
        "values",
    ]
)


def examine(case: Case) -> Iterator[Finding]:
    if case.weights is None or not case.steps:
        return
    told: set[int] = set()
    for finding in (*_shares_storage(case), *_same_object(case), *_onto_itself(case)):
        if not finding.keys & told:
            told |= finding.keys
            yield finding
    for keys, twin in _targets(case):
        if not keys & told:
            stale = _does_not_follow(case, keys, twin) or _jumps(case, keys, twin)
            if stale is not None:
                told |= keys
                yield stale


# ------------------------------------------------------------------------------------------------ which are the targets


def _targets(case: Case) -> Iterator[tuple[frozenset[int], frozenset[int]]]:
    """Networks that no optimizer moves, in whose values losses are bootstrapped, each with its learning twin."""
    trees = sorted(case.weights.trees, key=len, reverse=True)
    learning = [keys for keys in trees if all(case.strength.get(key, 0.0) > 0 for key in keys)]
    done: set[int] = set()
    for keys in trees:
        if (
            keys & case.stepped.keys()
            or keys & done
            or any(keys < other and not other & case.stepped.keys() for other in trees)
        ):
            continue
        shapes = Counter(case.shapes.get(key, ()) for key in keys)
        twins = [other for other in learning if Counter(case.shapes.get(key, ()) for key in other) == shapes]
        if not twins or not any(len(shape) > 1 for shape in shapes):
            continue
        if sum(_bootstraps(case, one.loss, keys) for one in case.backwards[-12:]) >= 2:
            done |= keys
            yield keys, min(twins, key=lambda other: abs(min(other) - min(keys)))


def _bootstraps(case: Case, loss: Node, keys: frozenset[int]) -> bool:
    """Whether a loss has the output of a network in it, discounted: multiplied by a number a little below 1."""
    for node in loss.walk(lambda one: bool(case.before(one) & keys)):
        if node.op in ("mul", "rmul", "multiply", "mul_") and case.before(node) & keys:
            ours = [one for one in node.inputs if case.before(one) & keys]
            rest = [one for one in (*node.args, *(node.kwargs or {}).values()) if one not in ours]
            if any(_is_discount(one) for one in rest) and any(_is_output(one, keys) for one in ours):
                return True
    return False


def _is_discount(value: object) -> bool:
    if isinstance(value, Node):
        few = list(value.walk(lambda one: len(one.inputs) < 4))[:12]
        return any(_is_discount(one) for node in few for one in node.args if not isinstance(one, Node))
    return isinstance(value, float) and 0.5 < value < 1.0


def _is_output(node: Node, keys: frozenset[int]) -> bool:
    """Whether a value is an output of the network, picked or summed, and no error or distance made of it."""
    seen, queue = {id(node)}, [node]
    for one in queue:
        if any(other.param in keys for other in one.inputs):
            return True
        if one.op not in PASSES and one is not node and not _is_layer(one):
            continue
        for other in one.inputs:
            if id(other) not in seen and len(seen) < 200:
                seen.add(id(other))
                queue.append(other)
    return False


def _is_layer(node: Node) -> bool:
    return any(one.param is not None for one in node.inputs) or node.op in (
        "relu",
        "tanh",
        "cat",
        "elu",
        "gelu",
        "softplus",
    )


# ------------------------------------------------------------------------------------------------------ it is the same


def _shares_storage(case: Case) -> Iterator[Finding]:
    """Parameters of two networks, one of them learning, that are the same memory."""
    for pair, stack in case.weights.shared.items():
        for mine, other in (pair, pair[::-1]):
            if mine in case.stepped or case.strength.get(other, 0.0) <= 0 or not _has_a_role(case, mine):
                continue
            event = next(
                (e for e in reversed(case.events) if e.kind == "write" and e.what == mine and _takes(e, other)), None
            )
            made = event.stack if event is not None else case.weights.born.get(mine, (0, stack))[1]
            site = event.site if event is not None else (made[0] if made else None)
            yield Finding(
                CODE,
                "error",
                "The target network is the online network: they share their memory",
                site,
                f"After this line {case.name(mine)} and {case.name(other)} are the same numbers in memory, "
                "so each step moves both, and the target chases itself.",
                "target.load_state_dict(online.state_dict())   # copies the values; or target.data.copy_(online.data)",
                case.named((mine, other)),
                {"shared": len(case.weights.shared)},
                keys=frozenset((mine, other)),
            )
            return


def _takes(event: Event, other: int) -> bool:
    return event.more.op == "data=" and len(event.more.args) > 1 and getattr(event.more.args[1], "param", None) == other


def _has_a_role(case: Case, key: int) -> bool:
    return any(key in case.before(one.loss) for one in case.backwards[-20:])


def _same_object(case: Case) -> Iterator[Finding]:
    """One network, called by two names: by one for the prediction, by the other for the target."""
    by_keys: dict[frozenset[int], list[Call]] = {}
    for call in case.weights.calls.values():
        if all(case.strength.get(key, 0.0) > 0 for key in call.keys):
            by_keys.setdefault(call.keys, []).append(call)
    for keys, calls in by_keys.items():
        if len(calls) < 2:
            continue
        roles = {id(call): _role(case, call) for call in calls}
        learning = [call for call in calls if roles[id(call)] == "prediction"]
        for target in [call for call in calls if roles[id(call)] == "target"]:
            for call in learning:
                site = captures.alias(call.site, target.site)
                if site is not None and _meant_to_differ(case, keys, target):
                    yield _same(case, keys, call, target, site)
                    return


def _onto_itself(case: Case) -> Iterator[Finding]:
    """Parameters that learn are copied onto themselves: what was to be their target is they themselves."""
    steps = [step.serial for step in case.steps]
    found: dict[Site, set[int]] = {}
    for event in case.events:
        if event.kind == "write" and event.site is not None and case.strength.get(event.what, 0.0) > 0:
            i = bisect.bisect(steps, event.serial)
            mix = copies.weights_of(event.more, steps[i - 1] if i else 0)
            if mix is not None and list(mix) == [event.what] and math.isclose(mix[event.what], 1.0, rel_tol=1e-6):
                found.setdefault(event.site, set()).add(event.what)
    for site, keys in found.items():
        if sum(_bootstraps(case, one.loss, frozenset(keys)) for one in case.backwards[-12:]) < 2:
            continue
        yield Finding(
            CODE,
            "error",
            "The target network is the online network",
            captures.aliased(site) or site,
            f"Line {site.line} copies {case.name(min(keys))} onto itself: the target that it keeps up has no values of "
            "its own. Each step moves the target too.",
            "target = copy.deepcopy(online)",
            case.named(keys),
            {"copied at": str(site)},
            keys=frozenset(keys),
        )


def _role(case: Case, call: Call) -> str | None:
    """Whether what a call returned got a gradient from a loss, or only entered one as a constant."""
    entered = 0
    for node in call.nodes:
        after = [one for one in case.backwards if one.serial > node.serial and one.loss.op != "forgotten"][:3]
        for one in after:
            if (
                any(other is node for other in one.loss.walk(lambda other: other.grad))
                and node.grad
                and _flows(one.loss, node)
            ):
                return "prediction"
            entered += any(other is node for other in one.loss.walk())
    return "target" if entered >= 2 else None


def _flows(loss: Node, node: Node) -> bool:
    return any(one is node for one in loss.walk(lambda one: one.grad))


def _meant_to_differ(case: Case, keys: frozenset[int], target: Call) -> bool:
    """Whether the script copies the network onto itself, or discounts what the other name gives."""
    for event in case.events:
        if event.kind == "write" and event.what in keys and event.more.op in ("copy_", "data="):
            origin = copies.origin(event.more, event.what, 0)
            if (origin.own or origin.old) and not origin.others and not origin.random:
                return True
    return sum(_bootstraps(case, one.loss, keys) for one in case.backwards[-12:]) >= 2


def _same(case: Case, keys: frozenset[int], call: Call, target: Call, site: Site) -> Finding:
    one, other = captures.callee(call.site), captures.callee(target.site)
    return Finding(
        CODE,
        "error",
        f"`{other}` and `{one}` are one network",
        site,
        f"The prediction is computed with `{one}` (line {call.site.line}), the target with `{other}` (line "
        f"{target.site.line}), and since this line both are the same parameters: each step moves the target too, and "
        "copying one onto the other changes nothing.",
        "target = copy.deepcopy(online)",
        case.named(keys),
        {"prediction": str(call.site), "target": str(target.site)},
        keys=keys,
    )


# -------------------------------------------------------------------------------------------------- it does not follow


def _updates(case: Case, keys: frozenset[int]) -> int:
    return max((case.stepped[key].total for key in keys if key in case.stepped), default=0)


def _does_not_follow(case: Case, keys: frozenset[int], twin: frozenset[int]) -> Finding | None:
    """The values that targets are made of stay what they were before the first step."""
    weights = case.weights
    if _updates(case, twin) < LEAST or weights.changed(keys) is not False:
        return None
    first = case.steps[0].serial
    made = weights.born.get(min(keys), (0, ()))[1]
    copied = [e for e in case.events if e.kind == "deepcopy" and set(e.more[0]) & twin and e.serial > first]
    if len(copied) > 1 or any(weights.late_copies[site.place] for site in made):
        return None  # each copy is a new network
    writes = [e for e in case.events if e.kind == "write" and e.what in keys and e.serial > first]
    vain = writes[-1].site if writes else _mixed_in_vain(case, keys, twin)
    if vain is None and _may_follow_yet(case, keys, made):
        return None
    site = vain or captures.making(made, weights.born.get(min(twin), (0, ()))[1])
    if vain is not None:
        how = "This line is there to let it follow, and changes nothing of it"
        fix = "target_param.data.copy_(tau * param.data + (1 - tau) * target_param.data)   # 0 < tau < 1"
    else:
        how = "Nothing ever writes to the network that is made here"
        fix = "target.load_state_dict(online.state_dict())   # every so many updates"
    return Finding(
        CODE,
        "error",
        "The target network never follows",
        site,
        f"{how}: in {_updates(case, twin)} updates of its twin {case.name(min(twin))} its values never changed, "
        "so the values that are learned stay those of the first, untrained network.",
        fix,
        case.named(keys),
        {"updates": _updates(case, twin), "writes": len(writes)},
        keys=keys,
    )


def _mixed_in_vain(case: Case, keys: frozenset[int], twin: frozenset[int]) -> Site | None:
    """Where the target's and the online network's parameters are averaged, and the result goes nowhere."""
    for site, pairs in case.memory.get(CODE, {}).items():
        if any(pair & keys and pair & (twin | case.stepped.keys()) for pair in pairs):
            return site if isinstance(site, Site) else None
    return None


def _may_follow_yet(case: Case, keys: frozenset[int], made: tuple[Site, ...]) -> bool:
    """Whether there is code that could copy into the target and has not come to run."""
    if not all(one.ours for one in case.optimizers if one.steps):
        return True  # a library trains, in its own time
    run = {
        site.place for e in (*case.events, *case.weights.early) for site in (*e.stack, *((e.site,) if e.site else ()))
    }
    names = [case.names.get(key, "").split(".") for key in sorted(keys)]
    own = ""
    if names and all(names):
        common = [parts[0] for parts in zip(*names, strict=False) if len(set(parts)) == 1]
        own = common[-1] if common else ""
    others = {name.rpartition(".")[2] for name in case.module_names.values()} - {own}
    files = {site.file for site in made} | {one.site.file for one in case.optimizers if one.site is not None}
    for file in files:
        module = tree(file)
        for node in ast.walk(module) if module else ():
            written = captures.written_name(node)
            line = captures.line_of(node)
            if written is None or (file, line) in run or written in others:
                continue
            if captures.is_called(file, line):
                return True
    return False


def _jumps(case: Case, keys: frozenset[int], twin: frozenset[int]) -> Finding | None:
    """The two weights of the average are the wrong way round: at each update the target becomes the online network."""
    steps = [step.serial for step in case.steps if any(key in twin for key in step.grads)]
    times: Counter[Site | None] = Counter()
    key = next((key for key in sorted(keys) if any(e.kind == "write" and e.what == key for e in case.events)), None)
    shares = []
    for event in case.events:
        if key is not None and event.kind == "write" and event.what == key:
            since = max((serial for serial in steps if serial < event.serial), default=0)
            mix = copies.weights_of(event.more, since)
            if mix is not None and 0 < mix.get(key, 0.0) <= 0.1 and any(mix.get(other, 0.0) >= 0.9 for other in twin):
                times[event.site] += 1
                shares.append(mix[key])
    if sum(times.values()) < 20 or sum(times.values()) < 0.3 * len(steps):
        return None
    return Finding(
        CODE,
        "error",
        "The target network follows at once: its average is the wrong way round",
        times.most_common(1)[0][0],
        f"At each update the target keeps {shares[-1]:.1%} of itself and takes the rest from the online network, so it "
        "is no slower than that one and does not steady it.",
        "target_param.data.copy_(tau * param.data + (1 - tau) * target_param.data)",
        case.named(keys),
        {"kept of the target": shares[-1], "times": sum(times.values()), "updates": len(steps)},
        keys=keys,
    )


def _mixes(case: Case, node: Node, args: object, kwargs: object, result: object) -> None:
    """Notes where two parameters of one shape are added, as in an average."""
    found = set()
    for one in node.inputs:
        for other in (one, *one.inputs):
            if other.param is not None:
                if other.shape != node.shape:
                    return
                found.add(other.param)
    if len(found) == 2 and node.site is not None:
        pairs = case.memory.setdefault(CODE, {}).setdefault(node.site, set())
        if len(pairs) < 64:
            pairs.add(frozenset(found))


LISTENS = {"add": _mixes, "lerp": _mixes}
