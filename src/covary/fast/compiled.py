"""How a kernel is compiled: by Numba, once for each machine; what it made is kept on disk for the next command."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba
from numba import float32, float64, int64, types
from numba.core import cgutils
from numba.extending import intrinsic

from covary.fast.cache import SHARE, STAMP, folder

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

Vector, Matrix = float32[::1], float32[:, ::1]
Numbers, Table = float64[::1], float64[:, ::1]
Indices, Rows = int64[::1], int64[:, ::1]

# Sums may be taken in any order and products fused, as every BLAS does; NaN and infinity keep their meaning.
_MATHS = {"reassoc", "contract", "arcp", "nsz"}


_FOLDER = folder()
_SHARE = os.environ.get(SHARE, "").split()


def kernel(signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A function compiled for these types."""

    def compile_it(function: Callable[..., Any]) -> Any:
        if _elsewhere(function):
            return None
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(_FOLDER or "")
        try:  # _nrt: views count no references, and nothing else is allocated
            maths = {"fastmath": _MATHS, "error_model": "numpy", "nogil": True, "_nrt": False}
            made = numba.njit(cache=_FOLDER is not None, **maths, **options)(function)
        finally:
            numba.config.CACHE_DIR = before
        if not _load(made, signature):
            made.compile(signature)
        made.disable_compile()
        return made

    return compile_it


def _load(made: Any, signature: Any) -> bool:
    """Takes what is on the disk, if it is there. Numba would make its whole compiler ready before it looks: 0.3 s and
    40 MB that what is only loaded can do without."""
    context: Any = getattr(made, "targetctx", None)
    if _FOLDER is None or not (hasattr(context, "refresh") and hasattr(getattr(made, "_cache", None), "load_overload")):
        return False
    context.refresh = lambda: None
    try:
        kept = made._cache.load_overload(signature, context)
    except Exception:  # whatever unpickling a file raises that was cut short, by a power failure for instance
        made._cache.flush()
        return False
    finally:
        del context.refresh
    if kept is not None:
        made.add_overload(kept)
    return kept is not None


def _elsewhere(function: Callable[..., Any]) -> bool:
    """Whether this process was started to compile other rooms than this function's."""
    return bool(_SHARE) and function.__module__ not in _SHARE


def part(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """A function that kernels call. It is compiled once and called by its name in the process: Numba would copy it into
    each of its callers and optimise every copy, which is most of what compiling costs."""

    def compile_it(function: Callable[..., Any]) -> Any:
        name = f"{function.__module__}.{function.__name__}.{STAMP}"
        if _elsewhere(function):  # nobody will call it here
            llvmlite.binding.add_symbol(name, 1)
        else:
            made = kernel(signature, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
            (compiled,) = made.overloads.values()
            address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
            llvmlite.binding.add_symbol(name, address)
        arguments, result = signature.args, signature.return_type

        def call(context: Any, *given: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                kind = context.call_conv.get_function_type(result, arguments)
                callee = cgutils.get_or_insert_function(builder.module, kind, name)
                _, value = context.call_conv.call_function(builder, callee, result, arguments, values)
                return context.get_dummy_value() if result == types.void else value

            return result(*arguments), generate

        names = ["context", *inspect.signature(function).parameters]
        positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
        call.__signature__ = inspect.Signature([inspect.Parameter(n, positional) for n in names])  # type: ignore[attr-defined]
        return intrinsic(call)

    return compile_it
