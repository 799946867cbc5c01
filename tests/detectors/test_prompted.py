"""Raw answers to clean detections, with a detector whose answers are written down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fiftyone_plugin.config import DetectionOptions
from fiftyone_plugin.detectors.prompted import PromptedDetector
from fiftyone_plugin.errors import PromptError
from fiftyone_plugin.geometry import box_iou
from fiftyone_plugin.interfaces import PhraseBoxes
from fiftyone_plugin.types import Detections, Frame

Row = tuple[tuple[float, float, float, float], dict[str, float]]


class WrittenDetector:
    """Gives the same rows for every image; a phrase that a row does not mention scores 0."""

    name = "written"

    def __init__(self, rows: Sequence[Row], *, max_tokens: int = 100) -> None:
        self.rows = rows
        self.max_tokens = max_tokens
        self.calls: list[tuple[int, tuple[str, ...]]] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 2

    def detect(self, images_rgb: Sequence[NDArray[np.uint8]], phrases: Sequence[str]) -> list[PhraseBoxes]:
        self.calls.append((len(images_rgb), tuple(phrases)))
        boxes = np.array([box for box, _ in self.rows], np.float32).reshape(-1, 4)
        scores = np.array([[row.get(p, 0.0) for p in phrases] for _, row in self.rows], np.float32)
        return [PhraseBoxes(boxes, scores.reshape(-1, len(phrases))) for _ in images_rgb]


def frames(count: int = 1) -> list[Frame]:
    return [Frame(7 + i, 0.0, np.zeros((80, 100, 3), np.uint8)) for i in range(count)]


def detect(rows: Sequence[Row], phrases: Sequence[str], **options: float) -> Detections:
    return PromptedDetector(WrittenDetector(rows), phrases, DetectionOptions(**options)).detect(frames())[0]  # type: ignore[arg-type]


def test_detect_gives_each_box_its_best_phrase_and_sorts_by_score() -> None:
    found = detect(
        [((0, 0, 10, 10), {"red car": 0.4, "blue car": 0.5}), ((50, 50, 70, 70), {"red car": 0.9})],
        ("red car", "blue car"),
    )
    assert found.phrases == ("red car", "blue car")
    np.testing.assert_allclose(found.scores, [0.9, 0.5])
    np.testing.assert_array_equal(found.boxes_xyxy, [[50, 50, 70, 70], [0, 0, 10, 10]])
    assert found.frame_index == 7


def test_detect_tie_goes_to_the_phrase_typed_first() -> None:
    assert detect([((0, 0, 9, 9), {"b": 0.5, "a": 0.5})], ("b", "a")).phrases == ("b",)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        pytest.param({"box_threshold": 0.5, "text_threshold": 0.0}, 2, id="box"),
        pytest.param({"box_threshold": 0.0, "text_threshold": 0.7}, 1, id="text"),
    ],
)
def test_detect_keeps_scores_that_reach_the_thresholds(options: dict[str, float], kept: int) -> None:
    rows: list[Row] = [((20 * i, 0, 20 * i + 9, 9), {"a": s}) for i, s in enumerate((0.75, 0.5, 0.25))]
    assert len(detect(rows, ("a",), **options)) == kept


def test_detect_clips_to_the_frame_and_drops_what_is_left_without_size() -> None:
    rows: list[Row] = [
        ((-5, -5, 30, 20), {"a": 0.9}),
        ((100, 0, 120, 50), {"a": 0.8}),
        ((40, 40, 40.5, 60), {"a": 0.7}),
        ((60, 60, 50, 70), {"a": 0.7}),
        ((float("nan"), 0, 10, 10), {"a": 0.9}),
    ]
    np.testing.assert_array_equal(detect(rows, ("a",)).boxes_xyxy, [[0, 0, 30, 20]])


def test_detect_suppresses_duplicates_of_one_phrase_only() -> None:
    rows: list[Row] = [
        ((0, 0, 10, 10), {"rider": 0.9}),
        ((0, 0, 10, 8), {"rider": 0.8}),
        ((0, 0, 10, 8), {"horse": 0.7}),
    ]
    assert detect(rows, ("rider", "horse")).phrases == ("rider", "horse")


def test_detect_takes_one_object_named_twice_once_even_in_different_passes() -> None:
    rows: list[Row] = [((0, 0, 10, 10), {"puppy": 0.6, "dog": 0.8})]
    detector = WrittenDetector(rows, max_tokens=3)
    found = PromptedDetector(detector, ("puppy", "dog")).detect(frames())[0]
    assert [phrases for _, phrases in detector.calls] == [("puppy",), ("dog",)]
    assert found.phrases == ("dog",)


def test_detect_batches_frames_and_runs_every_pass_on_each_batch() -> None:
    detector = WrittenDetector([((0, 0, 10, 10), {"a": 0.5}), ((30, 30, 50, 50), {"c": 0.6})], max_tokens=4)
    prompted = PromptedDetector(detector, ("a", "b", "c"), DetectionOptions(batch_frames=2))
    assert prompted.pass_count == 2
    found = prompted.detect(frames(3))
    assert detector.calls == [(2, ("a", "b")), (2, ("c",)), (1, ("a", "b")), (1, ("c",))]
    assert [d.frame_index for d in found] == [7, 8, 9]
    assert all(d.phrases == ("c", "a") for d in found)


def test_detect_of_nothing_is_empty() -> None:
    assert len(detect([], ("a",))) == 0
    assert PromptedDetector(WrittenDetector([]), ("a",)).detect([]) == []


def test_prompted_detector_with_a_phrase_too_long_fails_before_the_first_frame() -> None:
    with pytest.raises(PromptError, match="'a b c'"):
        PromptedDetector(WrittenDetector([], max_tokens=4), ("a b c",))


_boxes = st.tuples(*[st.floats(-20, 120, width=32)] * 4)
_rows = st.lists(st.tuples(_boxes, st.fixed_dictionaries({"a": st.floats(0, 1), "b": st.floats(0, 1)})), max_size=12)


@given(_rows)
def test_detect_always_returns_clean_detections(rows: list[Row]) -> None:
    options = DetectionOptions()
    found = detect(rows, ("a", "b"))
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores >= np.float32(options.box_threshold)).all()
    assert ((found.boxes_xyxy >= 0) & (found.boxes_xyxy <= [100, 80, 100, 80])).all()
    assert ((found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2]) >= 1).all()
    overlap = box_iou(found.boxes_xyxy, found.boxes_xyxy)
    for i, one in enumerate(found.phrases):
        for j, other in enumerate(found.phrases[:i]):
            assert overlap[i, j] <= (options.max_nms_iou if one == other else 0.9)
