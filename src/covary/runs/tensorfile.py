"""The file of a checkpoint's tensors, in the format of safetensors, whose header is believed only once it adds up.

Eight bytes give the header's length; the header is JSON, name -> dtype, shape and span; then come the tensors' bytes.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from covary.runs import files
from covary.runs.files import Unreadable

MOST_BYTES = 2**32  # of a file: some 350 million parameters with Adam's two moments of each
MOST_HEADER = 2**20
MOST_TENSORS = 10_000
LARGE = 2**20  # bytes, from which a tensor is written from where it lies
ITEMSIZE = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "U32": 4, "I32": 4, "F32": 4}
ITEMSIZE |= {"U64": 8, "I64": 8, "F64": 8}

Arrays = dict[str, NDArray[Any]]
Buffer = bytes | memoryview


class Entry(NamedTuple):
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def to_pieces(arrays: Arrays) -> list[Buffer]:
    """The file in pieces, one after another: what is small together, and large tensors as they lie, without a copy.

    Raises Unreadable where `from_file` would refuse the outcome.
    """
    _check_finite(arrays)
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # so that each begins at its own alignment
    entries: dict[str, dict[str, Any]] = {}
    pieces: list[Buffer] = []
    small: list[Buffer] = []
    end = 0
    for name in order:
        array, begin = arrays[name], end
        end += array.nbytes
        entries[name] = {"dtype": _dtype(array), "shape": list(array.shape), "data_offsets": [begin, end]}
        flat = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).reshape(-1)
        small.append(flat.view(np.uint8).data)
        if array.nbytes >= LARGE:
            pieces += [b"".join(small[:-1]), small[-1]]
            small = []
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    size = 8 + len(text) + end
    if size > MOST_BYTES:
        raise Unreadable(f"{size:,} bytes, where at most {MOST_BYTES:,} are read")
    _header(text[:MOST_HEADER], size)
    first, *rest = [*pieces, b"".join(small)]
    return [b"".join([len(text).to_bytes(8, "little"), text, first]), *rest]


def _dtype(array: NDArray[Any]) -> str:
    kind = "BOOL" if array.dtype.kind == "b" else f"{array.dtype.kind.upper()}{8 * array.itemsize}"
    return kind if kind in ITEMSIZE else array.dtype.str  # which `_entry` refuses


def from_file(file: int, size: int) -> Arrays:
    """The tensors in an open file of `size` bytes, which stands at its start.

    Raises:
        Unreadable: a header that does not add up to the file, or tensors that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    start = files.read_from(file, min(size, 8))
    length = int.from_bytes(start, "little")
    if size < 8 or not 2 <= length <= min(size - 8, MOST_HEADER):
        raise Unreadable(f"a header of {length:,} bytes in a file of {size:,}")
    entries = _header(files.read_from(file, length), size)
    os.lseek(file, 0, os.SEEK_SET)
    try:
        arrays: Arrays = load(files.read_from(file, size))
    except (SafetensorError, ValueError, KeyError) as error:
        raise Unreadable(str(error)[:200]) from error
    if {name: array.shape for name, array in arrays.items()} != {name: e.shape for name, e in entries.items()}:
        raise Unreadable("tensors that are not those of its header")
    _check_finite(arrays)
    return arrays


def _header(text: bytes, size: int) -> dict[str, Entry]:
    """Raises Unreadable unless the spans of all tensors fill the rest of the file one after another."""
    if not text.startswith(b"{"):
        raise Unreadable("a header that is no JSON object")
    raw = files.parse_json(text)
    if len(raw) > MOST_TENSORS:
        raise Unreadable(f"{len(raw):,} tensors, where at most {MOST_TENSORS:,} are read")
    entries = {name: _entry(name, value) for name, value in raw.items()}
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.begin != position:
            raise Unreadable(f"{name[:80]!r} begins at {entry.begin}, and what is before it ends at {position}")
        position = entry.end
    if 8 + len(text) + position != size:
        raise Unreadable(f"tensors of {position:,} bytes in a file that holds {size - 8 - len(text):,}")
    return entries


def _entry(name: str, value: Any) -> Entry:
    """Raises Unreadable unless this is a known dtype, a shape, and a span of just as many bytes."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise Unreadable(f"{name[:80]!r} needs a dtype, a shape and data_offsets")
    dtype, shape, span = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEMSIZE:
        raise Unreadable(f"{name[:80]!r} has a dtype that is not known, {str(dtype)[:80]!r}")
    for what, numbers, most in (("shape", shape, 32), ("data_offsets", span, 2)):
        whole = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
        if not whole or len(numbers) > most:
            raise Unreadable(f"{name[:80]!r} has a {what} that is none, {str(numbers)[:80]}")
    if len(span) != 2 or span[1] - span[0] != math.prod(shape) * ITEMSIZE[dtype]:
        raise Unreadable(f"{name[:80]!r} of shape {str(shape)[:80]} does not take the bytes {span}")
    return Entry(dtype, tuple(shape), *span)


def not_finite(array: NDArray[Any]) -> Any:
    """The first number that is not; None where all are. Some at a time, since what is said of each takes room."""
    flat = array.reshape(-1)
    for block in (flat[k : k + LARGE] for k in range(0, len(flat), LARGE)) if array.dtype.kind == "f" else ():
        if not (finite := np.isfinite(block)).all():
            return block[~finite][0]
    return None


def _check_finite(arrays: Arrays) -> None:
    for name, array in arrays.items():
        if (number := not_finite(array)) is not None:
            raise Unreadable(f"{name[:80]!r} holds {number}")


__all__ = ["Arrays", "from_file", "not_finite", "to_pieces"]
