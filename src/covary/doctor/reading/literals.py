"""Where in the source a number was written that reached a call."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Iterator

from covary.doctor.reading.captures import enclosing, line_of, parameters
from covary.doctor.sites import Site, tree

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def value_of(node: ast.AST | None) -> float | None:
    """The number that a constant expression is: `1e-3`, `2 // 1000`, `-1`, `float("1e-9")`."""
    if isinstance(node, ast.Constant):
        number = node.value
        return float(number) if isinstance(number, (int, float)) and not isinstance(number, bool) else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = value_of(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = value_of(node.left), value_of(node.right)
        if left is None or right is None or abs(right) > 1000:
            return None
        try:
            return float(_OPERATORS[type(node.op)](left, right))
        except (ArithmeticError, ValueError, TypeError):
            return None
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "float" and node.args:
        one = node.args[0]
        try:
            return (
                float(one.value) if isinstance(one, ast.Constant) and isinstance(one.value, (str, int, float)) else None
            )
        except ValueError:
            return None
    return None


def argument(site: Site, name: str, position: int) -> ast.expr | None:
    """What a call at a place was given, by name or by position."""
    for node in sorted(enclosing(site.file, site.line, (ast.Call,)), key=lambda one: _distance(one, site)):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg == name:
                    return keyword.value
            if len(node.args) > position and not any(isinstance(one, ast.Starred) for one in node.args):
                return node.args[position]
            return None
    return None


def _distance(node: ast.AST, site: Site) -> int:
    return abs(line_of(node) - site.line) * 1000 + abs(getattr(node, "col_offset", 0) - site.column)


def origin(site: Site, name: str, position: int, value: float) -> Site:
    """The line on which the number `value` stands that a call at `site` was given; the call's own if nobody knows."""
    if (inside := _inside(site, value)) is not None:
        return site.at(inside)
    given = argument(site, name, position)
    found = list(_trace(site.file, given, site.line, 0)) if given is not None else []
    exact = [line for line, number in found if number is not None and _same(number, value)]
    if exact:
        return site.at(exact[0])
    if not found or given is None:
        everywhere = {node.lineno for node in _numbers(site.file) if _same(value_of(node), value)}
        return site.at(everywhere.pop()) if len(everywhere) == 1 else site
    return site.at(min(found, key=lambda one: abs(one[1]) if one[1] is not None else math.inf)[0])


def _inside(site: Site, value: float) -> int | None:
    """The line of a number within the call itself, as in a list of parameter groups."""
    calls = sorted(enclosing(site.file, site.line, (ast.Call,)), key=lambda one: _distance(one, site))
    numbers = [node for node in ast.walk(calls[0]) if _same(value_of(node), value)] if calls else []
    lines = {node.lineno for node in numbers if isinstance(node, ast.expr)}
    return lines.pop() if len(lines) == 1 else None


def _same(one: float | None, other: float) -> bool:
    return one is not None and math.isclose(one, other, rel_tol=1e-6, abs_tol=0.0)


def _numbers(file: str) -> Iterator[ast.expr]:
    module = tree(file)
    for node in ast.walk(module) if module else ():
        if isinstance(node, ast.expr) and value_of(node) is not None:
            yield node


def _trace(file: str, node: ast.expr | None, line: int, depth: int) -> Iterator[tuple[int, float | None]]:
    """Lines on which an expression's value may have been written, and the number that stands there."""
    if node is None or depth > 6:
        return
    number = value_of(node)
    if number is not None:
        yield node.lineno, number
    elif isinstance(node, ast.Name):
        yield from _of_name(file, node.id, line, depth)
    elif isinstance(node, ast.Attribute):
        yield from _of_field(file, node.attr, depth)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        yield from _of_field(file, node.slice.value, depth)
    elif isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.FloorDiv):
            yield node.lineno, 0.0  # what it may have become here
        for one in (node.left, node.right):
            yield from _trace(file, one, line, depth + 1)
    elif isinstance(node, ast.Call):
        if ast.unparse(node.func) in ("int", "round", "math.floor"):
            yield node.lineno, 0.0
        first = node.args[0] if node.args else None
        if isinstance(node.func, ast.Attribute) and isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield from _of_field(file, first.value, depth)  # config.get("lr", 1e-3)
        for one in node.args:
            yield from _trace(file, one, line, depth + 1)
    elif isinstance(node, ast.IfExp):
        for one in (node.body, node.orelse):
            yield from _trace(file, one, line, depth + 1)
    elif isinstance(node, (ast.Tuple, ast.List)):
        for one in node.elts:
            yield from _trace(file, one, line, depth + 1)


