"""What the user calls a parameter, found by looking at the live variables."""

from __future__ import annotations

import sys
from collections import deque
from types import FrameType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from covary.doctor.case import Case
from covary.doctor.sites import is_users, user_frame

_MOST = 20_000  # objects looked at


def collect(case: Case, frame: FrameType | None) -> None:
    """Names every parameter that the variables of `frame`, of those outside it and of the script lead to."""
    spaces: list[dict[str, Any]] = []
    main = sys.modules.get("__main__")
    spaces.append(dict(vars(main)) if main is not None else {})
    inner: list[dict[str, Any]] = []
    frame = user_frame(frame)
    while frame is not None:
        if frame.f_locals is not frame.f_globals:
            inner.append(dict(frame.f_locals))
        elif frame.f_globals is not vars(main):
            inner.append(dict(frame.f_globals))
        frame = user_frame(frame.f_back)
    spaces += reversed(inner)  # from the outermost: `agent.actor` before `self.actor`
    for space in spaces:
        _name(case, space)


def _name(case: Case, space: dict[str, Any]) -> None:
    queue: deque[tuple[str, Any, int]] = deque(
        (name, value, 0)
        for name, value in sorted(space.items(), key=lambda item: item[0] == "self")
        if not name.startswith("__")
    )
    seen: set[int] = set()
    while queue and len(seen) < _MOST:
        path, value, depth = queue.popleft()
        if id(value) in seen or isinstance(value, (str, bytes, int, float, np.ndarray, ModuleType, Optimizer, type)):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if (value.requires_grad and value.is_leaf) or isinstance(value, nn.Parameter):
                _give(case, path, value)
        elif isinstance(value, nn.Module):
            for name, parameter in value.named_parameters():
                _give(case, f"{path}.{name}", parameter)
            for name, module in value.named_modules():
                case.module_names.setdefault(id(module), f"{path}.{name}" if name else path)
            if depth < 4:  # what a module holds without having registered it
                registered = {*value._parameters, *value._modules, *value._buffers}
                queue.extend(
                    (f"{path}.{name}", one, depth + 1)
                    for name, one in vars(value).items()
                    if not name.startswith("_") and name not in registered
                )
        elif depth < 4:
            if isinstance(value, dict):
                if len(value) <= 256:
                    queue.extend((f"{path}[{key!r}]", one, depth + 1) for key, one in list(value.items()))
            elif isinstance(value, (list, tuple, set, frozenset)):
                if len(value) <= 256:
                    queue.extend((f"{path}[{i}]", one, depth + 1) for i, one in enumerate(list(value)))
            elif hasattr(value, "__dict__") and _is_users_object(value):
                queue.extend((f"{path}.{name}", one, depth + 1) for name, one in list(vars(value).items()))
            elif getattr(value, "__closure__", None):
                names = value.__code__.co_freevars
                cells = [(n, c) for n, c in zip(names, value.__closure__, strict=False)]
                for name, cell in cells:
                    try:
                        queue.append((name, cell.cell_contents, depth + 1))
                    except ValueError:
                        continue


def _is_users_object(value: Any) -> bool:
    module = sys.modules.get(type(value).__module__)
    file = getattr(module, "__file__", None)
    return type(value).__module__ in ("__main__", "types") or (file is not None and is_users(file))


def _give(case: Case, path: str, parameter: Tensor) -> None:
    key = case.trail.key(parameter)
    case.shapes.setdefault(key, tuple(parameter.shape))
    case.names.setdefault(key, path)
