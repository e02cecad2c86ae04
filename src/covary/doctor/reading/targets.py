"""One target, reward + discount * masks * (value of the next state), as the trail shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from covary.doctor.case import Case
from covary.doctor.reading.paths import words
from covary.doctor.sites import Site
from covary.doctor.trail import Node
from covary.doctor.watching.mode import VIEWS

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


class Matcher:
    """Finds targets among sums; what it has looked at it remembers, since one target lies in another."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.matched: dict[int, tuple[Node, Bootstrap | None]] = {}
        self.depths: dict[int, tuple[Node, int]] = {}
        self.chains: dict[Site, tuple[bool, int]] = {}  # by place: whether anything can stop it, and how deep it goes

    def laden(self, one: Any) -> bool:
        return isinstance(one, Node) and bool(self.case.carried(one))

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


class _Nothing:
    pass


_NOTHING = _Nothing()
