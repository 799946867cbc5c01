"""Python values to JSON and arrays, and back exactly: how the state of a run is kept without pickle.

Types survive: a tuple comes back as a tuple, a mapping keeps its order and keys of any kind, a float its last bit.
Reading runs no code but the constructors of the classes that the caller names. Knows nothing of files.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["digest", "pack", "unpack"]

_KIND = "kind"


def pack(value: Any) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Split a value into a part that JSON can hold, and its arrays by name.

    Args:
        value: None, numbers, text, bytes, enums, NumPy arrays and scalars, and lists, tuples, sets, deques, mappings
            and data classes of these, as deep as you like.

    Raises:
        TypeError: There is something else in it.
    """
    arrays: dict[str, NDArray[Any]] = {}
    return _pack(value, arrays), arrays


def digest(value: Any) -> str:
    """A short text that differs where a value differs in anything that `pack` keeps.

    Raises:
        TypeError: There is something in it that `pack` cannot take.
    """
    plain, arrays = pack(value)
    found = blake2b(json.dumps(plain).encode(), digest_size=12)
    for array in arrays.values():
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def unpack(plain: Any, arrays: Mapping[str, NDArray[Any]], *, classes: tuple[type, ...] = ()) -> Any:
    """Put together what `pack` took apart; arrays are writable copies of their own.

    Args:
        plain: The first part.
        arrays: The second part.
        classes: Data classes and enums that may be in it.

    Raises:
        ValueError: It holds a class that was not named, or is no result of `pack`.
    """
    return _unpack(plain, arrays, {kind.__name__: kind for kind in classes})


def _pack(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    # Before the plain types, because a member of a StrEnum is a str.
    if isinstance(value, Enum):
        return {_KIND: "enum", "class": type(value).__name__, "value": value.value}
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, list):
        if _is_stackable(value):
            return _pack_array("stack", np.stack(value), arrays)
        return [_pack(item, arrays) for item in value]
    if isinstance(value, bytes):
        return _pack_array("bytes", np.frombuffer(value, np.uint8), arrays)
    if isinstance(value, np.generic):
        return _pack_array("scalar", np.asarray(value), arrays)
    if isinstance(value, np.ndarray):
        return _pack_array("array", value, arrays)
    if isinstance(value, tuple | set | frozenset):
        return {_KIND: type(value).__name__, "items": [_pack(item, arrays) for item in value]}
    if isinstance(value, deque):
        return {_KIND: "deque", "items": [_pack(item, arrays) for item in value], "size": value.maxlen}
    if isinstance(value, Mapping):
        pairs = [[_pack(key, arrays), _pack(item, arrays)] for key, item in value.items()]
        return {_KIND: "mapping", "items": pairs}
    if is_dataclass(value) and not isinstance(value, type):
        items = {f.name: _pack(getattr(value, f.name), arrays) for f in fields(value)}
        return {_KIND: "object", "class": type(value).__name__, "items": items}
    raise TypeError(f"{type(value).__name__}: cannot be kept in a checkpoint")


def _is_stackable(items: list[Any]) -> bool:
    """Many arrays of one shape are one array to a file, and so cost next to nothing."""
    if len(items) < 2 or not all(isinstance(item, np.ndarray) for item in items):
        return False
    return len({(item.dtype, item.shape) for item in items}) == 1


def _pack_array(kind: str, array: NDArray[Any], arrays: dict[str, NDArray[Any]]) -> dict[str, str]:
    if array.dtype.hasobject:
        raise TypeError(f"array of {array.dtype}: cannot be kept in a checkpoint")
    name = str(len(arrays))
    arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    return {_KIND: kind, "name": name}


def _unpack(plain: Any, arrays: Mapping[str, NDArray[Any]], classes: Mapping[str, type]) -> Any:
    if isinstance(plain, list):
        return [_unpack(item, arrays, classes) for item in plain]
    if not isinstance(plain, dict):
        return plain
    kind = plain[_KIND]
    if kind in ("array", "scalar", "bytes", "stack"):
        array = np.array(arrays[plain["name"]])
        if kind == "stack":
            return list(array)
        return array if kind == "array" else array.tobytes() if kind == "bytes" else array[()]
    if kind in ("enum", "object"):
        made = classes.get(plain["class"])
        if made is None:
            raise ValueError(f"class {plain['class']!r}: must be one of {', '.join(sorted(classes)) or '(none)'}")
        if kind == "enum":
            return made(plain["value"])
        return made(**{name: _unpack(item, arrays, classes) for name, item in plain["items"].items()})
    items = _unpack(plain["items"], arrays, classes)
    if kind == "mapping":
        return dict(items)
    if kind == "deque":
        return deque(items, plain["size"])
    try:
        return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](items)
    except KeyError:
        raise ValueError(f"kind {kind!r}: is none that `pack` makes") from None
