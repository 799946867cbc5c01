"""What takes seconds before the first frame, and again when something is seen for the first time, is said in the log.

On a GPU kernels are compiled and tested, and work is recorded. Each of these gets one line before, so that nobody takes
the wait for a fault, and one after, with the time. Knows nothing of what is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["warming_up"]

_log = logging.getLogger(__name__)


@contextmanager
def warming_up(what: str) -> Iterator[None]:
    """Log the work inside as a warm-up, on level INFO; where it fails, whoever handles the error says so."""
    _log.info("warming up: %s", what)
    began = time.perf_counter()
    yield
    _log.info("warmed up: %s, in %.1f s", what, time.perf_counter() - began)
