"""Which line made a network, or holds on to it, as the source tells."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from covary.doctor.sites import Site, statement, tree
from covary.doctor.weights import first_own

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def enclosing(file: str, line: int, kinds: tuple[type, ...]) -> list[ast.AST]:
    """The nodes of some kinds that cover a line, the innermost first."""
    module = tree(file)
    found = [
        node
        for node in (ast.walk(module) if module else ())
        if isinstance(node, kinds) and node.lineno <= line <= (node.end_lineno or node.lineno)  # type: ignore[attr-defined]
    ]
    return sorted(found, key=lambda node: (node.end_lineno - node.lineno, -node.lineno))  # type: ignore[attr-defined]


def in_network(site: Site) -> bool:
    """Whether a place is inside of a class that defines a network: it has a forward."""
    return any(
        isinstance(one, ast.FunctionDef) and one.name in ("forward", "__call__")
        for node in enclosing(site.file, site.line, (ast.ClassDef,))[:1]
        if isinstance(node, ast.ClassDef)
        for one in node.body
    )


def making(made: tuple[Site, ...], other: tuple[Site, ...] = ()) -> Site | None:
    """The line that made a network: not its class's own lines, nor a helper's through which another one went too."""
    if not made:
        return None
    outside = [site for site in made if not in_network(site)] or list(made)
    shared = {site.place for site in other}
    own = [site for site in outside if site.place not in shared] or outside
    for site in own:
        if not isinstance(statement(site.file, site.line), ast.Return):
            return site
    return first_own(tuple(own), ())


def targets(site: Site) -> frozenset[str]:
    """What the statement at a place assigns to."""
    node = statement(site.file, site.line)
    if isinstance(node, ast.Assign):
        return frozenset(
            ast.unparse(one)
            for target in node.targets
            for one in (target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target])
        )
    return frozenset((ast.unparse(node.target),)) if isinstance(node, ast.AnnAssign) else frozenset()


def same_target(one: Site, other: Site) -> bool:
    """Whether two lines give a value to the same variable."""
    return bool(targets(one) & targets(other))


def attribute_line(kind: str, attribute: str, made: tuple[Site, ...]) -> Site | None:
    """The line of a network's class that assigns a plain list (or the like) to an attribute."""
    for site in made:
        classes = enclosing(site.file, site.line, (ast.ClassDef,))
        module = tree(site.file)
        named = (
            [one for one in ast.walk(module) if isinstance(one, ast.ClassDef) and one.name == kind] if module else []
        )
        for owner in (*classes, *named):
            lines = [
                node.lineno
                for node in ast.walk(owner)
                if isinstance(node, (ast.Assign, ast.AnnAssign))
                for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
                if isinstance(target, ast.Attribute) and target.attr == attribute
            ]
            if lines:
                return Site(site.file, lines[0], site.function)
    return made[0] if made else None


def callee(site: Site) -> str | None:
    """What is called at a place, as it is written: `self.q_target`."""
    found: ast.Call | None = None
    for node in enclosing(site.file, site.line, (ast.Call,)):
        if isinstance(node, ast.Call) and (node.lineno, node.col_offset) == (site.line, site.column):
            inner = found is None or (node.end_lineno or 0, node.end_col_offset or 0) < (
                found.end_lineno or 0,
                found.end_col_offset or 0,
            )
            found = node if inner else found
    return None if found is None else ast.unparse(found.func)


def parameters(function: Function) -> dict[str, ast.expr | None]:
    """A function's parameters and their defaults."""
    given = [*function.args.posonlyargs, *function.args.args]
    defaults: list[ast.expr | None] = [None] * (len(given) - len(function.args.defaults)) + list(function.args.defaults)
    found = {one.arg: default for one, default in zip(given, defaults, strict=True)}
    found.update(
        {one.arg: value for one, value in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)}
    )
    return found


def _binds(function: Function, name: str) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
        for node in ast.walk(function)
    )


def captured_at(sites: Iterable[Site], before: Site | None) -> Site | None:
    """Where a function was made that holds on to the network which it calls at one of these places."""
    for site in sites:
        name = callee(site)
        functions = [
            node for node in enclosing(site.file, site.line, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        ]  # fmt: skip
        if name is None or not name.isidentifier() or not functions:
            continue
        inner, outer = functions[0], functions[1:]
        own = parameters(inner)
        if name in own:
            default = own[name]
            if default is not None:
                return Site(site.file, default.lineno, site.function)
            if not isinstance(inner, ast.Lambda) and (found := _call_of(site.file, inner.name, before, partial=True)):
                return found
            continue
        if _binds(inner, name):
            continue
        for function in outer:
            if name in parameters(function) and not isinstance(function, ast.Lambda):
                if (found := _call_of(site.file, function.name, before)) is not None:
                    return found
            elif _binds(function, name):
                break
    return None


def _call_of(file: str, name: str, before: Site | None, partial: bool = False) -> Site | None:
    """The latest call of a function (or partial of it) above a line, else the first."""
    module = tree(file)
    lines = []
    for node in ast.walk(module) if module else ():
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        if partial:
            if called == "partial" and node.args and ast.unparse(node.args[0]).rpartition(".")[2] == name:
                lines.append(node.lineno)
        elif called == name:
            lines.append(node.lineno)
    above = [line for line in lines if before is None or line < before.line]
    return Site(file, max(above) if above else lines[0], name) if lines else None
