"""What a script does with the flags that an environment's `step` returns, read from its source.

A name is a flag if it is unpacked from an answer of step; what it becomes is followed through assignments, conversions
and the script's own functions. No name is taken at its word.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

from covary.doctor.reading.paths import words
from covary.doctor.sites import statement, tree

CONVERSIONS = words(
    "float int bool tensor as_tensor array asarray Tensor FloatTensor BoolTensor from_numpy float32 float64 "
    "logical_not bitwise_not stack vstack atleast_1d any bool_ int8 uint8 full_like list tuple enumerate zip"
)
METHODS = words(
    "float int bool astype to any item copy clone unsqueeze squeeze reshape view numpy cpu detach flatten ravel "
    "tolist long double type logical_not long all"
)
TELLING = words("print log info debug add_scalar warning write format set_postfix set_description")
ORS = words("logical_or bitwise_or maximum max any or_")
LEAVING = words("reset reset_ close")
Layout = tuple[int, int | None, int]


@dataclass
class Said:
    """What was read.

    merges: lines where termination and truncation become one flag, if that is used for more than ending a loop.
    clocks: lines where the flag is put together with something else that ends the episode (a count of steps, say).
    apart: truncation has a use of its own. alone: termination has one. stored: some flag is handed on or stored.
    guards: something is done to a transition, or not done, for what a flag says.
    """

    merges: list[int] = field(default_factory=list)
    clocks: list[int] = field(default_factory=list)
    apart: bool = False
    alone: bool = False
    stored: bool = False
    guards: bool = False
    branches: bool = False  # a branch on the flag that is both decides about a target
    bare: list[int] = field(default_factory=list)  # lines where truncation alone is handed on
    together: list[int] = field(default_factory=list)  # every line where the two become one, whatever it is used for


def read(file: str, layouts: dict[int, Layout], functions: dict[str, Layout], targets: frozenset[int]) -> Said:
    """Reads a file; targets: the lines on which it bootstraps."""
    module = tree(file)
    if module is None:
        return Said()
    return _Reader(module, layouts, functions, targets).said()


class _Reader:
    def __init__(
        self, module: ast.Module, layouts: dict[int, Layout], functions: dict[str, Layout], targets: frozenset[int]
    ) -> None:
        self.layouts = {5: (2, 3, 5), **layouts}
        self.functions, self.targets = functions, targets
        self.parents: dict[int, ast.AST] = {}
        self.nodes = list(ast.walk(module))
        for node in self.nodes:
            for child in ast.iter_child_nodes(node):
                self.parents[id(child)] = node
        self.functions_by_id = {id(one): one for one in self.nodes if isinstance(one, ast.FunctionDef)}
        self.locals: dict[int, set[str]] = {}
        self.defs: dict[str, list[ast.FunctionDef]] = {}
        for node in self.nodes:
            if isinstance(node, ast.FunctionDef):
                self.defs.setdefault(node.name, []).append(node)
                arguments = node.args
                for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                    self.locals.setdefault(id(node), set()).add(one.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.locals.setdefault(self.scope(node), set()).add(node.id)
        self.kinds: dict[tuple[int, str], set[str]] = {}
        self.answers: dict[tuple[int, str], Layout] = {}
        self.merged: dict[int, ast.expr] = {}
        self.timed: dict[int, ast.expr] = {}
        size = -1
        while size != (size := sum(len(one) for one in self.kinds.values()) + len(self.merged)):
            for node in self.nodes:
                self.follow(node)

    # ---------------------------------------------------------------------------------------------------- names

    def scope(self, node: ast.AST) -> int:
        parent = self.parents.get(id(node))
        while parent is not None and not isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
            parent = self.parents.get(id(parent))
        return id(parent) if parent is not None else 0

    def key(self, node: ast.AST, name: str) -> tuple[int, str]:
        scope = self.scope(node)
        while scope and name not in self.locals.get(scope, ()):
            scope = self.scope(self.functions_by_id[scope]) if scope in self.functions_by_id else 0
        return scope, name

    def give(self, target: ast.AST, kinds: set[str]) -> None:
        if not kinds:
            return
        if isinstance(target, ast.Name):
            self.kinds.setdefault(self.key(target, target.id), set()).update(kinds)
        elif isinstance(target, ast.Attribute):
            self.kinds.setdefault((-1, target.attr), set()).update(kinds)

    def answered(self, value: ast.AST, count: int | None) -> Layout | None:
        """Where the flags stand in what a call returns, if it is a step of an environment."""
        if not isinstance(value, ast.Call):
            return None
        name = (
            value.func.attr
            if isinstance(value.func, ast.Attribute)
            else value.func.id
            if isinstance(value.func, ast.Name)
            else ""
        )
        if isinstance(value.func, ast.Name) and name in self.functions:
            return self.functions[name]
        if name != "step":
            return None
        if count is None:
            return next(iter(sorted(self.layouts.values(), key=lambda one: one[1] is None)), None)
        return self.layouts.get(count)

    def follow(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self.assign(target, node.value)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            self.assign(node.target, node.value)
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitOr):
            self.give(node.target, self.kind(node.value))
        elif isinstance(node, (ast.For, ast.comprehension)):
            self.iterate(node.target, node.iter)
        elif isinstance(node, (ast.BoolOp, ast.BinOp)):
            self.kind(node)
        elif isinstance(node, ast.Call):
            self.kind(node)
            self.call(node)

    def assign(self, target: ast.AST, value: ast.expr) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts):
                for one, other in zip(target.elts, value.elts, strict=True):
                    self.assign(one, other)
                return
            starred = next((i for i, one in enumerate(target.elts) if isinstance(one, ast.Starred)), None)
            where = self.answered(value, None if starred is not None else len(target.elts))
            if isinstance(value, ast.Name):
                where = self.answers.get(self.key(value, value.id), where)
            if where is not None:
                for i, kind in ((where[0], "T"), (where[1], "U")):
                    if i is not None and i < (len(target.elts) if starred is None else starred):
                        self.give(target.elts[i], {kind})
            return
        where = self.answered(value, None)
        if where is not None and isinstance(target, ast.Name):
            self.answers[self.key(target, target.id)] = where
        self.give(target, self.kind(value))

    def iterate(self, target: ast.AST, over: ast.expr) -> None:
        if isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id == "enumerate" and over.args:
            if isinstance(target, ast.Tuple) and len(target.elts) == 2:
                self.iterate(target.elts[1], over.args[0])
        elif isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id == "zip":
            if isinstance(target, ast.Tuple) and len(target.elts) == len(over.args):
                for one, other in zip(target.elts, over.args, strict=True):
                    self.give(one, self.kind(other))
        else:
            self.give(target, self.kind(over))

    def call(self, node: ast.Call) -> None:
        """Flags that are handed to a function of the same file are its parameters."""
        function = self.called(node)
        if function is None:
            return
        names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
        if names and names[0] in ("self", "cls") and not isinstance(self.parents.get(id(function)), ast.Module):
            names = names[1:]
        for name, value in [*zip(names, node.args, strict=False), *((one.arg, one.value) for one in node.keywords)]:
            if name is not None and not isinstance(value, ast.Starred) and (kinds := self.kind(value)):
                self.kinds.setdefault((id(function), name), set()).update(kinds)

    def called(self, node: ast.Call) -> ast.FunctionDef | None:
        name = (
            node.func.attr
            if isinstance(node.func, ast.Attribute)
            else node.func.id
            if isinstance(node.func, ast.Name)
            else ""
        )
        functions = self.defs.get(name, [])
        if (
            len(functions) != 1
            or functions[0].args.vararg is not None
            or any(isinstance(one, ast.Starred) for one in node.args)
        ):
            return None
        return functions[0]

    # ---------------------------------------------------------------------------------------------- what a value is

    def kind(self, e: ast.AST) -> set[str]:
        """Which flags an expression is, whether negated or converted: T termination, U truncation, M both in one."""
        if isinstance(e, ast.Name):
            return self.kinds.get(self.key(e, e.id), set())
        if isinstance(e, ast.Attribute):
            return self.kinds.get((-1, e.attr), set())
        if isinstance(e, ast.Subscript):
            if isinstance(e.value, ast.Name) and isinstance(e.slice, ast.Constant):
                where = self.answers.get(self.key(e.value, e.value.id))
                if where is not None:
                    return {"T"} if e.slice.value == where[0] else {"U"} if e.slice.value == where[1] else set()
            return self.kind(e.value)
        if isinstance(e, ast.UnaryOp):
            return self.kind(e.operand)
        if isinstance(e, ast.BoolOp):
            return self.joined(e, e.values, isinstance(e.op, ast.Or))
        if isinstance(e, ast.BinOp):
            if isinstance(e.op, (ast.BitOr, ast.Add)):
                return self.joined(e, [e.left, e.right], True)
            if isinstance(e.op, (ast.BitAnd, ast.Mult)):
                return self.joined(e, [e.left, e.right], False)
            if isinstance(e.op, ast.Sub) and isinstance(e.left, ast.Constant):
                return self.kind(e.right)
            return set()
        if isinstance(e, ast.Compare):
            return self.kind(e.left) if isinstance(e.comparators[0], ast.Constant) else set()
        if isinstance(e, ast.IfExp):
            return self.kind(e.test) if _number(e.body) and _number(e.orelse) else set()
        if isinstance(e, (ast.List, ast.Tuple)) and len(e.elts) == 1:
            return self.kind(e.elts[0])
        if isinstance(e, ast.Call):
            name = (
                e.func.attr if isinstance(e.func, ast.Attribute) else e.func.id if isinstance(e.func, ast.Name) else ""
            )
            if name in ORS and e.args:
                parts = e.args[0].elts if len(e.args) == 1 and isinstance(e.args[0], (ast.List, ast.Tuple)) else e.args
                if len(parts) > 1:
                    return self.joined(e, list(parts), True)
            if name == "logical_and" and len(e.args) > 1:
                return self.joined(e, list(e.args), False)
            if name in METHODS and isinstance(e.func, ast.Attribute) and (kinds := self.kind(e.func.value)):
                return kinds
            if name in CONVERSIONS and e.args:
                return self.kind(e.args[0])
        return set()

    def joined(self, e: ast.expr, parts: list[ast.expr], either: bool) -> set[str]:
        """Several flags in one: a merge if any of them sets it."""
        kinds = [self.kind(one) for one in parts]
        union: set[str] = set().union(*kinds)
        negated = [_negated(one) for one, kind in zip(parts, kinds, strict=True) if kind]
        if not union or (any(negated) if either else not all(negated)):
            return set()
        if not either and not all(kinds):
            return set()
        if "M" in union or {"T", "U"} <= union:
            if "M" not in union:
                self.merged[id(e)] = e
            return {"M"}
        if (
            not all(kinds)
            and isinstance(e, (ast.BoolOp, ast.BinOp))
            and not isinstance(getattr(e, "op", None), ast.Add)
        ):
            self.timed[id(e)] = e
        return union if either else set()

    # --------------------------------------------------------------------------------------------- what it is for

    def use(self, node: ast.AST) -> str:
        """What becomes of a flag where it stands.

        "alias", another name; "control", of a loop; "told", printed; "value", stored, handed on or computed with;
        "target", it chooses between targets; "guard", it chooses what else is done with a transition.
        """
        one = node
        while (parent := self.parents.get(id(one))) is not None:
            if isinstance(
                parent, (ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Starred, ast.Attribute, ast.keyword, ast.List)
            ):
                pass
            elif isinstance(parent, ast.BinOp):
                if not self.kind(parent):
                    return "value"
            elif isinstance(parent, ast.Call):
                name = _called(parent)
                if name in TELLING:
                    return "told"
                if self.called(parent) is not None:
                    return "alias"
                if one is not parent.func and name not in CONVERSIONS | ORS | {"logical_and"}:
                    return "value"
                if one is parent.func and name not in METHODS:
                    return "value"
            elif isinstance(parent, ast.Subscript):
                if one is parent.slice:
                    return self.indexed(parent)
            elif isinstance(parent, ast.Tuple):
                over = self.parents.get(id(parent))
                if isinstance(over, ast.Assign):
                    return self.paired(parent, one, over.targets[0])
            elif isinstance(parent, ast.IfExp):
                if one is parent.test:
                    if any(_called(other) in LEAVING for other in ast.walk(parent)):
                        return "control"
                    if not (_number(parent.body) and _number(parent.orelse)):
                        return "target" if _bootstraps(parent.body) or _bootstraps(parent.orelse) else "guard"
            elif isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
                targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
                simple = all(isinstance(target, (ast.Name, ast.Attribute)) for target in targets)
                return "alias" if simple and parent.value is not None and self.kind(parent.value) else "value"
            elif isinstance(parent, (ast.While, ast.Assert, ast.comprehension)):
                return "control"
            elif isinstance(parent, ast.If):
                return self.branch(parent) if one is parent.test else "control"
            elif isinstance(parent, (ast.AugAssign, ast.JoinedStr, ast.FormattedValue, ast.Expr)):
                return "told"
            elif isinstance(parent, ast.For):
                return "alias" if self.kind(parent.iter) or _called(parent.iter) in ("zip", "enumerate") else "value"
            else:
                return "value"
            one = parent
        return "control"

    def paired(self, values: ast.Tuple, one: ast.AST, target: ast.AST) -> str:
        """a, b[i] = flag, flag: the first is another name of it, the second stores it."""
        if not isinstance(target, ast.Tuple) or len(target.elts) != len(values.elts):
            return "value"
        names = [other for other, value in zip(target.elts, values.elts, strict=True) if value is one]
        return "alias" if all(isinstance(other, (ast.Name, ast.Attribute)) for other in names) else "value"

    def indexed(self, parent: ast.Subscript) -> str:
        above = self.parents.get(id(parent))
        return "control" if isinstance(parent.ctx, ast.Store) or isinstance(above, ast.Call) else "value"

    def branch(self, node: ast.If) -> str:
        """Whether an `if` on a flag decides about a target, or about a transition, or only about the episode."""
        inside = [one for part in (*node.body, *node.orelse) for one in ast.walk(part)]
        if any(_called(one) in ("backward", "reset", "step") for one in inside):
            return "control"
        lines = {
            line
            for part in (*node.body, *node.orelse)
            for line in range(part.lineno, (part.end_lineno or part.lineno) + 1)
        }
        if lines & self.targets:
            return "target"
        if any(
            isinstance(one, ast.Assign) and isinstance(one.value, ast.Constant) and one.value.value is None
            for one in inside
        ):
            return "target"
        names = [_stored(node.body), _stored(node.orelse)]
        if names[0] & names[1]:
            return "target" if any(_bootstraps(one) for one in inside if isinstance(one, ast.expr)) else "guard"
        calls = [one for one in inside if isinstance(one, ast.Call) and _called(one) not in TELLING]
        if calls and (_negated(node.test) or node.orelse):
            return "guard"
        return "control"

    def said(self) -> Said:
        said = Said()
        uses: dict[str, list[tuple[ast.AST, str]]] = {"T": [], "U": [], "M": []}
        for node in self.nodes:
            if not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) or not isinstance(node.ctx, ast.Load):
                continue
            if isinstance(node, ast.Subscript) and not (
                isinstance(node.value, ast.Name) and self.key(node.value, node.value.id) in self.answers
            ):
                continue
            kinds = self.kind(node)
            if not kinds or (self.in_merge(node) and "M" not in kinds):
                continue
            for kind in kinds:
                uses[kind].append((node, self.use(node)))
        for merge in self.merged.values():
            uses["M"].append((merge, self.use(merge)))
        wanted = [node for node, use in uses["M"] if use in ("value", "guard", "target")]
        said.branches = any(use == "target" for _, use in uses["M"])
        if wanted:
            flowing = [one for one in self.merged.values() if self.use(one) not in ("control", "told")]
            said.merges = sorted(
                one.lineno for one in flowing if self.use(one) != "alias" or self.alias_is_wanted(one, wanted)
            )
        said.together = sorted(one.lineno for one in self.merged.values())
        said.clocks = sorted(one.lineno for one in self.timed.values() if self.use(one) in ("alias", "value"))
        decides = ("value", "guard", "target")
        said.apart = bool(uses["T"] or self.merged) and any(
            use in decides or (use == "control" and not self.plain(node)) for node, use in uses["U"]
        )
        said.bare = sorted(node.lineno for node, use in uses["U"] if use == "value")  # type: ignore[attr-defined]
        said.alone = any(use in decides for _, use in uses["T"])
        said.stored = any(use == "value" for some in uses.values() for _, use in some)
        said.guards = any(use in ("guard", "target") for some in uses.values() for _, use in some)
        return said

    def in_merge(self, node: ast.AST) -> bool:
        one: ast.AST | None = node
        while one is not None and not isinstance(one, ast.stmt):
            if id(one) in self.merged:
                return True
            one = self.parents.get(id(one))
        return False

    def alias_is_wanted(self, merge: ast.expr, wanted: list[ast.AST]) -> bool:
        """Whether the name that a merge is given has a use beyond ending the loop."""
        above: ast.AST | None = merge
        while above is not None and not isinstance(above, (ast.stmt, ast.NamedExpr)):
            above = self.parents.get(id(above))
        targets = above.targets if isinstance(above, ast.Assign) else [getattr(above, "target", None)]
        keys: set[tuple[int, str]] = set()
        for target in targets:
            for one in ast.walk(target) if target is not None else ():
                if isinstance(one, ast.Name):
                    keys.add(self.key(one, one.id))
                elif isinstance(one, ast.Attribute):
                    keys.add((-1, one.attr))
        if not keys:
            return True  # an argument of one of the script's own functions
        while len(keys) != len(keys := keys | self.named_from(keys)):
            pass
        return any(self.name_of(other) in keys for one in wanted for other in ast.walk(one))

    def named_from(self, keys: set[tuple[int, str]]) -> set[tuple[int, str]]:
        """The names that are given the value of one of these."""
        found: set[tuple[int, str]] = set()
        for node in self.nodes:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and self.kind(node.value):
                if any(self.name_of(one) in keys for one in ast.walk(node.value)):
                    found |= {name for one in ast.walk(node.targets[0]) if (name := self.name_of(one)) is not None}
            elif isinstance(node, ast.Call) and (function := self.called(node)) is not None:
                names = [one.arg for one in function.args.args]
                names = names[1:] if names[:1] == ["self"] else names
                for argument, value in zip(names, node.args, strict=False):
                    if any(self.name_of(one) in keys for one in ast.walk(value)):
                        found.add((id(function), argument))
        return found

    def name_of(self, node: ast.AST) -> tuple[int, str] | None:
        if isinstance(node, ast.Name):
            return self.key(node, node.id)
        return (-1, node.attr) if isinstance(node, ast.Attribute) else None

    def plain(self, node: ast.AST) -> bool:
        """A control that only ends the loop or tells of it."""
        one: ast.AST | None = node
        while one is not None and not isinstance(one, ast.stmt):
            one = self.parents.get(id(one))
        if not isinstance(one, ast.If):
            return True
        return all(
            isinstance(part, (ast.Break, ast.Continue, ast.Pass, ast.AugAssign))
            or any(_called(other) in LEAVING | TELLING for other in ast.walk(part))
            for part in one.body
        )


def misnamed(file: str, line: int) -> int | None:
    """The line on which a flag as it is was given the name of its opposite (`not_done = done`), a factor on `line`.

    Names decide nothing here but which of two lines is named, where a flag and its opposite were mixed up for certain.
    """
    module, target = tree(file), statement(file, line)
    if module is None or target is None:
        return None
    names = {name for node in ast.walk(target) if (name := _name(node))}
    for loop in ast.walk(module):  # for r, m in zip(rewards, masks)
        if isinstance(loop, (ast.For, ast.comprehension)) and {_name(one) for one in ast.walk(loop.target)} & names:
            names |= {name for one in ast.walk(loop.iter) if (name := _name(one))}
    names = {name for name in names if _OPPOSITE.search(name)}
    if any(_negated(node) and {_name(one) for one in ast.walk(node)} & names for node in ast.walk(target)):
        return None
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _called(node) == "append" and len(node.args) == 1:
            given, value = getattr(node.func, "value", node.func), node.args[0]
        elif isinstance(node, ast.Assign) and node is not target:
            given, value = node.targets[0], node.value
            given = given.value if isinstance(given, ast.Subscript) else given
        else:
            continue
        parts = list(ast.walk(value))
        turned = any(_negated(one) or isinstance(one, ast.IfExp) for one in parts)
        flag = any(_FLAG.search(name) and not _OPPOSITE.search(name) for one in parts if (name := _name(one)))
        if _name(given) in names and flag and not turned:
            return node.lineno
    return None


_OPPOSITE = re.compile(r"not_?done|non_?term|not_?term|mask|alive|cont\b|continu|nonterminal", re.IGNORECASE)
_FLAG = re.compile(r"done|term|over|end|dead|flag", re.IGNORECASE)


def _name(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def _stored(body: list[ast.stmt]) -> set[str]:
    nodes = [one for part in body for one in ast.walk(part)]
    return {one.id for one in nodes if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return (
        node.func.attr
        if isinstance(node.func, ast.Attribute)
        else node.func.id
        if isinstance(node.func, ast.Name)
        else ""
    )


def _number(node: ast.AST) -> bool:
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float))


def _negated(node: ast.AST) -> bool:
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, (ast.Not, ast.Invert))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        return isinstance(node.left, ast.Constant)
    return _called(node) in ("logical_not", "bitwise_not")


def _bootstraps(node: ast.AST) -> bool:
    """Whether an expression is nothing, which stands for the value of what comes after an end."""
    return isinstance(node, ast.Constant) and (
        node.value is None or (node.value == 0 and not isinstance(node.value, bool))
    )
