"""Which line made a network, or holds on to it, as the source tells."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable

from covary.doctor.sites import Site, first_own, statement, tree

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def line_of(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))


def enclosing(file: str, line: int, kinds: tuple[type, ...]) -> list[ast.AST]:
    """The nodes of some kinds that cover a line, the innermost first."""
    module = tree(file)
    found = [
        node
        for node in (ast.walk(module) if module else ())
        if isinstance(node, kinds) and line_of(node) <= line <= (getattr(node, "end_lineno", None) or line_of(node))
    ]
    return sorted(found, key=lambda node: (getattr(node, "end_lineno", 0) - line_of(node), -line_of(node)))


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


def attribute_line(kind: str, attribute: str, made: tuple[Site, ...], files: Iterable[str]) -> Site | None:
    """The line of a network's class that assigns a plain list (or the like) to an attribute."""
    for site in (*made, *(Site(file, 0, "") for file in files)):
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


# ------------------------------------------------------------------------------------------ two names of one network


def _resolved(site: Site, name: str, depth: int = 0) -> list[tuple[str, int]]:
    """What a name stands for, and the line: of a function's parameter, what the calls of the function hand to it."""
    functions = enclosing(site.file, site.line, (ast.FunctionDef, ast.AsyncFunctionDef))
    if depth > 3 or not name.isidentifier() or not functions:
        return [(name, site.line)]
    function = functions[0]
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) or name not in parameters(function):
        return [(name, site.line)]
    position = list(parameters(function)).index(name)
    found = []
    for node in _calls(site.file, function.name):
        given = next((one.value for one in node.keywords if one.arg == name), None)
        if given is None and position < len(node.args):
            given = node.args[position]
        if given is not None:
            found += _resolved(Site(site.file, node.lineno, "", node.col_offset), ast.unparse(given), depth + 1)
    return found or [(name, site.line)]


def _calls(file: str, name: str) -> list[ast.Call]:
    module = tree(file)
    return [
        node
        for node in (ast.walk(module) if module else ())
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name
    ]


def called_at(file: str, name: str) -> list[int]:
    """The lines that call a function of some name."""
    return sorted(node.lineno for node in _calls(file, name))


def function_at(file: str, line: int) -> str:
    """The name of the function around a line; "<module>" outside of any."""
    found = enclosing(file, line, (ast.FunctionDef, ast.AsyncFunctionDef))
    return str(getattr(found[0], "name", "")) if found else "<module>"


def alias(prediction: Site, target: Site) -> Site | None:
    """The line that made one of what is called at two places; None where both are one name, or one is a shorthand."""
    first, second = callee(prediction), callee(target)
    if first is None or second is None or first == second or prediction.file != target.file:
        return None
    file = prediction.file
    for one, line in _resolved(prediction, first):
        for other, its_line in _resolved(target, second):
            if one == other:
                if line == its_line and (one, other) != (first, second):
                    return Site(file, line, "")  # handed over twice in one call
                continue
            if _base(one) != _base(other) or _is_loop_variable(file, one) or _is_loop_variable(file, other):
                continue
            found = _binding(file, one, other) or _binding(file, other, one)
            if found is not None:
                return Site(file, found, "")
    return None


def aliased(site: Site) -> Site | None:
    """The line that made two names of one network, both of which a line that copies parameters, or its loop, uses."""
    around: list[ast.AST] = [found] if (found := statement(site.file, site.line)) is not None else []
    around += [node.iter for node in enclosing(site.file, site.line, (ast.For,)) if isinstance(node, ast.For)]
    names = {
        ast.unparse(one): one
        for node in around
        for one in ast.walk(node)
        if isinstance(one, (ast.Name, ast.Attribute)) and isinstance(one.ctx, ast.Load)
    }
    meant = {name for text in names for name, _ in _resolved(site, text)}
    for one in sorted(meant):
        for other in sorted(meant - {one}):
            if _base(one) == _base(other) and (line := _binding(site.file, one, other)) is not None:
                return Site(site.file, line, "")
    return None


