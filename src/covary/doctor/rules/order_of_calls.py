"""zero_grad, backward and step in an order in which gradients never arrive in a step."""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from collections.abc import Iterator

from covary.doctor.case import Backward, Case, Optimizer, Step
from covary.doctor.findings import Finding
from covary.doctor.reading.order import Moment, by_hand, lives, uncalled
from covary.doctor.sites import Site, text, tree

CODE = "order-of-calls"
RANK = 12
EXPLAINS = frozenset({"graph-cut", "optimizer-mismatch", "learning-rate", "missing-zero-grad", "crossed-gradients"})
LEAST = 3  # steps, or backward calls, before anything is said


def examine(case: Case) -> Iterator[Finding]:
    known = lives(case)
    erased: set[int] = set()
    for finding in _erased(case, known):
        erased |= finding.keys
        yield finding
    yield from _never_stepped(case)
    yield from _never_computed(case)
    yield from _in_vain(case, known, frozenset(erased))


# ------------------------------------------------------------------------ the gradient is gone when the step comes


def _erased(case: Case, known: dict[int, list[Moment]]) -> Iterator[Finding]:
    """Each step of an optimizer finds no gradient, because between the last backward and the step it was erased."""
    groups: dict[tuple[Optimizer, Site, bool], set[int]] = {}
    for key, life in known.items():
        optimizer = case.stepped.get(key)
        if optimizer is None or case.strength.get(key, 0.0) > 0:
            continue
        told = _line(life)
        if told is not None:
            groups.setdefault((optimizer, *told), set()).add(key)
    for (optimizer, site, early), keys in groups.items():
        if early:
            title = "step comes before backward: it never sees a gradient"
            why = "This step runs after zero_grad and before backward, so .grad is empty each time."
            fix = "loss.backward()\noptimizer.step()"
        else:
            title = "The gradient is erased before the step"
            why = "Between backward and step this line erases what backward has just computed: each step finds nothing."
            fix = "optimizer.zero_grad()\nloss.backward()\noptimizer.step()"
        yield Finding(
            CODE,
            "error",
            title,
            site,
            f"{why} {len(keys)} parameters of {optimizer.kind} were stepped {optimizer.steps} times without one.",
            fix,
            case.named(keys),
            {"steps": optimizer.steps, "backwards": len(case.backwards), "optimizer": optimizer.kind},
            keys=frozenset(keys),
        )


def _line(life: list[Moment]) -> tuple[Site, bool] | None:
    """The line that comes too early, and whether it is the step; None where this is not what happens to a parameter."""
    first: str | None = None
    last_backward = last_zero = None
    gone, steps, backwards = 0, 0, 0
    sites: Counter[Site | None] = Counter()
    stepping: Counter[Site | None] = Counter()
    for moment in life:
        if moment.kind == "backward":
            first = first or "backward"
            last_backward, backwards = moment, backwards + 1
        elif moment.kind == "zero":
            last_zero = moment
        else:
            first = first or "step"
            if moment.step.closure:
                return None
            steps += 1
            stepping[moment.site] += 1
            if last_backward is None or (last_zero is not None and last_zero.serial > last_backward.serial):
                gone += 1
                if last_zero is not None and last_backward is not None:
                    sites[_beside(last_zero, moment, last_backward)] += 1
    if steps < LEAST or backwards < LEAST or gone < 0.9 * steps:
        return None
    if first == "step":
        site = stepping.most_common(1)[0][0]
        return None if site is None else (site, True)
    site = sites.most_common(1)[0][0] if sites else None
    return None if site is None else (site, False)


def _beside(zero: Moment, *others: Moment) -> Site | None:
    """The line that erases, in the function where the others are called: it may be a helper's that does it."""
    functions = {(one.site.file, one.site.function) for one in others if one.site is not None}
    stack = zero.event.stack
    depth = next((i for i, site in enumerate(stack) if (site.file, site.function) in functions), None)
    if depth is None:
        return zero.site
    for i, (inner, outer) in enumerate(itertools.pairwise(stack[: depth + 1])):
        if not _names(outer, inner.function):
            return stack[i]  # a hook: it was put in its place where it was made, not where hooks are called
    return stack[depth]


