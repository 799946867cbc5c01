"""Every setting of `PropagationOptions` does what it says, and memory that runs out is answered by smaller groups."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from fiftyone_plugin.config import SPEED_PRESETS, PropagationOptions, speed_preset
from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.propagators import sam2, sam2_attention
from fiftyone_plugin.propagators.sam2 import Sam2Propagator, Sam2Session
from fiftyone_plugin.propagators.sam2_model import load_model
from fiftyone_plugin.registry import make_propagator
from fiftyone_plugin.types import Frame, Seed

SIZE = 64


def engine(**settings: Any) -> Sam2Propagator:
    model = load_model("bundled", device="cpu", used_by="test", image_size=SIZE)
    return Sam2Propagator(model, name="test", device="cpu", options=PropagationOptions(**settings))


def frame(index: int) -> Frame:
    image = np.full((48, 80, 3), 90, np.uint8)
    image[12:32, 10 + index : 30 + index] = (220, 200, 60)
    return Frame(index, index / 25, image)


def start(propagator: Sam2Propagator, tracks: Sequence[int]) -> Sam2Session:
    session = propagator.open(height_px=48, width_px=80)
    session.advance(frame(0))
    session.seed([Seed(t, box_xyxy=np.array([10 + t, 12, 30 + t, 32], np.float32)) for t in tracks])
    return session


class FullMemory:
    """Lets a batch of more than so many objects run out of memory, as a GPU would."""

    def __init__(self, propagator: Sam2Propagator, *, room: int) -> None:
        self.room = room
        self.batches: list[int] = []
        self._run = propagator.step.run
        propagator.step.run = self  # type: ignore[assignment, method-assign]

    def __call__(self, features: Any, memory: Any) -> Any:
        rows = len(memory.maps)
        self.batches.append(rows)
        if rows > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self._run(features, memory)


def test_full_memory_halves_the_group_says_so_and_changes_no_mask(caplog: pytest.LogCaptureFixture) -> None:
    expected = start(engine(), range(1, 8)).advance(frame(1))
    propagator = engine()
    session = start(propagator, range(1, 8))
    memory = FullMemory(propagator, room=2)
    with caplog.at_level(logging.WARNING):
        found = session.advance(frame(1))
    assert memory.batches == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert propagator.objects_per_batch == 1
    assert [r.getMessage() for r in caplog.records] == [
        "test: 7 objects at once do not fit the memory of cpu, going on with 3",
        "test: 3 objects at once do not fit the memory of cpu, going on with 1",
    ]
    assert found.track_ids.tolist() == expected.track_ids.tolist()
    np.testing.assert_allclose(found.object_scores, expected.object_scores, rtol=1e-3, atol=1e-3)
    assert np.mean(found.masks == expected.masks) > 0.999
    # What was learnt is kept: nothing is tried in vain again.
    memory.batches.clear()
    session.advance(frame(2))
    assert memory.batches == [1] * 7


def test_groups_hold_no_more_objects_than_they_may() -> None:
    propagator = engine(objects_per_batch=3)
    session = start(propagator, range(1, 8))
    memory = FullMemory(propagator, room=3)
    assert session.advance(frame(1)).track_ids.tolist() == list(range(1, 8))
    assert memory.batches == [3, 3, 1]


@pytest.mark.parametrize(("asked", "kept"), [(None, 6), (2, 2), (50, 6)])
def test_memory_length_is_how_many_maps_a_track_looks_back_at(asked: int | None, kept: int) -> None:
    session = start(engine(memory_frames=asked), [1])
    for index in range(1, 9):
        session.advance(frame(index))
    view = session.bank.read([1], 9, is_padded=False)
    # One more is the seed, whose age counts as 0.
    assert sorted(view.map_ages[0].tolist()) == list(range(kept + 1))


@pytest.mark.parametrize(("scale", "side"), [(0.25, 64), (0.5, 128), (1.5, 384)])
def test_input_scale_is_the_side_the_model_sees(scale: float, side: int) -> None:
    propagator = sam2.make("bundled", "cpu", PropagationOptions(image_scale=scale))
    session = start(propagator, [1])
    assert propagator.image_size == side
    assert propagator.bank_shape.tokens == (side // 16) ** 2
    answer = session.advance(frame(1))
    assert answer.masks.shape == (1, 48, 80)


def test_presets_differ_and_quality_is_sam_2_as_it_is() -> None:
    assert speed_preset("quality") == PropagationOptions()
    assert len(set(SPEED_PRESETS.values())) == len(SPEED_PRESETS) == 3
    with pytest.raises(OptionError, match="must be one of speed, balanced, quality"):
        speed_preset("fast")


def test_backend_without_a_setting_says_which() -> None:
    with pytest.raises(OptionError, match="has no memory_frames"):
        make_propagator("sam2-reference:bundled", device="cpu", options=PropagationOptions(memory_frames=2))


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", torch.float32), ("cpu", torch.bfloat16), ("cuda", torch.float32)]
)
def test_kernels_are_off_where_they_cannot_run(device: str, dtype: torch.dtype) -> None:
    assert not sam2_attention.has_kernels(device, dtype)


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine that says it has a GPU of the Ampere generation; returns what stands in for the kernels' module."""

    class Kernels:
        error: Exception | None = None

        def check(self, device: str, dtype: torch.dtype) -> None:
            if self.error is not None:
                raise self.error

    kernels = Kernels()
    real = sam2_attention.importlib.import_module
    monkeypatch.setattr(
        sam2_attention.importlib,
        "import_module",
        lambda name: kernels if name.endswith("sam2_kernels") else real(name),
    )
    monkeypatch.setattr(sam2_attention.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    sam2_attention.has_kernels.cache_clear()
    yield kernels
    sam2_attention.has_kernels.cache_clear()


def test_kernels_are_on_where_they_work_and_their_warm_up_is_announced_once(
    ampere: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert [sam2_attention.has_kernels("cuda", torch.bfloat16) for _ in range(2)] == [True, True]
    before, after = (r.getMessage() for r in caplog.records)
    assert before == "warming up: Triton kernels on cuda, compiled and compared with torch"
    assert re.fullmatch(r"warmed up: Triton kernels on cuda, compiled and compared with torch, in \d+\.\d s", after)


def test_kernels_are_off_on_an_older_gpu(ampere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert not sam2_attention.has_kernels("cuda", torch.float16)


def test_kernels_that_answer_wrongly_are_off_with_one_line(ampere: Any, caplog: pytest.LogCaptureFixture) -> None:
    ampere.error = RuntimeError("attend is off by 0.3 of what plain torch gives\nand more")
    with caplog.at_level(logging.WARNING):
        assert not sam2_attention.has_kernels("cuda", torch.bfloat16)
        assert not sam2_attention.has_kernels("cuda", torch.bfloat16)
    assert [r.getMessage() for r in caplog.records] == [
        "sam2: own kernels are off, torch's are used (attend is off by 0.3 of what plain torch gives)"
    ]
