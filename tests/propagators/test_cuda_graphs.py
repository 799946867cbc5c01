"""Recordings without a GPU: a fake recorder stands in for CUDA's, so that everything around it is exercised."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import torch

from fiftyone_plugin.propagators import cuda_graphs
from fiftyone_plugin.propagators.cuda_graphs import GraphCache


class FakeGpuTensor(torch.Tensor):
    """Says that it lies on a GPU."""

    is_cuda = True


def on_gpu(*values: float) -> torch.Tensor:
    return torch.tensor(values).as_subclass(FakeGpuTensor)


class FakeRecording:
    """Replays by computing; counts how often it was made."""

    made = 0
    error: Exception | None = None

    def __init__(self, function: Any, inputs: Any, pool: Any) -> None:
        if FakeRecording.error is not None:
            raise FakeRecording.error
        FakeRecording.made += 1
        self._function = function

    def replay(self, inputs: Any) -> Any:
        return tuple(x + 100 for x in self._function(*inputs))


@pytest.fixture(autouse=True)
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRecording.made, FakeRecording.error = 0, None
    monkeypatch.setattr(cuda_graphs, "_Recording", FakeRecording)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))


def double(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (2 * x,)


def test_every_set_of_shapes_is_recorded_once() -> None:
    cache = GraphCache()
    call = cache.wrap("doubling", double)
    assert [call(on_gpu(1.0))[0].item(), call(on_gpu(2.0))[0].item()] == [102.0, 104.0]
    assert FakeRecording.made == 1
    assert call(on_gpu(1.0, 2.0))[0].tolist() == [102.0, 104.0]
    assert cache.recorded == ["doubling 1", "doubling 2"]
    assert cache.seconds > 0


def test_recording_is_announced_once_with_what_and_how_long(caplog: pytest.LogCaptureFixture) -> None:
    cache = GraphCache()
    call = cache.wrap("objects", lambda features, maps: (features + maps.sum(),))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            call(on_gpu(*range(9)).reshape(1, 9), on_gpu(1.0, 2.0))
    before, after = (r.getMessage() for r in caplog.records)
    # The frame is the first and largest input whatever the number of objects; the longest one tells them.
    assert before == "warming up: CUDA graph of objects 2"
    assert re.fullmatch(r"warmed up: CUDA graph of objects 2, in \d+\.\d s", after)


def test_tensors_on_the_cpu_are_not_recorded() -> None:
    assert GraphCache().wrap("doubling", double)(torch.ones(1))[0].item() == 2.0
    assert FakeRecording.made == 0


def test_failed_recording_turns_graphs_off_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    FakeRecording.error = RuntimeError("operation not permitted when stream is capturing\nmore")
    cache = GraphCache()
    call = cache.wrap("doubling", double)
    with caplog.at_level(logging.WARNING):
        assert [call(on_gpu(1.0))[0].item(), call(on_gpu(2.0))[0].item()] == [2.0, 4.0]
    assert not cache.is_enabled
    assert [r.getMessage() for r in caplog.records] == [
        "doubling: CUDA graphs are off, everything runs step by step (operation not permitted when stream is capturing)"
    ]


def test_full_memory_while_recording_is_left_to_the_caller() -> None:
    """The caller halves its batch; graphs stay on for the smaller one."""
    FakeRecording.error = torch.cuda.OutOfMemoryError("CUDA out of memory")
    cache = GraphCache()
    with pytest.raises(torch.cuda.OutOfMemoryError):
        cache.wrap("doubling", double)(on_gpu(1.0))
    assert cache.is_enabled