def _names(site: Site, function: str) -> bool:
    """Whether a call of a function stands in a line by the function's own name."""
    return function.startswith("__") or re.search(rf"\b{re.escape(function)}\b", text(site.file, site.line)) is not None


# ------------------------------------------------------------------------------------- an optimizer that never steps


def _never_stepped(case: Case) -> Iterator[Finding]:
    """Gradients are computed for an optimizer's parameters, and nothing ever steps them."""
    hand = by_hand(case)
    for optimizer in case.optimizers:
        keys = frozenset(optimizer.params) - case.stepped.keys() - hand
        if optimizer.total or not keys or 2 * len(keys) < len(optimizer.params):
            continue
        backwards = [one for one in case.backwards if one.reached & keys and one.only is None]
        if len(backwards) < LEAST:
            continue
        files = {site.file for site in (optimizer.site, backwards[-1].site) if site is not None}
        site = (
            _nameless(files, backwards) or _wrong_step(case, optimizer, keys, backwards) or _scheduler(case, backwards)
        )
        certain = site is not None
        if site is None:
            if len(backwards) < 20:
                continue  # perhaps the step comes after many small batches
            site = backwards[-1].site
        why = "this line names `step` and does not call it" if _is_nameless(site, files) else "no step of it follows"
        yield Finding(
            CODE,
            "error",
            f"{optimizer.kind} never makes a step",
            site,
            f"{len(backwards)} backward calls computed gradients for its {len(keys)} parameters, and {why}, "
            "so they keep their initial values.",
            "loss.backward()\noptimizer.step()",
            case.named(keys),
            {"backwards": len(backwards), "steps": 0, "optimizer": optimizer.kind, "made at": str(optimizer.site)},
            certain,
            keys,
        )


def _nameless(files: set[str], backwards: list[Backward]) -> Site | None:
    """`optimizer.step` without its parentheses, the nearest after backward."""
    site = backwards[-1].site
    found = sorted(uncalled(files, "step"), key=lambda one: (site is None or one.line < site.line, one.line))
    return found[0] if found else None


def _is_nameless(site: Site | None, files: set[str]) -> bool:
    return site is not None and any(one.place == site.place for one in uncalled(files, "step"))


def _wrong_step(case: Case, optimizer: Optimizer, keys: frozenset[int], backwards: list[Backward]) -> Site | None:
    """The step of another optimizer that stands where this one's should: it has nothing to do there."""
    ours = {id(one) for one in backwards}
    idle: Counter[Site | None] = Counter()
    twice: Counter[tuple[Site | None, Site | None]] = Counter()
    fresh: set[int] = set()
    pending = False
    last: Step | None = None
    for event in case.events:
        if event.kind == "backward":
            fresh |= event.what.reached
            pending, last = pending or id(event.what) in ours, None
        elif event.kind == "step" and pending:
            step: Step = event.more
            if not fresh & step.grads.keys() and last is None:
                idle[step.site] += 1
                pending = False
            elif last is not None and last.optimizer is step.optimizer:
                twice[last.site, step.site] += 1
                pending = False
            else:
                last = step
            fresh -= step.grads.keys()
    for counted in (
        idle,
        _misplaced(case, keys),
        Counter({order[_first(case, optimizer)]: count for order, count in twice.items()}),
    ):
        if counted and counted.most_common(1)[0][1] >= LEAST:
            return counted.most_common(1)[0][0]
    return None


def _misplaced(case: Case, keys: frozenset[int]) -> Counter[Site | None]:
    """Steps right after a backward for these parameters, of an optimizer that has a step of its own elsewhere."""
    ours: Counter[Site | None] = Counter()
    owners: dict[Site | None, Optimizer] = {}
    elsewhere: set[Optimizer] = set()
    latest: Backward | None = None
    for event in case.events:
        if event.kind == "backward":
            latest = event.what
        elif event.kind == "step" and latest is not None:
            if latest.reached & keys:
                ours[event.site] += 1
                owners[event.site] = event.what
            else:
                elsewhere.add(event.what)
            latest = None
    return Counter({site: count for site, count in ours.items() if owners[site] in elsewhere})


def _first(case: Case, optimizer: Optimizer) -> int:
    """Of two steps of one optimizer in a row, which stands for this one: they step in the order of their making."""
    stepping = [one for one in case.optimizers if one.total]
    return 0 if not stepping or optimizer.serial < stepping[0].serial else 1


