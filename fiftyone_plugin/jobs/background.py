"""A job in a thread, its progress as a stream: for callers that must keep answering while it works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

from fiftyone_plugin.jobs.progress import JobProgress

__all__ = ["stream"]

T = TypeVar("T")


def stream(
    job: Callable[[Callable[[JobProgress], None], Callable[[], bool]], T],
) -> Generator[JobProgress, None, T]:
    """Run a job in a thread and yield its progress as it comes; the job's result is the generator's return value.

    Closing the generator, or letting go of it, asks the job to stop.

    Args:
        job: Called with `on_progress` and `should_stop`, as `runner.track_dataset` takes them.

    Raises:
        Exception: Whatever the job raises.
    """
    messages: queue.Queue[JobProgress | None] = queue.Queue()
    stopped = threading.Event()
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(job(messages.put, stopped.is_set))
        except BaseException as error:
            failure.append(error)
        finally:
            messages.put(None)

    thread = threading.Thread(target=run, name="shepherd-job", daemon=True)
    thread.start()
    try:
        while (progress := messages.get()) is not None:
            # Only the newest is worth showing where the listener is slower than the job.
            while not messages.empty() and (newer := messages.queue[0]) is not None:
                progress = newer
                messages.get()
            yield progress
    finally:
        stopped.set()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
