"""Files in which the identity benchmark keeps what is expensive: plain values and arrays, safetensors, no pickle.

A file that is not there, or cannot be read, is made again. Knows nothing of what is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from fiftyone_plugin.exporters.atomic import write_atomically
from fiftyone_plugin.identity.camera import CameraPath
from fiftyone_plugin.pipeline.packing import pack, unpack
from fiftyone_plugin.pipeline.settle import Evidence
from fiftyone_plugin.types import Gallery, Rle, Source, Support, Track
from fiftyone_plugin.weights import BUNDLED_DIRECTORY

__all__ = ["fingerprint", "load", "save", "weights_fingerprint"]

_CLASSES = (CameraPath, Evidence, Gallery, Rle, Source, Support, Track)
_WEIGHT_FILES = ("*.safetensors", "*.json")


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that change with any of these plain values."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def weights_fingerprint(folders: Sequence[str] = ("grounding_dino", "sam2")) -> str:
    """The same for the contents of the bundled weights."""
    digest = hashlib.sha256()
    for folder in folders:
        for pattern in _WEIGHT_FILES:
            for path in sorted((BUNDLED_DIRECTORY / folder).glob(pattern)):
                digest.update(path.name.encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def save(path: Path, value: Any) -> None:
    """Write a value, whole or not at all; `pipeline.packing` says what it may be made of.

    Raises:
        OutputError: The file cannot be written.
    """
    plain, arrays = pack(value)
    write_atomically(path, safetensors.numpy.save(arrays, metadata={"plain": json.dumps(plain)}))


def load(path: Path) -> Any:
    """Read a value; None where there is none, or only a damaged one."""
    try:
        with safetensors.safe_open(str(path), framework="np") as stored:
            plain = json.loads(stored.metadata()["plain"])
            return unpack(plain, {name: stored.get_tensor(name) for name in stored.keys()}, classes=_CLASSES)  # noqa: SIM118
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
        return None
