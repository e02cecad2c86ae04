"""Where a loss bootstraps: reward + discount * (value of the next state), and what switches that off at an end.

The listeners (see `masks`) note, beside the calls, which rows of a network's input were terminal and which elements a
factor of zeros and ones lets through; `found` puts the two together for each place that forms a target.
"""

from __future__ import annotations

import ast
import bisect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from covary.doctor.case import Case
from covary.doctor.reading.targets import ADDS, LISTS, MULS, PASSES, PLACES, Bootstrap, Matcher
from covary.doctor.sites import Site, statement
from covary.doctor.trail import Node
from covary.doctor.watching.endings import GOES_ON, LIMIT, MIXED, TERMINAL


@dataclass
class Group:
    """All that one place of the script formed."""

    site: Site
    at: Site  # where the mask enters, or should
    times: list[Bootstrap] = field(default_factory=list)
    table: Counter[tuple[int, bool]] = field(
        default_factory=Counter
    )  # (what became of the state, bootstrapped): how often
    kept: int = 0
    dropped: int = 0
    listed: int = 0  # elements of lists that are bootstrapped, and that are bare rewards
    bare: int = 0
    paid: bool = False  # whether what is added to the value was seen to be the reward of an environment
    depth: int = 1  # of a recursion in the same function, as of a generalised advantage, that nothing can stop
    keys: frozenset[int] = frozenset()  # of the parameters that are trained by it

    @property
    def masked(self) -> bool:
        return any(one.masked for one in self.times) or bool(self.bare)

    @property
    def unclear(self) -> bool:
        return any(one.unclear for one in self.times)

    def share(self, kind: int) -> tuple[int, float]:
        """How often states of a kind were met, and the share of them that was bootstrapped from."""
        yes, no = self.table[kind, True], self.table[kind, False]
        return yes + no, yes / max(yes + no, 1)


def found(case: Case) -> list[Group]:
    """The places that bootstrap, each with what was seen there."""
    memory = case.memory.setdefault("bootstraps", {})
    if memory.get("count") != len(case.backwards):
        memory["count"] = len(case.backwards)
        memory["groups"] = _Search(case).groups()
    return list(memory["groups"])


class _Search:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.matcher = Matcher(case)

    def groups(self) -> list[Group]:
        case = self.case
        memory = case.memory.get("bootstraps", {})
        masks = memory.get("chosen", False) or any(hits for _, hits in memory.get("products", {}).values())
        if not case.counts["env steps"] and not masks:
            return []
        seen: set[int] = set()
        lists: list[Node] = []
        places: list[Node] = []
        cuts: list[Node] = []
        hits: list[Bootstrap] = []
        adds: list[tuple[int, int, Node]] = []
        for i, backward in enumerate(case.backwards):
            todo = [backward.loss]
            while todo:
                node = todo.pop()
                if id(node) in seen:
                    continue
                seen.add(id(node))
                todo += node.inputs
                if node.op in ADDS:
                    adds.append((node.serial, i, node))
                elif node.op in LISTS and node.args and type(node.args[0]) is tuple and len(node.args[0]) > 1:
                    lists.append(node)
                elif node.op in PLACES or node.op in MULS:
                    places.append(node)
                elif node.op in PASSES and not node.grad and len(node.inputs) == 1 and node.inputs[0].grad:
                    cuts.append(node)
        for _, i, node in sorted(adds, key=lambda one: one[0]):  # what lies in a recursion first
            if (hit := self.matcher.match(node)) is not None:
                hit.reached = case.backwards[i].reached
                hits.append(hit)
        hits = [hit for hit in hits if not hit.shaping]
        for node in places:
            self.above(node)
        for node in cuts:
            hit = self.matcher.matched.get(id(node.inputs[0]), (None, None))[1]
            if hit is not None:
                hit.cut = True
        groups: dict[tuple[str, int], Group] = {}
        for hit in hits:
            group = groups.setdefault(hit.site.place, Group(hit.site, hit.at))
            group.times.append(hit)
            group.keys |= hit.reached
            if hit.masked:
                group.at = hit.at
        for group in groups.values():
            depths = [
                depth
                for site, (stopped, depth) in self.matcher.chains.items()
                if _together(site, group.site) and not stopped
            ]
            group.depth = max(depths, default=1)
            group.paid = any(self.is_paid(one.reward) for one in group.times[:8])
        by_id = {id(hit.node): groups[hit.site.place] for hit in hits}
        for node in lists:
            self.look_into(node, by_id)
        self.tally(list(groups.values()))
        return [group for group in groups.values() if self.is_one(group)]

    def is_one(self, group: Group) -> bool:
        """Not a constant beside an output, as in 0.1 + 0.9 * sigmoid(x); and written there, not in a library."""
        numbers = {one.reward for one in group.times if isinstance(one.reward, (int, float))}
        if len(numbers) == 1 and all(isinstance(one.reward, (int, float)) for one in group.times) and not group.masked:
            return False
        if not any(0.8 <= one.number < 1 for one in group.times) and not group.masked:
            return False
        return _multiplies(group.site)

    def is_paid(self, reward: Any) -> bool:
        """Whether a reward of an environment is among what a value was made of."""
        todo = [reward] if isinstance(reward, Node) else []
        seen: set[int] = set()
        for one in todo:
            if one.op == "reward" or one.tag("reward"):
                return True
            if len(seen) < 3000:
                fresh = {id(other): other for other in one.inputs if id(other) not in seen}
                seen.update(fresh)
                todo += fresh.values()
        return False

    def above(self, node: Node) -> None:
        """A choice between a target that bootstraps and one that does not: where(done, r, r + gamma * v)."""
        for i, one in enumerate(node.args):
            while (
                isinstance(one, Node)
                and one.op in PASSES
                and len(one.inputs) == 1
                and id(one) not in self.matcher.matched
            ):
                one = one.inputs[0]
            hit = self.matcher.matched.get(id(one), (None, None))[1] if isinstance(one, Node) else None
            if hit is None:
                continue
            keep: Any = None
            if node.op in MULS:
                other = node.args[1 - i] if i < 2 and len(node.args) > 1 else None
                if isinstance(other, (int, float)) or self.matcher.laden(other):
                    continue
                if isinstance(other, Node) and "keeps" not in (node.tags or {}):
                    continue
                keep, top = node.tag("keeps", {}).get(1 - i, (None, 1.0))
                if top != 1.0:
                    continue
            elif (chosen := node.tag("chosen")) is not None:
                keep = chosen if (node.op == "where") == (i == 1) else ~chosen
            elif node.op == "setitem" and i:
                continue  # put away by its number
            hit.masked = True
            hit.at = node.site or hit.at
            if keep is None:
                hit.known = False
            else:
                hit.keep = keep if hit.keep is None or hit.keep.size != keep.size else hit.keep & keep

    def look_into(self, node: Node, groups: dict[int, Group]) -> None:
        """A list of targets: those that bootstrap, and those that are a bare reward."""
        hits: list[Group] = []
        bare = 0
        for one in node.args[0]:
            while isinstance(one, Node) and one.op in PASSES and len(one.inputs) == 1 and id(one) not in groups:
                one = one.inputs[0]
            if isinstance(one, Node) and id(one) in groups:
                hits.append(groups[id(one)])
            elif not self.matcher.laden(one) and one is not None:
                bare += 1
        for group in {id(one): one for one in hits}.values():
            group.listed += len(hits)
            group.bare += bare

    def tally(self, groups: list[Group]) -> None:
        steps = [(event.serial, event.what) for event in self.case.events if event.kind == "env step"]
        serials = [serial for serial, _ in steps]
        for group in groups:
            single = [one for one in group.times if one.size == 1 and one.rows is None]
            per_step = Counter(bisect.bisect(serials, one.node.serial) for one in single)
            online = bool(per_step) and max(per_step.values()) <= 2
            for one in group.times:
                keep = _keep(one)
                if keep is not None and one.masked:
                    group.kept += int(keep.sum())
                    group.dropped += int((~keep).sum())
                rows = one.rows
                if rows is None and one.size == 1 and online:
                    rows = self.latest(one, serials, steps)
                if rows is None or keep is None:
                    continue
                for kind, through in zip(rows, keep, strict=True):
                    if kind not in (0, MIXED):
                        group.table[kind, bool(through)] += 1

    def latest(self, one: Bootstrap, serials: list[int], steps: list[Any]) -> bytes | None:
        """A value computed right after one step of one environment is that of the state in which this step ended."""
        if not one.networks:
            return None
        first = min(other.serial for other in one.networks)
        i = bisect.bisect(serials, one.node.serial) - 1
        if i < 0 or serials[i] > first:
            return None
        record = steps[i][1]
        if record.terminated is None or np.ndim(record.terminated):
            return None
        return bytes([LIMIT if record.limit else TERMINAL if record.terminated else GOES_ON])


def _together(one: Site, other: Site) -> bool:
    return one.file == other.file and one.function == other.function


def _keep(one: Bootstrap) -> Any:
    """Of each element, whether it was bootstrapped; None where that is not known."""
    if not one.known or (one.unclear and one.keep is None):
        return None
    if one.keep is None:
        return np.ones(one.size, dtype=bool)
    if one.keep.size == one.size:
        return one.keep.ravel()
    return np.full(one.size, bool(one.keep.ravel()[0])) if one.keep.size == 1 else None


def _multiplies(site: Site) -> bool:
    """Whether the statement is the one that multiplies, and not a call of a library that does."""
    node = statement(site.file, site.line)
    for one in ast.walk(node) if node is not None else ():
        if isinstance(one, (ast.BinOp, ast.AugAssign)) and isinstance(one.op, (ast.Mult, ast.Div)):
            return True
        name = one.func.attr if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) else ""
        if name in ("mul", "mul_", "multiply", "where", "add", "add_", "sub"):
            return True
    return False


def ends(case: Case) -> Iterator[tuple[bool, bool]]:
    """Of each step of an environment: whether it ended by itself, and whether by a time limit alone."""
    for record in case.env_steps:
        if record.terminated is None:
            continue
        done = np.atleast_1d(np.asarray(record.terminated, dtype=bool))
        limit = np.zeros_like(done) if record.limit is None else np.atleast_1d(np.asarray(record.limit, dtype=bool))
        if limit.shape == done.shape:
            yield from zip((done & ~limit).tolist(), limit.tolist(), strict=True)
