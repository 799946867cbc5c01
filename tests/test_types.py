"""Values that break the contract of their type are rejected where they are made, with the shape in the message."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.types import (
    Crop,
    Decision,
    Detections,
    Encounter,
    EncounterKind,
    Frame,
    FrameMasks,
    Gallery,
    Outcome,
    Rle,
    Seed,
    Source,
    Track,
    TrackingResult,
    VideoInfo,
)


def track_values(count: int = 3, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "track_id": 1,
        "phrase": "sheep",
        "frame_indices": np.arange(count),
        "boxes_xyxy": np.zeros((count, 4), np.float32),
        "masks": None,
        "scores": np.ones(count, np.float32),
        "mask_scores": np.ones(count, np.float32),
        "identity_confidence": np.ones(count, np.float32),
        "sources": (Source.PROPAGATED,) * count,
    }
    return {**values, **changes}


def frame_masks_values(count: int = 2, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "frame_index": 0,
        "track_ids": np.arange(1, count + 1),
        "masks": np.zeros((count, 6, 8), np.bool_),
        "mask_scores": np.ones(count, np.float32),
        "object_scores": np.ones(count, np.float32),
    }
    return {**values, **changes}


def gallery_values(count: int = 2, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "track_id": 7,
        "frame_indices": np.arange(count),
        "embeddings": np.zeros((count, 5), np.float32),
        "weights": np.ones(count, np.float32),
        "embedder_name": "colour",
    }
    return {**values, **changes}


REJECTED = [
    pytest.param(
        Frame, {"index": -1, "pts_seconds": 0.0, "image_rgb": np.zeros((2, 2, 3), np.uint8)}, "-1", id="index"
    ),
    pytest.param(
        Frame, {"index": 0, "pts_seconds": 0.0, "image_rgb": np.zeros((2, 2, 3))}, "float64 (2, 2, 3)", id="dtype"
    ),
    pytest.param(
        Frame, {"index": 0, "pts_seconds": 0.0, "image_rgb": np.zeros((2, 2, 4), np.uint8)}, "(2, 2, 4)", id="rgba"
    ),
    pytest.param(
        Detections,
        {
            "frame_index": 0,
            "boxes_xyxy": np.zeros((2, 4), np.float32),
            "scores": np.zeros(3, np.float32),
            "phrases": ("a", "b"),
        },
        "boxes (2, 4), scores (3,), 2 phrases",
        id="detections",
    ),
    pytest.param(Seed, {"track_id": 4}, "track 4", id="seed of nothing"),
    pytest.param(
        Seed,
        {"track_id": 4, "box_xyxy": np.zeros(4, np.float32), "mask": np.zeros((2, 2), np.bool_)},
        "exactly one",
        id="seed of two things",
    ),
    pytest.param(Seed, {"track_id": 4, "box_xyxy": np.zeros((1, 4), np.float32)}, "(1, 4)", id="seed box"),
    pytest.param(Seed, {"track_id": 4, "mask": np.zeros((2, 2), np.uint8)}, "bool", id="seed mask"),
    pytest.param(Seed, {"track_id": 4, "points_xy": np.zeros((2, 2), np.float32)}, "(2, 2)", id="points, no labels"),
    pytest.param(
        Seed,
        {"track_id": 4, "points_xy": np.zeros((2, 2), np.float32), "point_labels": np.ones(3, np.int64)},
        "(2, 2)",
        id="labels of other points",
    ),
    pytest.param(FrameMasks, frame_masks_values(masks=np.zeros((3, 6, 8), np.bool_)), "masks (3, 6, 8)", id="masks"),
    pytest.param(FrameMasks, frame_masks_values(track_ids=np.array([5, 5])), "[5, 5]", id="one track twice"),
    pytest.param(
        Crop,
        {"image_rgb": np.zeros((3, 4, 3), np.uint8), "mask": np.zeros((4, 3), np.bool_)},
        "crop image (3, 4, 3), mask (4, 3)",
        id="crop",
    ),
    pytest.param(
        Crop,
        {"image_rgb": np.zeros((0, 4, 3), np.uint8), "mask": np.zeros((0, 4), np.bool_)},
        "not be empty",
        id="empty crop",
    ),
    pytest.param(Track, track_values(track_id=0), "track_id 0", id="track id"),
    pytest.param(Track, track_values(boxes_xyxy=np.zeros((2, 4), np.float32)), "boxes (2, 4)", id="track boxes"),
    pytest.param(Track, track_values(masks=(Rle(2, 2, b""),)), "1 masks", id="track masks"),
    pytest.param(Track, track_values(frame_indices=np.array([0, 2, 2])), "strictly increasing", id="a frame twice"),
    pytest.param(Track, track_values(frame_indices=np.array([0, 2, 1])), "strictly increasing", id="frames back"),
    pytest.param(Gallery, gallery_values(embeddings=np.zeros((3, 5), np.float32)), "embeddings (3, 5)", id="gallery"),
    pytest.param(
        Encounter,
        {
            "encounter_id": 1,
            "kind": EncounterKind.CROSSING,
            "phrase": "sheep",
            "start": 5,
            "stop": 5,
            "track_ids": (1,),
        },
        "[5, 5)",
        id="encounter of no frame",
    ),
]


@pytest.mark.parametrize(("made", "values", "named"), REJECTED)
def test_broken_value_is_rejected_with_what_is_wrong(made: Any, values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        made(**values)


@pytest.mark.parametrize(
    ("made", "values", "length"),
    [
        pytest.param(Track, track_values(0), 0, id="track of no frame"),
        pytest.param(Track, track_values(3), 3, id="track"),
        pytest.param(FrameMasks, frame_masks_values(0), 0, id="no masks"),
        pytest.param(Gallery, gallery_values(0), 0, id="empty gallery"),
    ],
)
def test_sound_value_has_its_length(made: Any, values: dict[str, Any], length: int) -> None:
    assert len(made(**values)) == length


def test_detections_empty_are_sound() -> None:
    nothing = Detections.empty(9)
    assert (nothing.frame_index, len(nothing), nothing.boxes_xyxy.shape) == (9, 0, (0, 4))


def test_frame_names_its_sides() -> None:
    frame = Frame(0, 0.0, np.zeros((6, 8, 3), np.uint8))
    assert (frame.height_px, frame.width_px) == (6, 8)


def test_values_are_frozen() -> None:
    track = Track(**track_values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        track.track_id = 2  # type: ignore[misc]


def test_needs_review_holds_abstentions_only_the_most_doubtful_first() -> None:
    def decision(number: int, outcome: Outcome, confidence: float) -> Decision:
        return Decision(Encounter(number, EncounterKind.CROSSING, "sheep", 0, 1, (1, 2)), outcome, 0.0, confidence)

    result = TrackingResult(
        VideoInfo("x", 8, 6, 3, 25.0),
        (),
        decisions=(
            decision(1, Outcome.ABSTAIN, 0.8),
            decision(2, Outcome.EXCHANGE, 0.5),
            decision(3, Outcome.ABSTAIN, 0.6),
            decision(4, Outcome.KEEP, 0.55),
        ),
    )
    assert [d.encounter.encounter_id for d in result.needs_review] == [3, 1]