def _of_name(file: str, name: str, line: int, depth: int) -> Iterator[tuple[int, float | None]]:
    module = tree(file)
    for function in enclosing(file, line, _FUNCTIONS):
        if isinstance(function, _FUNCTIONS) and name in parameters(function):
            if not isinstance(function, ast.Lambda):
                owner = next(iter(enclosing(file, function.lineno, (ast.ClassDef,))), None)
                is_init = function.name == "__init__" and isinstance(owner, ast.ClassDef)
                called = owner.name if is_init and isinstance(owner, ast.ClassDef) else function.name
                names = list(parameters(function))
                yield from _given(file, called, name, names.index(name) - (names[:1] == ["self"]), depth)
            yield from _trace(file, parameters(function)[name], line, depth + 1)
            return
    for node in ast.walk(module) if module else ():
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.For)):
            bound = node.targets if isinstance(node, ast.Assign) else [node.target]
            value = node.iter if isinstance(node, ast.For) else node.value
            for target in bound:
                if isinstance(target, ast.Name) and target.id == name:
                    yield from _trace(file, value, node.lineno, depth + 1)
                elif (
                    isinstance(target, ast.Tuple)
                    and isinstance(value, ast.Tuple)
                    and len(target.elts) == len(value.elts)
                ):
                    for one, given in zip(target.elts, value.elts, strict=True):
                        if isinstance(one, ast.Name) and one.id == name:
                            yield from _trace(file, given, node.lineno, depth + 1)
                elif isinstance(target, ast.Tuple) and any(
                    isinstance(one, ast.Name) and one.id == name for one in target.elts
                ):
                    yield from _trace(file, value, node.lineno, depth + 1)


def _given(file: str, called: str, name: str, position: int, depth: int) -> Iterator[tuple[int, float | None]]:
    """What calls of a function hand to one of its parameters."""
    module = tree(file)
    for node in ast.walk(module) if module else ():
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == called:
            for keyword in node.keywords:
                if keyword.arg == name:
                    yield from _trace(file, keyword.value, node.lineno, depth + 1)
            if 0 <= position < len(node.args):
                yield from _trace(file, node.args[position], node.lineno, depth + 1)


def _of_field(file: str, name: str, depth: int) -> Iterator[tuple[int, float | None]]:
    """Values of a field: of an object, a dataclass, a dictionary, an argument parser."""
    module = tree(file)
    for node in ast.walk(module) if module else ():
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if (isinstance(target, ast.Attribute) and target.attr == name) or (
                    isinstance(target, ast.Subscript)
                    and isinstance(target.slice, ast.Constant)
                    and target.slice.value == name
                ):
                    yield from _trace(file, node.value, node.lineno, depth + 1)
        if isinstance(node, ast.ClassDef):
            for one in node.body:
                if isinstance(one, (ast.AnnAssign, ast.Assign)):
                    bound = one.targets[0] if isinstance(one, ast.Assign) else one.target
                    if isinstance(bound, ast.Name) and bound.id == name:
                        yield from _trace(file, one.value, one.lineno, depth + 1)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name:
                    yield from _trace(file, value, value.lineno, depth + 1)
        elif isinstance(node, ast.Call):
            flags = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            if ast.unparse(node.func).endswith("add_argument") and any(
                flag.lstrip("-").replace("-", "_") == name for flag in flags
            ):
                for keyword in node.keywords:
                    if keyword.arg == "default":
                        yield from _trace(file, keyword.value, keyword.value.lineno, depth + 1)
            else:
                for keyword in node.keywords:
                    if keyword.arg == name:
                        yield from _trace(file, keyword.value, keyword.value.lineno, depth + 1)
