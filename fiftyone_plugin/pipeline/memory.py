"""How much memory this process has held at most: the number in reports and benchmarks. Knows nothing of GPUs."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["peak_memory_mb"]

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
