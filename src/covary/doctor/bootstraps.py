"""Where a loss bootstraps: reward + discount * (value of the next state), and what switches that off at an end.

The listeners note, beside the calls, which rows of a network's input were terminal (see `endings`) and which elements a
factor of zeros and ones lets through; `found` puts the two together for each place that forms a target.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from covary.doctor.case import Case
from covary.doctor.endings import GOES_ON, LIMIT, MIXED, TERMINAL, key_of
from covary.doctor.mode import VIEWS
from covary.doctor.paths import words
from covary.doctor.sites import Site, statement
from covary.doctor.trail import Node

ADDS = words("add add_ sub sub_ rsub subtract")
MULS = words("mul mul_ multiply")
DIVS = words("div div_ truediv true_divide divide")
PASSES = VIEWS | words(
    "float double half to cpu clone numpy item tolist tensor as_tensor from_numpy array asarray asanyarray "
    "ascontiguousarray astype copy type type_as expand_as squeeze_ unsqueeze_ detach_ getitem broadcast_to "
    "view_as float_ int negative neg"
)
PICKS = words(
    "max min amax amin minimum maximum fmin fmax gather take_along_dim take_along_axis mean sum clamp clamp_ "
    "logsumexp median quantile abs exp log tanh relu softplus sigmoid pow square sqrt sign index_select "
    "maximum.reduce minimum.reduce add.reduce amax.reduce sort topk"
)
PLACES = words("where masked_fill masked_fill_ setitem index_put_ index_put index_fill index_fill_ masked_scatter")
LISTS = words("tensor as_tensor stack cat array asarray vstack hstack concatenate append")
SIDE = words("log_prob entropy sample rsample")  # what a soft value subtracts is not the value itself
HIDDEN = words(
    "linear relu relu_ tanh sigmoid elu silu gelu leaky_relu layer_norm addmm matmul mm batch_norm dropout softplus"
)


# ------------------------------------------------------------------------------------------------- beside the calls


def _array(value: Any) -> Any:
    """The values of a small array or tensor without a gradient, flat; else None."""
    if isinstance(value, Tensor):
        if value.requires_grad or not 0 < value.numel() <= 4096 or value.is_sparse:
            return None
        return value.detach().cpu().numpy().ravel()
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray).ravel() if 0 < value.size <= 4096 and value.dtype.kind in "biuf" else None
    if isinstance(value, (bool, np.bool_, np.integer)):
        return np.array([float(value)])
    return None


def heard_input(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """What became of each row that a network is given."""
    x = args[1] if node.op == "addmm" and len(args) > 1 else args[0] if args else None
    known = case.memory.get("endings", {}).get("outcomes")
    if not isinstance(x, Tensor) or known is None or not known.kinds or x.ndim == 0 or x.is_sparse:
        return
    first = node.args[0]
    if (isinstance(first, Node) and first.op in HIDDEN) or x.numel() > 262_144:
        return
    width = max((one for one in known.widths if one <= x.shape[-1]), default=0)
    rows = x.numel() // x.shape[-1] if x.shape[-1] else 0
    if not width or not 0 < rows <= 1024:
        return
    values = x.detach().cpu().numpy().reshape(rows, -1)[:, :width].astype(np.float32)
    kinds = known.kinds
    found = bytes([kinds.get(key_of(row), 0) for row in values])
    if any(found):
        memory = case.memory.setdefault("bootstraps", {})
        memory["inputs"] = memory.get("inputs", 0) + 1
        if memory["inputs"] > 4000 and memory["inputs"] % 4:
            return
        if width == x.shape[-1]:
            memory["exact"] = True
        elif not memory.get("exact"):
            return  # no network takes the bare observation: the beginning of a one-hot code may look like one
        node.mark(rows=found)
        if LIMIT in found and len(limited := memory.setdefault("limited", [])) < 2000:
            limited.append(node)


def heard_product(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """Which elements a factor of zeros and one other value lets through."""
    if node.site is None or len(args) < 2:
        return
    seen = case.memory.setdefault("bootstraps", {}).setdefault("products", {}).setdefault(node.site, [0, 0])
    seen[0] += 1
    if (seen[0] > 8 and not seen[1]) or (seen[0] > 400 and seen[0] % 4):
        return
    keeps: dict[int, tuple[Any, float]] = {}
    for i in (0, 1):
        array = _array(args[i])
        if array is None:
            continue
        top = float(array.max())
        if (0 < top <= 1 and bool(((array == 0) | (array == top)).all())) or top == 0 == float(array.min()):
            keeps[i] = (array != 0, top)
    if keeps:
        seen[1] += 1
        node.mark(keeps=keeps)


def heard_place(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """Which elements a `where`, a `masked_fill` or an assignment by a mask chooses."""
    which = (
        args[0] if node.op == "where" else args[2] if node.op == "setitem" and type(args[0]) is np.ndarray else args[1]
    )
    if node.op == "setitem" and not isinstance(args[0], Tensor):
        which = args[2] if len(args) > 2 else None
    if (isinstance(which, Tensor) and "bool" in str(which.dtype)) or (
        isinstance(which, np.ndarray) and which.dtype.kind == "b"
    ):
        array = _array(which)
        if array is not None:
            node.mark(chosen=array.astype(bool))
            case.memory.setdefault("bootstraps", {})["chosen"] = True


LISTENS = {
    **dict.fromkeys(("linear", "addmm", "matmul", "mm", "mv"), heard_input),
    **dict.fromkeys(("mul", "mul_", "numpy.multiply"), heard_product),
    **dict.fromkeys(("where", "masked_fill", "masked_fill_", "setitem", "numpy.where", "numpy.setitem"), heard_place),
}


# ------------------------------------------------------------------------------------------------ what was put together


@dataclass(slots=True)
class Bootstrap:
    """One time that a target was formed: reward + number * masks * value.

    keep: of each element, whether the value got through; None where that is not known. masked: that something there
    can switch it off; unclear: that something might. whole: the values stand in the order of the network's rows.
    stored: they were put away and taken out again (a rollout's buffer).
    depth: how many sums of the same place lie one in another.
    """

    node: Node
    site: Site
    at: Site
    number: float
    size: int
    reward: Any
    masked: bool = False
    unclear: bool = False
    whole: bool = True
    stored: bool = False
    keep: Any = None
    known: bool = True
    depth: int = 1
    nested: bool = False  # whether the value is made of targets itself
    shaping: bool = False  # whether a target was formed with it as the reward: then it is none
    cut: bool = False  # whether the gradient ends at it, or before
    inner: Site | None = None  # where the value comes from
    networks: list[Node] = field(default_factory=list)
    reached: frozenset[int] = frozenset()
    rows: bytes | None = None


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
        self.matched: dict[int, tuple[Node, Bootstrap | None]] = {}
        self.depths: dict[int, tuple[Node, int]] = {}
        self.chains: dict[Site, tuple[bool, int]] = {}  # by place: whether anything can stop it, and how deep it goes

    def laden(self, one: Any) -> bool:
        return isinstance(one, Node) and bool(self.case.carried(one))

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
            if (hit := self.match(node)) is not None:
                hit.reached = case.backwards[i].reached
                hits.append(hit)
        hits = [hit for hit in hits if not hit.shaping]
        for node in places:
            self.above(node)
        for node in cuts:
            hit = self.matched.get(id(node.inputs[0]), (None, None))[1]
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
                depth for site, (stopped, depth) in self.chains.items() if _together(site, group.site) and not stopped
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

    # ------------------------------------------------------------------------------------------------- one target

    def match(self, node: Node) -> Bootstrap | None:
        known = self.matched.get(id(node))
        if known is None:
            self.matched[id(node)] = (node, None)
            known = self.matched[id(node)] = (node, self._match(node))
        return known[1]

    def _match(self, node: Node) -> Bootstrap | None:
        if len(node.args) < 2 or not self.laden(node) or node.site is None:
            return None
        left, right = node.args[:2]
        plus = node.op in ("add", "add_")
        for value, reward in ((right, left), (left, right)):
            if not self.laden(value):
                continue
            hit = self.product(node, value)
            if hit is None:
                continue
            self.chain(node, hit)
            if not plus and hit.number >= 0 and not self.is_difference(reward):
                continue
            hit.number = abs(hit.number)
            self.descend(hit)
            hit.reward = self.reward(reward, hit)
            if hit.reward is _NOTHING:
                continue
            if self.is_input(hit):
                continue
            hit.cut = not node.grad
            return hit
        return None

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

    def is_input(self, hit: Bootstrap) -> bool:
        """x + number * network(x) is a residual step and no target."""
        if not isinstance(hit.reward, Node):
            return False
        todo = [one for network in hit.networks for one in network.inputs]
        for i, one in enumerate(todo):
            if one is hit.reward:
                return True
            if i < 60:
                todo += one.inputs
        return False

    def chain(self, node: Node, hit: Bootstrap) -> None:
        """Counts a recursion, r + discount * (r + discount * (...)), and notes whether something in it may be 0."""
        inner = hit.networks[0]
        while inner.op in PASSES and len(inner.inputs) == 1:
            inner = inner.inputs[0]
        if (
            node.site is not None
            and inner.op in ADDS
            and inner.site is not None
            and inner.site.place == node.site.place
        ):
            hit.depth = self.depths.get(id(inner), (inner, 1))[1] + 1
            self.depths[id(node)] = (node, hit.depth)
            stopped, depth = self.chains.get(node.site, (False, 1))
            self.chains[node.site] = (stopped or hit.masked or hit.unclear, max(depth, hit.depth))

    def is_difference(self, other: Any) -> bool:
        """q - reward - discount * value: the reward is taken away too."""
        return (
            isinstance(other, Node)
            and other.op in ("sub", "sub_", "subtract")
            and len(other.args) > 1
            and not self.laden(other.args[1])
        )

    def reward(self, other: Any, hit: Bootstrap) -> Any:
        """The part of a sum that no network has made; _NOTHING where there is none, or where it is a target itself."""
        free: Any = _NOTHING
        todo, steps = [other], 0
        while todo and steps < 12:
            one = todo.pop()
            steps += 1
            if not self.laden(one):
                free = one
                continue
            if one.op in PASSES and len(one.inputs) == 1:
                todo.append(one.inputs[0])
            elif one.op in ADDS and len(one.args) > 1:
                if (inner := self.match(one)) is not None:
                    if hit.nested or hit.stored:
                        return _NOTHING  # delta + discount * (the sum of the deltas after it)
                    inner.shaping, free = True, inner.reward  # reward + 0.9 * a bonus, and then a target
                    continue
                todo += one.args[:2]
            elif one.op in MULS and (value := self.product(one, one)) is not None and 0.8 <= abs(value.number) < 1:
                return _NOTHING
        return free

    def product(self, node: Node, value: Any) -> Bootstrap | None:
        """value as number * masks * one network's output."""
        number, tops = 1.0, 1.0
        keep: Any = None
        known, masked, unclear = True, False, False
        at = site = None
        extra = node.kwargs.get("alpha") if node.kwargs else None
        if isinstance(extra, (int, float)) and value is node.args[1]:
            number *= extra
        outputs: list[Node] = []
        todo, steps = [value], 0
        while todo:
            one = todo.pop()
            steps += 1
            if steps > 40:
                return None
            if one.op in MULS and len(one.args) > 1:
                site = site or one.site
                for i in (0, 1):
                    arg = one.args[i]
                    if self.laden(arg):
                        todo.append(arg)
                        continue
                    bits, top = one.tag("keeps", {}).get(i, (None, 1.0))
                    if isinstance(arg, (int, float)):
                        number *= float(arg)
                        if arg in (0, 1) or isinstance(arg, bool):
                            masked, at = True, one.site
                    elif bits is not None:
                        if (bits.size == 1 and one.shape not in ((), (1,), (1, 1))) or (
                            top not in (0.0, 1.0) and bits.size == 1
                        ):
                            number *= top  # a discount held in a tensor
                        else:
                            keep = bits if keep is None else keep & bits if keep.size == bits.size else keep
                            tops *= top or 1.0
                            masked, at = True, one.site
                    else:
                        masked, unclear, known, at = True, True, False, at or one.site
            elif (
                one.op in DIVS
                and len(one.args) > 1
                and self.laden(one.args[0])
                and isinstance(one.args[1], (int, float))
            ):
                number /= one.args[1] or 1.0
                todo.append(one.args[0])
            elif one.op in PASSES and len(one.inputs) == 1:
                number = -number if one.op in ("neg", "negative") else number
                todo.append(one.inputs[0])
            elif (chosen := self.choice(one)) is not None:  # where(done, 0, discount * value)
                value, bits = chosen
                masked, at = True, one.site
                known &= bits is not None
                keep = bits if keep is None or bits is None or keep.size != bits.size else keep & bits
                todo.append(value)
            else:
                outputs.append(one)
        size = abs(number) * tops
        if len(outputs) != 1 or not (size == 0 or 0.8 <= size <= 1) or (size == 1 and not masked):
            return None
        count = int(np.prod(node.shape)) if node.shape else 1
        hit = Bootstrap(node, site or node.site, at or site or node.site, number * tops, count, None, masked, unclear)  # type: ignore[arg-type]
        hit.known = known
        hit.keep = np.zeros(1, dtype=bool) if number == 0 else keep
        hit.networks = outputs
        return hit

    def choice(self, one: Node) -> tuple[Node, Any] | None:
        """A `where` or `masked_fill` between a discounted value and what no network has made: the value, and where it
        was chosen (None if that was not seen)."""
        if one.op not in ("where", "masked_fill") or len(one.args) < 3:
            return None
        first, second = one.args[1:3] if one.op == "where" else (one.args[2], one.args[0])
        if self.laden(first) == self.laden(second):
            return None
        value, chosen = (first if self.laden(first) else second), one.tag("chosen")
        inner = value
        while inner.op in PASSES and len(inner.inputs) == 1:
            inner = inner.inputs[0]
        if inner.op not in MULS:
            return None  # the value itself: `descend` meets it
        return value, None if chosen is None else chosen if value is first else ~chosen

    def descend(self, hit: Bootstrap) -> None:
        """From the value down to the networks that made it, noting what may have switched it off on the way."""
        networks: list[Node] = []
        hit.inner = hit.networks[0].site
        todo = list(hit.networks)
        seen: set[int] = set()
        if hit.depth > 1:
            hit.stored, hit.whole, hit.networks = True, False, []
            return
        while todo and len(seen) < 2000:
            one = todo.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            if one.op in ADDS and self.matched.get(id(one), (one, None))[1] is not None:
                hit.nested = True
            if one.op == "compiled" or any(other.param is not None for other in one.inputs):
                networks.append(one)
                continue
            if one.op in SIDE:
                continue
            inputs = [other for other in one.inputs if self.laden(other)]
            free = [other for other in one.inputs if not self.laden(other)]
            if one.op in PLACES:
                self.placed(hit, one)
            elif one.op in LISTS and type(one.args[0] if one.args else None) is tuple and len(one.args[0]) > 1:
                self.listed(hit, one)
            elif one.op == "getitem" or one.op == "index_select":
                before = one.inputs[0].shape if one.inputs else ()
                if one.shape[:1] != before[:1]:
                    hit.whole = False
                    hit.stored = True
                if free:
                    hit.unclear = True
            elif one.op not in PASSES and one.op not in PICKS and free:
                if any(other.shape not in ((), (1,)) for other in free):
                    hit.unclear = True
                if one.op in MULS:
                    hit.masked = hit.masked or any(other.shape not in ((), (1,)) for other in free)
            elif one.op in MULS and any(other is None for other in one.args):
                hit.unclear = hit.masked = True
            if hit.stored:
                networks = []
                break
            todo += inputs
        hit.networks = networks
        if not networks and not hit.stored:
            hit.unclear = True
        hit.rows = None if hit.stored else self.rows(hit)

    def placed(self, hit: Bootstrap, one: Node) -> None:
        """where, masked_fill, and assignments: a constant in place of the value switches it off."""
        chosen = one.tag("chosen")
        if one.op == "where":
            a, b = (*one.args[1:3], None, None)[:2]
            both = self.laden(a) and self.laden(b)
            keep = None if chosen is None or both else chosen if self.laden(a) else ~chosen
            hit.unclear |= both
        elif one.op in ("setitem", "index_put_", "index_put"):
            value = one.args[1] if len(one.args) == 2 else one.args[2] if len(one.args) > 2 else None
            if self.laden(value) and chosen is None:
                hit.whole, hit.stored = False, True  # put away by its number
                return
            if isinstance(value, Node) and not self.laden(value) and chosen is None:
                hit.whole, hit.unclear = False, True
                return
            if self.laden(value) and self.laden(one.args[0]):
                hit.whole, hit.unclear = False, True  # one value in place of another: nothing is switched off
                return
            keep = None if chosen is None else chosen if self.laden(value) else ~chosen
            hit.whole &= not self.laden(value)
        else:
            keep = None if chosen is None else ~chosen
        hit.masked, hit.at = True, one.site or hit.at
        if keep is None:
            hit.known = False
        else:
            hit.keep = keep if hit.keep is None or hit.keep.size != keep.size else hit.keep & keep

    def above(self, node: Node) -> None:
        """A choice between a target that bootstraps and one that does not: where(done, r, r + gamma * v)."""
        for i, one in enumerate(node.args):
            while isinstance(one, Node) and one.op in PASSES and len(one.inputs) == 1 and id(one) not in self.matched:
                one = one.inputs[0]
            hit = self.matched.get(id(one), (None, None))[1] if isinstance(one, Node) else None
            if hit is None:
                continue
            keep: Any = None
            if node.op in MULS:
                other = node.args[1 - i] if i < 2 and len(node.args) > 1 else None
                if isinstance(other, (int, float)) or self.laden(other):
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

    def listed(self, hit: Bootstrap, one: Node) -> None:
        """A list of values, some of which may be bare numbers: those are switched off."""
        elements = one.args[0]
        laden = np.array([self.laden(other) for other in elements])
        hit.whole = False
        if laden.all():
            hit.stored = True
            return
        hit.masked, hit.at = True, one.site or hit.at
        if len(elements) == hit.size:
            hit.keep = laden if hit.keep is None or hit.keep.size != laden.size else hit.keep & laden
        else:
            hit.known = False

    def rows(self, hit: Bootstrap) -> bytes | None:
        """What became of the states that the value's network was given, one for each element."""
        todo = list(hit.networks)
        seen: set[int] = set()
        for one in todo:
            rows = one.tag("rows")
            if rows is not None and len(rows) == hit.size:
                return bytes(rows)
            if len(seen) > 400:
                break
            for other in one.inputs:
                if id(other) not in seen and self.laden(other):
                    seen.add(id(other))
                    todo.append(other)
        return None

    # --------------------------------------------------------------------------------------------------- counting

    def look_into(self, node: Node, groups: dict[int, Group]) -> None:
        """A list of targets: those that bootstrap, and those that are a bare reward."""
        hits: list[Group] = []
        bare = 0
        for one in node.args[0]:
            while isinstance(one, Node) and one.op in PASSES and len(one.inputs) == 1 and id(one) not in groups:
                one = one.inputs[0]
            if isinstance(one, Node) and id(one) in groups:
                hits.append(groups[id(one)])
            elif not self.laden(one) and one is not None:
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


class _Nothing:
    pass


_NOTHING = _Nothing()


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
    import ast

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
