"""Parameters that were handed to an optimizer were frozen with requires_grad = False, and stayed so."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator

from covary.doctor.case import Case, Event
from covary.doctor.findings import Finding
from covary.doctor.reading import copies
from covary.doctor.sites import Site, statement, text

CODE = "frozen-parameter"
RANK = 14
EXPLAINS = frozenset({"graph-cut", "optimizer-mismatch", "learning-rate", "order-of-calls", "sample-not-rsample"})


def examine(case: Case) -> Iterator[Finding]:
    freezing: dict[int, list[Event]] = {}
    for event in case.events:
        if event.kind == "requires_grad":
            freezing.setdefault(event.what, []).append(event)
    if not freezing or not case.steps:
        return
    used = _used(case)
    found: dict[Site, set[int]] = {}
    late: set[int] = set()
    for key, events in freezing.items():
        if key not in case.stepped or key not in used or events[-1].more or _learns(case, key):
            continue
        told = _left_over(case, key, events)
        if told is not None:
            found.setdefault(told, set()).add(key)
            if _reached_before(case, key, events[-1].serial):
                late.add(key)
    trained = frozenset(case.stepped)
    for site, keys in found.items():
        if not any(len(case.shapes.get(key, ())) > 1 or math.prod(case.shapes.get(key, ())) >= 8 for key in keys):
            continue  # a scale or an offset alone is rather a constant on purpose
        optimizers = sorted({case.stepped[key].kind for key in keys})
        after = " although the loss had reached them before" if keys & late else ""
        yield Finding(
            CODE,
            "error",
            f"{len(keys)} parameters stay frozen",
            site,
            f"This line sets requires_grad = False{after}, and nothing sets it back. {' and '.join(optimizers)} holds "
            "these parameters and steps them, but they get no gradient and keep their values.",
            "Delete this line, or set requires_grad = True again before the next loss that shall train them.",
            case.named(keys),
            {
                "times frozen": sum(not event.more for key in keys for event in freezing[key]),
                "steps": max(case.stepped[key].steps for key in keys),
                "parameters of the optimizers": len(trained),
            },
            keys=frozenset(keys),
        )


def _used(case: Case) -> frozenset[int]:
    """Parameters from which some loss was computed."""
    return frozenset().union(*(case.before(one.loss) for one in case.backwards), case.reached)


def _learns(case: Case, key: int) -> bool:
    """Whether it is trainable in the end, or gone and not known."""
    parameter = case.param(key)
    if case.weights is not None and key in case.weights.thawed:
        return True
    return parameter is not None and parameter.requires_grad


def _reached_before(case: Case, key: int, serial: int) -> bool:
    return any(one.serial < serial and key in one.reached for one in case.backwards)


def _left_over(case: Case, key: int, events: list[Event]) -> Site | None:
    """The line that froze a parameter which was meant to learn; None where freezing it may well be meant.

    Meant to learn: its values are those it was born with, so that nobody ever trained it; or it is frozen anew at each
    update, and the optimizer that trained it before goes on stepping it; or a later optimizer was given it by itself.
    """
    frozen = [event for event in events if not event.more]
    last_thaw = max((event.serial for event in events if event.more), default=-1)
    since = [event for event in frozen if event.serial > last_thaw]
    first = since[0]
    if any(one.serial > first.serial and key in one.reached for one in case.backwards):
        return None
    steps = [step for step in case.steps if key in step.grads and step.serial > first.serial]
    if len(steps) < 3:
        return None
    if _asked_for(case, key, first.serial):
        return _line(case, first)
    if _reached_before(case, key, first.serial):
        anew = len({event.serial for event in since}) > 1
        return _line(case, first) if anew and key in steps[-1].grads else None
    return _line(case, first) if _as_born(case, key, steps[0].serial) else None


def _asked_for(case: Case, key: int, since: int) -> bool:
    """Whether an optimizer that was made later has a group for nothing but what had been frozen by then."""
    frozen = {
        event.what
        for event in case.events
        if event.kind == "requires_grad" and not event.more and not _learns(case, event.what)
    }
    return any(key in group and group <= frozen for one in case.optimizers if one.serial > since
               for group in one.groups if len(one.groups) > 1)  # fmt: skip


def _as_born(case: Case, key: int, until: int) -> bool:
    """Whether a parameter's values are random numbers that the script drew for it, and nothing was loaded into it."""
    weights = case.weights
    if weights is None or key not in weights.born:
        return False
    for event in case.events:
        if event.kind == "deepcopy" and key in event.more[1]:
            return False
        if event.kind == "load_state_dict" and key in event.what and event.serial < until:
            return False
    written = [event.more for event in (*weights.early, *case.events) if event.kind == "write" and event.what == key]
    whole = [node for node in written if node.serial < until and node.shape == case.shapes.get(key)]  # no padding row
    if written:
        return bool(whole) and copies.origin(whole[-1], key, -1).random
    parameter, optimizer = case.param(key), case.stepped[key]  # nn.Parameter(torch.randn(…)), frozen at a later stage
    later = any(
        event.serial > optimizer.serial for event in case.events if event.kind == "requires_grad" and event.what == key
    )
    return later and parameter is not None and parameter.numel() > 1 and bool(parameter.detach().float().std() > 0)


def _line(case: Case, event: Event) -> Site | None:
    """The innermost frame that says False itself; the caller of a helper which freezes others rightly."""
    frames = event.stack or ((event.site,) if event.site else ())
    if not any("requires_grad" in text(site.file, site.line) for site in frames):
        return None  # Embedding.from_pretrained, say
    rightly = {
        site.place
        for other in case.events
        if other.kind == "requires_grad" and not other.more and other.what not in case.stepped
        for site in other.stack
    }
    for site in frames:
        if site.place not in rightly and _says_false(site):
            return site
    return frames[0] if frames else None


def _says_false(site: Site) -> bool:
    node = statement(site.file, site.line)
    if node is None:
        return True
    heads = [node] if not getattr(node, "body", None) else [getattr(node, "iter", None) or getattr(node, "test", None)]
    return any(isinstance(one, ast.Constant) and one.value is False for head in heads if head for one in ast.walk(head))
