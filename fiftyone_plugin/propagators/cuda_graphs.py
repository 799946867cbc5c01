"""CUDA graphs: a function on tensors is recorded once for each set of shapes and from then on replayed as a whole.

A replay costs the CPU a few microseconds whatever the function does, so that the GPU no longer waits for Python. What
cannot be recorded runs as it is, after one line in the log. Knows nothing of models.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fiftyone_plugin.propagators.warm_up import warming_up

__all__ = ["GraphCache"]

_log = logging.getLogger(__name__)

TensorFunction = Callable[..., tuple[Tensor, ...]]

_WARM_UP_CALLS = 2
"""Before a recording: libraries pick their kernels and reserve their workspaces at the first calls."""

_MAX_DIFFERENCE = 0.02
"""Of the first replay from the last call of the warm-up, relative: they may pick other kernels, and no more."""


class GraphCache:
    """Makes functions replay their recordings.

    The results of a replay lie where those of the last one lay, so a caller copies what it keeps beyond the next call.
    Functions of one cache must not run at the same time: they share their working memory.
    """

    def __init__(self) -> None:
        self.is_enabled = True
        """False after a recording failed; everything then runs as it is."""
        self.seconds = 0.0
        """Spent on warm-up and recording so far."""
        self.recorded: list[str] = []
        """What was recorded: name, and shape of the longest input."""
        self._pool: Any = None

    def wrap(self, name: str, function: TensorFunction) -> TensorFunction:
        """A function that does the same, from recordings.

        Args:
            name: For the log.
            function: Takes and gives tensors on one GPU; its work depends on their shapes and types alone, and it
                never waits for the GPU.
        """
        recordings: dict[tuple[tuple[tuple[int, ...], torch.dtype], ...], _Recording] = {}

        def call(*inputs: Tensor) -> tuple[Tensor, ...]:
            if not self.is_enabled or not inputs[0].is_cuda:
                return function(*inputs)
            key = tuple((tuple(x.shape), x.dtype) for x in inputs)
            recording = recordings.get(key)
            if recording is None:
                recorded = self._record(name, function, inputs)
                if recorded is None:
                    return function(*inputs)
                recording = recordings[key] = recorded
            return recording.replay(inputs)

        return call

    def _record(self, name: str, function: TensorFunction, inputs: tuple[Tensor, ...]) -> _Recording | None:
        # Objects share the features of a frame, so not every input tells how many they are.
        telling = max(inputs, key=lambda x: (len(x), x.nelement()))
        called = f"{name} {'x'.join(str(n) for n in telling.shape)}"
        began = time.perf_counter()
        try:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            with warming_up(f"CUDA graph of {called}"):
                recording = _Recording(function, inputs, self._pool)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self.is_enabled = False
            reason = (str(error) or type(error).__name__).splitlines()[0]
            _log.warning("%s: CUDA graphs are off, everything runs step by step (%s)", name, reason)
            return None
        self.seconds += time.perf_counter() - began
        self.recorded.append(called)
        return recording


class _Recording:
    """One recorded function with the tensors that it reads and writes."""

    def __init__(self, function: TensorFunction, inputs: tuple[Tensor, ...], pool: Any) -> None:
        self._inputs = tuple(x.clone() for x in inputs)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP_CALLS):
                expected = function(*self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Other threads go on using the GPU meanwhile: only what this one does must be fit for a recording.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = function(*self._inputs)
        self._graph.replay()
        for found, wanted in zip(self._outputs, expected, strict=True):
            difference = (found.float() - wanted.float()).norm()
            if not difference <= _MAX_DIFFERENCE * (1 + wanted.float().norm()):
                raise RuntimeError(f"the replay is off by {float(difference):.3g}")

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outputs
