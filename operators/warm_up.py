"""Imports what the review panel needs before somebody opens it: half a second that nobody should wait for.

Asked for while the App loads its page, in a thread of its own; the panel works without it, only later.
"""

from __future__ import annotations

import importlib
import threading

__all__ = ["warm_up"]

_begun = threading.Event()


def warm_up() -> None:
    """Begin once in this process, and return at once."""
    if not _begun.is_set():
        _begun.set()
        threading.Thread(target=_import, name="shepherd-warm-up", daemon=True).start()


def _import() -> None:
    importlib.import_module(f"{__package__}.review_session")
