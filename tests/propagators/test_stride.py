"""Frame stride: only key frames are carried, what lies between is interpolated, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.config import PropagationOptions
from fiftyone_plugin.geometry import mask_iou
from fiftyone_plugin.propagators.stride import StridedPropagator, StridedSession, interpolate_mask
from fiftyone_plugin.registry import make_propagator
from fiftyone_plugin.types import Frame, FrameMasks, Seed

HEIGHT, WIDTH = 40, 90


def square(x: int, *, y: int = 10, side: int = 12) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def frame(index: int) -> Frame:
    return Frame(index, index / 25, np.zeros((HEIGHT, WIDTH, 3), np.uint8))


class Shifting:
    """A session whose objects are squares that move two pixels a frame; it notes what it was asked."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.advanced: list[int] = []
        self.forgotten: list[int] = []
        self.index = -1

    @property
    def track_ids(self) -> tuple[int, ...]:
        return tuple(self.ids)

    def answer(self, ids: list[int]) -> FrameMasks:
        masks = np.array([square(2 * self.index + 3 * t) for t in ids]).reshape(len(ids), HEIGHT, WIDTH)
        scores = np.full(len(ids), self.index / 100, np.float32)
        return FrameMasks(self.index, np.array(ids, np.int64), masks, scores, scores)

    def advance(self, frame: Frame) -> FrameMasks:
        self.index = frame.index
        self.advanced.append(frame.index)
        return self.answer(self.ids)

    def seed(self, seeds: Iterable[Seed]) -> FrameMasks:
        named = [s.track_id for s in seeds]
        self.ids += [t for t in named if t not in self.ids]
        return self.answer(named)

    def forget(self, track_ids: Iterable[int]) -> None:
        self.forgotten.append(self.index)

    def drop(self, track_ids: Iterable[int]) -> None:
        self.ids = [t for t in self.ids if t not in track_ids]


def box(track_id: int) -> Seed:
    return Seed(track_id, box_xyxy=np.array([1, 1, 5, 5], np.float32))


def walk(session: StridedSession, count: int) -> Iterator[tuple[Frame, FrameMasks]]:
    for f in session.feed(frame(i) for i in range(count)):
        yield f, session.advance(f)


@pytest.mark.parametrize(
    ("count", "keys"), [(9, [0, 3, 6, 8]), (7, [0, 3, 6]), (1, [0]), (2, [0, 1])], ids=["rest", "whole", "one", "two"]
)
def test_objects_are_carried_to_key_frames_only(count: int, keys: list[int]) -> None:
    inner = Shifting()
    session = StridedSession(inner, stride=3)
    seen = []
    for f, answer in walk(session, count):
        seen.append(f.index)
        assert answer.frame_index == f.index
        if f.index == 0:
            session.seed([box(1), box(2)])
        else:
            assert answer.track_ids.tolist() == [1, 2]
            truth = np.array([square(2 * f.index + 3 * t) for t in (1, 2)])
            assert np.diag(mask_iou(answer.masks, truth)).min() == 1.0
            assert answer.object_scores == pytest.approx(np.full(2, f.index / 100))
    assert seen == list(range(count))
    assert inner.advanced == keys


def test_frames_that_were_not_fed_are_not_skipped() -> None:
    inner = Shifting()
    session = StridedSession(inner, stride=3)
    for index in range(4):
        session.advance(frame(index))
    assert inner.advanced == [0, 1, 2, 3]


def test_dropped_track_is_gone_from_the_frames_between() -> None:
    inner = Shifting()
    session = StridedSession(inner, stride=4)
    for f, answer in walk(session, 9):
        if f.index == 0:
            session.seed([box(1), box(2)])
        if f.index == 2:
            session.drop([1])
        if f.index > 2:
            assert answer.track_ids.tolist() == [2]


def test_seed_on_a_key_frame_is_carried_from_there() -> None:
    session = StridedSession(Shifting(), stride=2)
    for f, answer in walk(session, 7):
        if f.index == 2:
            session.seed([box(2)])
        if f.index == 4:
            session.seed([box(1)])
        if f.index > 4:
            assert answer.track_ids.tolist() == [2, 1]


def test_seed_between_key_frames_is_refused_when_tracks_were_carried_past() -> None:
    session = StridedSession(Shifting(), stride=3)
    for f, _ in walk(session, 9):
        if f.index == 0:
            session.seed([box(1)])
        if f.index in (4, 5):
            with pytest.raises(ValueError, match="with a stride of 3"):
                session.seed([box(2)])


def test_first_seed_may_come_between_key_frames() -> None:
    """No track is live yet, so none was carried past."""
    session = StridedSession(Shifting(), stride=3)
    answers = {}
    for f, answer in walk(session, 9):
        answers[f.index] = answer
        if f.index == 4:
            session.seed([box(1)])
    assert [len(answers[i].track_ids) for i in range(9)] == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert np.array_equal(answers[5].masks[0], square(13))


def test_forget_reaches_key_frames_only() -> None:
    inner = Shifting()
    session = StridedSession(inner, stride=2)
    for f, _ in walk(session, 5):
        session.seed([box(1)]) if f.index == 0 else session.forget([1])
    assert inner.forgotten == [2, 4]


@given(x0=st.integers(0, 70), x1=st.integers(0, 70), y1=st.integers(0, 25), part=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_a_shifted_mask_is_interpolated_to_a_shifted_mask(x0: int, x1: int, y1: int, part: float) -> None:
    found = interpolate_mask(square(x0), square(x1, y=y1), part)
    x, y = (1 - part) * x0 + part * x1, (1 - part) * 10 + part * y1
    rows, columns = np.nonzero(found)
    assert abs(columns.min() - x) <= 0.5 + 1e-6
    assert abs(rows.min() - y) <= 0.5 + 1e-6
    assert found.sum() == pytest.approx(144, abs=26)


def test_ends_of_the_way_are_the_masks_themselves() -> None:
    earlier, later = square(5), square(40, side=20)
    assert np.array_equal(interpolate_mask(earlier, later, 0.0), earlier)
    assert np.array_equal(interpolate_mask(earlier, later, 1.0), later)


@pytest.mark.parametrize(("part", "is_there"), [(0.25, True), (0.75, False)])
def test_vanishing_mask_stays_half_of_the_way(part: float, is_there: bool) -> None:
    gone = np.zeros((HEIGHT, WIDTH), np.bool_)
    assert interpolate_mask(square(5), gone, part).any() == is_there
    assert interpolate_mask(gone, square(5), part).any() != is_there


def test_registry_puts_the_stride_around_any_propagator() -> None:
    made = make_propagator("sam2:bundled", device="cpu", options=PropagationOptions(frame_stride=3))
    assert isinstance(made, StridedPropagator)
    assert made.name == "sam2:bundled/3"
