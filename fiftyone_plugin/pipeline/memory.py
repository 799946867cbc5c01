"""How much memory this process has held at most, the number in reports and benchmarks; and how it is kept low.

Knows nothing of GPUs.
"""

from __future__ import annotations

import ctypes
import functools
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

__all__ = ["peak_memory_mb", "trim_memory", "trimmed"]

T = TypeVar("T")

_TRIM_FRAMES = 10
"""Frames after which a walk gives back what it has freed."""

_STATUS = Path("/proc/self/status")


def peak_memory_mb() -> float:
    """Highest resident memory of this process so far, MiB.

    From Linux's ``VmHWM``, since getrusage begins there, in a new process, with the memory of the one that started it.
    Elsewhere there is getrusage only.
    """
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, others KiB.
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def trim_memory() -> bool:
    """Give what is free in the heap back to the system, where the C library can (glibc); whether it could.

    What a walk keeps, a few kilobytes a frame, comes to lie between megabytes that every frame needs for a moment. The
    heap then has ever more holes that the next frame does not fit into, and grows by a fifth of a megabyte a frame.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
    return trim is not None


def trimmed(frames: Iterable[T]) -> Iterator[T]:
    """Hand the frames of a walk on, and give back what it has freed after every `_TRIM_FRAMES` of them."""
    for n, frame in enumerate(frames, start=1):
        yield frame
        if n % _TRIM_FRAMES == 0:
            trim_memory()


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library, such as musl
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim
