"""What the streaming engine promises besides the contract: bounded memory, and one pass of the encoder a frame."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from fiftyone_plugin.propagators.sam2 import Sam2Propagator, Sam2Session
from fiftyone_plugin.propagators.sam2_model import load_model
from fiftyone_plugin.types import Frame, Seed

SIZE = 64


@pytest.fixture
def propagator() -> Sam2Propagator:
    """The bundled weights at 64 x 64 pixels: its masks mean little there, its steps are short."""
    model = load_model("bundled", device="cpu", used_by="test", image_size=SIZE)
    return Sam2Propagator(model, name="test", device="cpu")


def frame(index: int) -> Frame:
    image = np.full((48, 80, 3), 90, np.uint8)
    x = 10 + index % 40
    image[12:32, x : x + 20] = (220, 200, 60)
    return Frame(index, index / 25, image)


def box(x: int) -> np.ndarray:
    return np.array([x, 12, x + 20, 32], np.float32)


def start(propagator: Sam2Propagator, tracks: Sequence[int]) -> Sam2Session:
    session = propagator.open(height_px=48, width_px=80)
    session.advance(frame(0))
    session.seed([Seed(t, box_xyxy=box(10 + t)) for t in tracks])
    return session


def live_tensors() -> tuple[int, int]:
    """Number and bytes of all tensors that something still holds."""
    gc.collect()
    found = [o for o in gc.get_objects() if type(o) is torch.Tensor]
    return len(found), sum(t.element_size() * t.nelement() for t in found)


def test_memory_does_not_grow_with_the_length_of_the_video(propagator: Sam2Propagator) -> None:
    session = start(propagator, [1, 2])
    measured = {}
    for index in range(1, 901):
        session.advance(frame(index))
        if index % 100 == 50:
            session.seed([Seed(1, box_xyxy=box(10))])
        if index in (300, 900):
            measured[index] = (session.bank.nbytes, *live_tensors())
    assert measured[900] == measured[300]


def test_memory_does_not_grow_with_births_and_drops(propagator: Sam2Propagator) -> None:
    session = start(propagator, [1])
    measured = {}
    for index in range(1, 61):
        session.advance(frame(index))
        session.drop(session.track_ids)
        session.seed([Seed(index * 2, box_xyxy=box(10)), Seed(index * 2 + 1, box_xyxy=box(30))])
        if index in (20, 60):
            measured[index] = (session.bank.capacity, *live_tensors())
    assert measured[60] == measured[20]
    assert session.bank.capacity == 2


def test_image_is_encoded_once_a_frame_and_only_when_needed(
    propagator: Sam2Propagator, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    encode = propagator.encoder.encode

    def counting(images: Any) -> Any:
        calls.append(len(images))
        return encode(images)

    monkeypatch.setattr(propagator.encoder, "encode", counting)
    session = propagator.open(height_px=48, width_px=80)
    session.advance(frame(0))
    assert calls == []
    session.seed([Seed(t, box_xyxy=box(10)) for t in (1, 2, 3)])
    session.seed([Seed(4, box_xyxy=box(20))])
    assert calls == [1]
    session.advance(frame(1))
    session.seed([Seed(5, box_xyxy=box(30))])
    assert calls == [1, 1]


def test_encoder_gives_the_same_features_in_a_batch(propagator: Sam2Propagator) -> None:
    images = [frame(i).image_rgb for i in range(3)]
    with torch.inference_mode():
        together = propagator.encoder.encode(images)
        alone = [propagator.encoder.encode([image])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        for name in ("embedding", "stride_8", "stride_4"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-4)


def test_more_objects_than_fit_one_batch_are_run_in_groups(propagator: Sam2Propagator) -> None:
    model = propagator.encoder._model
    small = Sam2Propagator(model, name="test", device="cpu", objects_per_batch=2)
    sessions = [start(p, [1, 2, 3, 4, 5]) for p in (propagator, small)]
    for index in range(1, 4):
        whole, groups = (session.advance(frame(index)) for session in sessions)
        assert whole.track_ids.tolist() == groups.track_ids.tolist() == [1, 2, 3, 4, 5]
        np.testing.assert_allclose(whole.object_scores, groups.object_scores, rtol=1e-3, atol=1e-3)
