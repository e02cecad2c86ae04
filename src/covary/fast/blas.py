"""The product of large matrices, by the BLAS that PyTorch brings: what the process has loaded already, what follows
`torch.set_num_threads` (in a thread of one's own once torch was asked for it there), and as fast as a core can be.

Kernels call it by its address, under the name that every BLAS gives it (Dongarra et al. 1990, Level 3: SGEMM).
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import float32, int64, types
from numba.core import cgutils
from numba.extending import intrinsic

from covary.fast.cache import SHARE

_NAME = "covary.sgemm"
_LARGE = 128 * 128
"""Numbers in a weight from which on a call is worth its while: below it the loops of `dense` are as fast."""


def _found() -> int | None:
    """Where it lies in this process; None where PyTorch's library shows none."""
    import torch

    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"):
        if (folder / name).exists():
            try:
                return ctypes.cast(ctypes.CDLL(str(folder / name)).sgemm_, ctypes.c_void_p).value
            except (AttributeError, OSError):
                return None
    return None


ADDRESS = None if SHARE in os.environ else _found()  # a process that only compiles calls nothing
llvmlite.binding.add_symbol(_NAME, ADDRESS or 1)


def worth(inputs: int, outputs: int) -> bool:
    """Whether the products of a layer are to be made here. Sizes are 64-bit numbers of which a BLAS may read the first
    half, which is the lower one in this byte order alone; and a weight of one column looks like its transpose."""
    return ADDRESS is not None and sys.byteorder == "little" and inputs > 1 and inputs * outputs >= _LARGE


@intrinsic
def sgemm(
    context: Any,
    trans_a: Any,
    trans_b: Any,
    m: Any,
    n: Any,
    k: Any,
    a: Any,
    lda: Any,
    b: Any,
    ldb: Any,
    beta: Any,
    c: Any,
    ldc: Any,
) -> Any:
    """C <- op(A) op(B) + beta C, by columns as Fortran has it: (m, k) times (k, n). trans: the letter N or T; a, b and
    c: addresses."""
    pointer = ir.IntType(8).as_pointer()

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def to(value: Any) -> Any:
            return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

        *sizes, a, lda, b, ldb, beta, c, ldc = values
        one = to(ir.Constant(ir.FloatType(), 1.0))
        a, b, c = (builder.inttoptr(address, pointer) for address in (a, b, c))
        given = [*map(to, sizes), one, a, to(lda), b, to(ldb), to(beta), c, to(ldc)]
        kind = ir.FunctionType(ir.VoidType(), [pointer] * len(given))
        builder.call(cgutils.get_or_insert_function(builder.module, kind, _NAME), given)
        return context.get_dummy_value()

    return types.void(*[int64] * 9, float32, int64, int64), generate