def _scheduler(case: Case, backwards: list[Backward]) -> Site | None:
    """`scheduler.step()` where no optimizer's step is: what was called after backward was not the optimizer's."""
    site = backwards[-1].site
    module = tree(site.file) if site is not None else None
    if site is None or module is None:
        return None
    known = {step.site.place for step in case.steps if step.site is not None}
    made = {
        ast.unparse(target)
        for node in ast.walk(module)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if "lr_scheduler" in ast.unparse(node.value.func) or ast.unparse(node.value.func).endswith("LR")
        for target in node.targets
    }
    lines = [
        node.lineno
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "step"
        if ast.unparse(node.func.value) in made and node.lineno > site.line and (site.file, node.lineno) not in known
    ]
    return site.at(min(lines)) if lines else None


# ------------------------------------------------------------------------------------------- no backward at all


def _never_computed(case: Case) -> Iterator[Finding]:
    """An optimizer steps, and backward was never called for it."""
    for optimizer in case.optimizers:
        keys = frozenset(optimizer.params)
        if optimizer.steps < 5 or keys & case.reached or any(case.strength.get(key) for key in keys):
            continue
        stepping = [step.site for step in case.steps if step.optimizer is optimizer and step.site is not None]
        named = uncalled({site.file for site in stepping[-1:]}, "backward")
        if not stepping or (case.backwards and not named):
            continue
        yield Finding(
            CODE,
            "error",
            f"{optimizer.kind} steps without any gradient: backward is never called",
            named[0] if named else stepping[-1],
            f"{optimizer.steps} steps, and no backward call ever reached its {len(keys)} parameters"
            + (": this line names `backward` and does not call it." if named else "."),
            "loss.backward()\noptimizer.step()",
            case.named(keys),
            {"steps": optimizer.steps, "backwards": len(case.backwards), "optimizer": optimizer.kind},
            keys=keys,
        )


# ----------------------------------------------------------------------------- a backward whose gradients nobody uses


def _in_vain(case: Case, known: dict[int, list[Moment]], erased: frozenset[int]) -> Iterator[Finding]:
    """All that one backward computes is erased before any step, each time."""
    held = {key for optimizer in case.optimizers for key in optimizer.params}
    fate: dict[int, list[Moment | None]] = {}
    for key, life in known.items():
        if key not in held:
            continue
        for i, moment in enumerate(life):
            if moment.kind == "backward":
                after = next((one for one in life[i + 1 :] if one.kind != "backward"), None)
                fate.setdefault(moment.serial, []).append(after)
    reads = case.memory.get(CODE, {}).get("reads", ())
    by_site: dict[Site, list[tuple[Backward, Site | None]]] = {}
    for one in case.backwards:
        fates = fate.get(one.serial)
        if one.site is None or one.only is not None or not fates or None in fates:
            continue
        last = max((after for after in fates if after is not None), key=lambda after: after.serial)
        lost = all(after is not None and after.kind == "zero" for after in fates) and one.reached <= held
        lost = lost and not any(one.serial < read < last.serial for read in reads)
        own = Moment("backward", one.serial, one.site, last.event)
        by_site.setdefault(one.site, []).append((one, _beside(last, own) if lost else None))
    for site, many in by_site.items():
        zeros = {zero for _, zero in many}
        keys = frozenset().union(*(one.reached for one, _ in many))
        if len(many) < 5 or None in zeros or len(zeros) != 1 or keys <= erased:
            continue
        if any(case.before(one.loss) & case.starved for one, _ in many[-3:]):
            continue  # its own network was cut off and what it reaches is another's: the cut is the cause
        zero = zeros.pop()
        yield Finding(
            CODE,
            "error",
            "What this backward computes is erased before any step",
            zero,
            f"The {len(many)} gradients from line {site.line} were all erased here before an optimizer used them.",
            "optimizer.zero_grad()\nloss.backward()\noptimizer.step()",
            case.named(keys),
            {"backwards": len(many), "backward at": str(site)},
            keys=keys,
        )


def _read(case: Case, node: object, args: object, kwargs: object, result: object) -> None:
    case.memory.setdefault(CODE, {}).setdefault("reads", []).append(case.trail.serial)


LISTENS = {"grad": _read}
