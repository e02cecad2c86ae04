"""Modules as they are made, copied, and loaded into."""

from __future__ import annotations

import copy
import functools
import weakref
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from covary.doctor.case import Module
from covary.doctor.sites import stack

if TYPE_CHECKING:
    from covary.doctor.watching.patches import Patches
    from covary.doctor.watching.watch import Watch


class Modules:
    """Fills the case's modules."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.trail, self.case, self.mode = watch, watch.trail, watch.case, watch.mode

    def start(self, patches: Patches) -> None:
        patches.put(nn.Module, "__init__", self._module_made)
        patches.put(nn.Module, "load_state_dict", self._load_state_dict)
        patches.put(copy, "deepcopy", self.deepcopy)

    def _module_made(self, original: Any) -> Any:
        @functools.wraps(original)
        def __init__(module: Any, *args: Any, **kwargs: Any) -> None:
            original(module, *args, **kwargs)
            if self.trail.open and self.watch.mine() and len(self.case.modules) < 20_000:
                self.case.modules.append(Module(type(module).__name__, weakref.ref(module), stack(), self.trail.tick()))

        return __init__

    def deepcopy(self, original: Any) -> Any:
        @functools.wraps(original)
        def deepcopy(x: Any, memo: Any = None, *rest: Any) -> Any:
            result = original(x, memo, *rest)
            if memo is None and self.watch.mine():
                if self.trail.open:
                    self.watch.safely(self._copied, x, result)
                else:
                    self.watch.safely(self.watch.weights.copied_late, result)
            return result

        return deepcopy

    def _copied(self, x: Any, result: Any) -> None:
        event = self.watch.event("deepcopy", type(result).__name__, (self._keys_in(x), self._keys_in(result)))
        self.watch.weights.copied(event, result)
        if isinstance(result, nn.Module):
            for module in result.modules():
                self.case.modules.append(
                    Module(type(module).__name__, weakref.ref(module), stack(), self.trail.tick(), copied=True)
                )

    def _keys_in(self, x: Any) -> tuple[int, ...]:
        if isinstance(x, nn.Module):
            return tuple(self.watch.key(p) for p in x.parameters())
        if isinstance(x, dict):
            return tuple(self.watch.key(p) for p in x.values() if isinstance(p, Tensor))
        return ()

    def _load_state_dict(self, original: Any) -> Any:
        @functools.wraps(original)
        def load_state_dict(module: Any, *args: Any, **kwargs: Any) -> Any:
            if self.trail.open and self.watch.mine():
                self.watch.safely(self._loaded, module)
            return original(module, *args, **kwargs)

        return load_state_dict

    def _loaded(self, module: Any) -> None:
        self.watch.event("load_state_dict", self._keys_in(module)).stack = stack()
