"""Files in the safetensors format, read with numpy alone: so that what is wrong with one is named by tensor.

A file is the length of its header (8 bytes, little-endian), the header (JSON: dtype, shape and place of each tensor)
and the tensors, one behind the other.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}


class LoadError(ValueError):
    """A file of a checkpoint that is missing, damaged, not what the others say, or of a kind that is not read."""


class Stored(NamedTuple):
    """Where a tensor lies.

    Attributes:
        path: its file.
        dtype: as the format names it: F32, BF16, ...
        shape: its shape.
        start: of its first byte in the file.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object; LoadError if the file is missing or holds anything else."""
    if not path.is_file():
        raise LoadError(f"{path} is not there")
    return parse_object(path.read_bytes(), str(path))


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """A JSON object; LoadError says `where` there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{where}: broken JSON: {error}") from None
    if not isinstance(found, dict):
        raise LoadError(f"{where}: must be a JSON object, not {type(found).__name__}")
    return found


def read_header(path: Path) -> dict[str, Stored]:
    """Every tensor of a file by name; the file is known to hold all their bytes, and no others.

    Raises:
        LoadError: the file is missing, cut off, or contradicts itself.
    """
    if not path.is_file():
        raise LoadError(f"{path} is not there")
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        if first == b"version ":
            raise LoadError(f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
        length = int.from_bytes(first, "little")
        if size < 8 + length:
            raise LoadError(f"{path}: cut off within its header, or no safetensors file")
        header = parse_object(file.read(length), f"{path}, its header")
    header.pop("__metadata__", None)
    tensors, before = {}, 8 + length
    places = [place(path, name, entry, before) for name, entry in header.items()]
    for name, stored, end in sorted(places, key=lambda found: found[1].start):
        if end > size:
            raise LoadError(f"{path}: cut off: {name} ends at byte {end}, the file at {size}")
        if stored.start != before:
            raise LoadError(f"{path}: {name} begins at byte {stored.start}, what is before it ends at {before}")
        tensors[name], before = stored, end
    if size > before:
        raise LoadError(f"{path}: {size - before} bytes too many: its last tensor ends at byte {before}")
    return tensors


def place(path: Path, name: str, entry: Any, data: int) -> tuple[str, Stored, int]:
    """A tensor's name, where its entry in the header puts it, and the byte at which it ends; `data` is the first's."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise LoadError(f"{path}: {name}: its entry in the header needs dtype, shape and data_offsets") from None
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, begin, end)):
        raise LoadError(f"{path}: {name}: shape {list(shape)} and bytes {begin} to {end} must be whole numbers from 0")
    if dtype in DTYPES and end - begin != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise LoadError(f"{path}: {name}: {end - begin} bytes cannot be {dtype} of shape {list(shape)}")
    return name, Stored(path, dtype, shape, data + begin), data + end


def read_tensor(name: str, stored: Stored) -> np.ndarray:
    """A tensor's numbers in float32; LoadError if they are not floating-point ones of 16 bits or more."""
    if stored.dtype not in DTYPES:
        raise LoadError(f"{stored.path}: {name} is {stored.dtype} (quantised?): only {', '.join(DTYPES)} are read")
    dtype = np.dtype(DTYPES[stored.dtype])
    raw = np.fromfile(stored.path, np.uint8, math.prod(stored.shape) * dtype.itemsize, offset=stored.start)
    return raw.view(dtype).reshape(stored.shape).astype(np.float32, copy=False)