def _base(name: str) -> str:
    return name.rpartition(".")[0]


def _is_loop_variable(file: str, name: str) -> bool:
    module = tree(file)
    return any(
        isinstance(one, ast.Name) and one.id == name
        for node in (ast.walk(module) if module else ())
        if isinstance(node, (ast.For, ast.comprehension))
        for one in ast.walk(node.target)
    )


def _binding(file: str, name: str, other: str) -> int | None:
    """The line of `other = name`, of `other = … = Network()` with both names, or of `other = some(…name…)`."""
    module = tree(file)
    weak = None
    for node in ast.walk(module) if module else ():
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        bound = node.targets if isinstance(node, ast.Assign) else [node.target]
        pairs = [(ast.unparse(target), node.value) for target in bound]
        for target in bound:
            if (
                isinstance(target, ast.Tuple)
                and isinstance(node.value, ast.Tuple)
                and len(target.elts) == len(node.value.elts)
            ):
                pairs += [(ast.unparse(a), b) for a, b in zip(target.elts, node.value.elts, strict=True)]
        texts = [text for text, _ in pairs]
        if name in texts and other in texts and len(bound) > 1:
            return node.lineno
        for text, value in pairs:
            if text != other:
                continue
            if ast.unparse(value) == name:
                return value.lineno
            if isinstance(value, ast.Name) and (given := _twice(file, node, value.id, name)) is not None:
                return given
            if isinstance(value, ast.Call) and name in [
                ast.unparse(one) for one in ast.walk(value) if isinstance(one, ast.expr)
            ]:
                weak = value.lineno
    return weak


def _twice(file: str, node: ast.AST, parameter: str, name: str) -> int | None:
    """Where a constructor was handed the same network for two of its parameters."""
    for owner in enclosing(file, line_of(node), (ast.ClassDef,))[:1]:
        for call in _calls(file, getattr(owner, "name", "")):
            given = Counter(ast.unparse(one) for one in (*call.args, *(keyword.value for keyword in call.keywords)))
            if any(count > 1 for count in given.values()):
                return call.lineno
    return None


# ---------------------------------------------------------------------------------------------- code that has not run


def written_name(node: ast.AST) -> str | None:
    """The last name of what a statement or call copies parameters into; "" where it copies into who knows what."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "load_state_dict":
            return ast.unparse(node.func.value).rpartition(".")[2]
        if node.func.attr in ("copy_", "lerp_", "_foreach_lerp_", "_foreach_copy_", "vector_to_parameters"):
            return ""
        if node.func.attr == "deepcopy":
            return ""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("deepcopy", "vector_to_parameters")
    ):
        return ""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Attribute) and target.attr == "data":
                return ""
    return None


def is_called(file: str, line: int) -> bool:
    """Whether the function around a line is ever named elsewhere, so that it may yet run; true outside of functions."""
    module = tree(file)
    functions = enclosing(file, line, (ast.FunctionDef, ast.AsyncFunctionDef))
    if not functions:
        return True
    name = str(getattr(functions[0], "name", ""))
    if name.startswith("__"):
        return True
    return any(
        (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name)
        for node in (ast.walk(module) if module else ())
    )


def rebinding(after: Site | None, path: str) -> Site | None:
    """The last line below a place that gives a new value to the variable through which a parameter is named."""
    parts = path.split(".")
    module = tree(after.file) if after is not None else None
    found = []
    for node in ast.walk(module) if module else ():
        if isinstance(node, ast.Assign) and after is not None and node.lineno > after.line:
            texts = [ast.unparse(target) for target in node.targets]
            if any(text.rpartition(".")[2] in parts[:-1] for text in texts):
                found.append(node.lineno)
    return after.at(max(found)) if found and after is not None else None
