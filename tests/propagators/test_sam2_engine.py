"""How the engine arranges its work: ahead of the caller, in groups, and with less when the GPU's memory is full.

The arrangement for GPUs is run on the CPU here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fiftyone_plugin.config import PropagationOptions
from fiftyone_plugin.propagators.sam2 import Sam2Propagator, Sam2Session
from fiftyone_plugin.propagators.sam2_image import ImageEncoder
from fiftyone_plugin.propagators.sam2_model import load_model
from fiftyone_plugin.types import Frame, Seed


@pytest.fixture
def propagator() -> Sam2Propagator:
    model = load_model("bundled", device="cpu", used_by="test", image_size=64)
    return Sam2Propagator(model, name="test", device="cpu")


def frame(index: int) -> Frame:
    image = np.full((48, 80, 3), 90, np.uint8)
    x = 10 + index % 40
    image[12:32, x : x + 20] = (220, 200, 60)
    return Frame(index, index / 25, image)


def seeds(*track_ids: int) -> list[Seed]:
    return [Seed(t, box_xyxy=np.array([10 + t, 12, 30 + t, 32], np.float32)) for t in track_ids]


def as_on_a_gpu(propagator: Sam2Propagator) -> Sam2Session:
    session = propagator.open(height_px=48, width_px=80)
    session._is_padded = session._runs_ahead = True
    return session


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, size_of: Any) -> list[int]:
    calls: list[int] = []
    original = getattr(owner, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(size_of(*args))
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)
    return calls


def test_frames_are_encoded_ahead_in_batches(propagator: Sam2Propagator, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = count_calls(monkeypatch, ImageEncoder, "encode", lambda _self, images: len(images))
    session = as_on_a_gpu(propagator)
    seen = []
    for each in session.feed(frame(i) for i in range(19)):
        seen.append(len(session.advance(each)))
        if each.index == 0:
            session.seed(seeds(1))
    assert seen == [0] + [1] * 18
    # The last batch of three is filled up: every batch has the shape that was recorded.
    assert encoded == [8, 8, 8]


def test_next_frame_is_begun_before_the_caller_asks(
    propagator: Sam2Propagator, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = count_calls(monkeypatch, Sam2Session, "_carry_batch", lambda _self, _features, tracks: len(tracks))
    session = as_on_a_gpu(propagator)
    frames = session.feed(frame(i) for i in range(8))
    session.advance(next(frames))
    session.seed(seeds(1, 2))
    session.advance(next(frames))
    # Frame 1 when it was asked for, frame 2 at once afterwards.
    assert carried == [2, 2]
    session.seed(seeds(3))
    assert session.advance(next(frames)).track_ids.tolist() == [1, 2, 3]
    # Only the newborn had to be carried to frame 2; then all three went on to frame 3.
    assert carried == [2, 2, 1, 3]
    session.forget([2])
    session.advance(next(frames))
    # Its memory had changed, so it alone was carried anew.
    assert carried == [2, 2, 1, 3, 1, 3]


def test_caller_that_stops_early_stops_the_source(propagator: Sam2Propagator) -> None:
    ended: list[bool] = []

    def source() -> Iterator[Frame]:
        try:
            yield from (frame(i) for i in range(100))
        finally:
            ended.append(True)

    session = as_on_a_gpu(propagator)
    frames = session.feed(source())
    session.advance(next(frames))
    frames.close()  # type: ignore[attr-defined]
    assert ended == [True]


def test_error_of_the_source_reaches_the_caller(propagator: Sam2Propagator) -> None:
    def source() -> Iterator[Frame]:
        yield from (frame(i) for i in range(10))
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(as_on_a_gpu(propagator).feed(source()))


def test_full_memory_halves_the_batch_and_says_so(
    propagator: Sam2Propagator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = propagator.step.run
    rows: list[int] = []

    def run_out(features: Any, memory: Any) -> Any:
        rows.append(len(memory.maps))
        if len(memory.maps) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run(features, memory)

    session = propagator.open(height_px=48, width_px=80)
    session.advance(frame(0))
    session.seed(seeds(1, 2, 3, 4, 5))
    expected = propagator.open(height_px=48, width_px=80)
    expected.advance(frame(0))
    expected.seed(seeds(1, 2, 3, 4, 5))
    whole = expected.advance(frame(1))
    monkeypatch.setattr(propagator.step, "run", run_out)
    with caplog.at_level(logging.WARNING):
        answer = session.advance(frame(1))
    assert answer.track_ids.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(answer.object_scores, whole.object_scores, rtol=1e-3, atol=1e-3)
    assert rows == [5, 2, 2, 1]
    assert [r.getMessage() for r in caplog.records] == [
        "test: 5 objects at once do not fit the memory of cpu, going on with 2"
    ]
    session.advance(frame(2))
    # It stays so: the next frame does not run into it again.
    assert rows[4:] == [2, 2, 1]


def test_single_object_that_does_not_fit_is_an_error(
    propagator: Sam2Propagator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_args: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    session = propagator.open(height_px=48, width_px=80)
    session.advance(frame(0))
    session.seed(seeds(1))
    monkeypatch.setattr(propagator.step, "run", run_out)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        session.advance(frame(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_engine_in_16_bits_sees_what_it_sees_in_float32(dtype: torch.dtype) -> None:
    """What GPUs compute in, and how they arrange it, on the CPU; every module that changes its type takes part."""
    masks = []
    for each in (torch.float32, dtype):
        model = load_model("bundled", device="cpu", used_by="test")
        session = as_on_a_gpu(Sam2Propagator(model, name="test", device="cpu", dtype=each))
        answers = []
        for at in session.feed(frame(i) for i in range(6)):
            answers.append(session.advance(at))
            if at.index == 0:
                session.seed(seeds(1))
            if at.index == 2:
                session.seed([Seed(2, mask=answers[-1].masks[0])])
        masks.append(np.concatenate([a.masks for a in answers[1:]]))
    union = (masks[0] | masks[1]).sum()
    assert union > 0
    assert (masks[0] & masks[1]).sum() / union > 0.9


def test_pointers_are_kept_as_they_are_and_maps_in_16_bits(propagator: Sam2Propagator) -> None:
    """As the official predictor does it; pointers in 16 bits made masks part that were close to parting."""
    session = propagator.open(height_px=48, width_px=80)
    session.advance(frame(0))
    session.seed(seeds(1))
    view = session.bank.read([1], 1, is_padded=False)
    assert view.maps.dtype == torch.bfloat16
    assert (view.pointers != view.pointers.bfloat16().float()).any()


def test_rows_that_pad_a_batch_hold_numbers(propagator: Sam2Propagator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded is compared with what was computed, padding included: nothing equals a number that is none."""
    run = propagator.step.run
    seen: list[int] = []

    def looked_at(features: Any, memory: Any) -> Any:
        prediction, maps = run(features, memory)
        seen.append(len(maps))
        for x in (prediction.mask_logits, prediction.mask_scores, prediction.object_logits, prediction.pointers, maps):
            assert torch.isfinite(x).all()
        return prediction, maps

    monkeypatch.setattr(propagator.step, "run", looked_at)
    session = as_on_a_gpu(propagator)
    session.advance(frame(0))
    session.seed(seeds(1, 2, 3))
    assert len(session.advance(frame(1))) == 3
    assert seen == [4]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("dtype", "graphs", "kernels"),
    [
        pytest.param(torch.float32, False, False, id="float32, step by step"),
        pytest.param(torch.float32, True, False, id="float32, recorded"),
        pytest.param(None, False, False, id="16 bits, step by step"),
        pytest.param(None, True, False, id="16 bits, recorded"),
        pytest.param(None, True, True, id="16 bits, recorded, own kernels"),
    ],
)
def test_gpu_sees_what_the_cpu_sees(dtype: torch.dtype | None, graphs: bool, kernels: bool) -> None:
    options = PropagationOptions(graphs=graphs, kernels=kernels, objects_per_batch=4)
    found: list[dict[tuple[int, int], np.ndarray]] = []
    for device in ("cpu", "cuda"):
        model = load_model("bundled", device=device, used_by="test")
        chosen = torch.float32 if device == "cpu" else dtype
        propagator = Sam2Propagator(model, name="test", device=device, options=options, dtype=chosen)
        session = propagator.open(height_px=48, width_px=80)
        masks: dict[tuple[int, int], np.ndarray] = {}
        for at in session.feed(frame(i) for i in range(24)):
            for answer in (session.advance(at), session.seed(seeds(at.index // 5 + 1) if at.index % 5 == 0 else [])):
                masks.update({(t, at.index): m for t, m in zip(answer.track_ids.tolist(), answer.masks, strict=True)})
            if at.index == 17:
                session.drop([2])
        found.append(masks)
        if device == "cuda":
            assert bool(propagator.recorded) == graphs
    assert sorted(found[0]) == sorted(found[1])
    both = sum(int((found[0][key] & found[1][key]).sum()) for key in found[0])
    either = sum(int((found[0][key] | found[1][key]).sum()) for key in found[0])
    assert both / either > (0.995 if dtype == torch.float32 else 0.9)
