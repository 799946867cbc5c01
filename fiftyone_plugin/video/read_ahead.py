"""Decoding ahead: run an iterator in a background thread, a few items ahead of whoever uses them.

Knows nothing of what the items are.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

__all__ = ["THREAD_NAME", "read_ahead"]

T = TypeVar("T")

THREAD_NAME = "shepherd-read-ahead"


class _End:
    """The last thing in the queue: why the iterator ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def read_ahead(items: Generator[T, None, None], *, capacity: int) -> Iterator[T]:
    """Yield the items of a generator that runs in its own thread.

    The thread starts with the first item asked for. When the returned iterator ends, is closed, or is forgotten, the
    generator is closed in its thread and the thread is joined, so that nothing the generator opened outlives it.

    Args:
        items: Used up by this call; its exceptions are raised again here.
        capacity: Items that may wait, 1 or more; besides these, one is in the making.
    """
    ready: queue.Queue[T | _End] = queue.Queue(capacity)
    is_abandoned = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                ready.put(item)
                if is_abandoned.is_set():
                    break
        except BaseException as caught:
            error = caught
        finally:
            items.close()
        if not is_abandoned.is_set():
            ready.put(_End(error))

    # A daemon: a user who interrupts the interpreter must not wait for a decoder.
    worker = threading.Thread(target=work, name=THREAD_NAME, daemon=True)
    worker.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        is_abandoned.set()
        # After this the worker puts at most one more item before it looks at the flag, so there is room for it.
        _drain(ready)
        worker.join()


def _drain(ready: queue.Queue[T]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            ready.get_nowait()
