from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fiftyone_plugin.geometry import box_iou, decode_mask
from fiftyone_plugin.interfaces import Detector, Embedder, PropagationSession, Propagator
from fiftyone_plugin.synthetic import scenes
from fiftyone_plugin.synthetic.clips import SyntheticClip
from fiftyone_plugin.synthetic.fakes import (
    Failure,
    Loss,
    ScriptedDetector,
    ScriptedEmbedder,
    ScriptedPropagator,
    ScriptedSession,
    StickyMask,
    Swap,
    Takeover,
)
from fiftyone_plugin.types import Crop, Frame, FrameMasks, Seed, Track


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return scenes.crossing(frames=40)


@pytest.fixture(scope="module")
def truth(clip: SyntheticClip) -> tuple[Track, ...]:
    return clip.ground_truth()


@pytest.fixture(scope="module")
def frames(clip: SyntheticClip) -> list[Frame]:
    return list(clip.source.frames())


def true_mask(track: Track, frame: int) -> np.ndarray:
    assert track.masks is not None
    return decode_mask(track.masks[track.frame_indices.tolist().index(frame)])


def walk(
    truth: Sequence[Track], frames: Sequence[Frame], *failures: Failure, backwards: bool = False
) -> tuple[ScriptedSession, dict[int, FrameMasks]]:
    """Tracks 11 and 12 seeded by the boxes of the true objects 1 and 2 on the first frame of the walk."""
    session = ScriptedPropagator(truth, failures=failures).open(height_px=256, width_px=320)
    answers: dict[int, FrameMasks] = {}
    for step, frame in enumerate(reversed(frames) if backwards else frames):
        answers[frame.index] = session.advance(frame)
        if step == 0:
            rows = [t.frame_indices.tolist().index(frame.index) for t in truth]
            boxes = [t.boxes_xyxy[row] for t, row in zip(truth, rows, strict=True)]
            answers[frame.index] = session.seed([Seed(11, box_xyxy=boxes[0]), Seed(12, box_xyxy=boxes[1])])
    return session, answers


def test_fakes_satisfy_the_protocols(clip: SyntheticClip, truth: tuple[Track, ...]) -> None:
    propagator = ScriptedPropagator(truth)
    assert isinstance(ScriptedDetector(truth, clip.source), Detector)
    assert isinstance(propagator, Propagator)
    assert isinstance(propagator.open(height_px=256, width_px=320), PropagationSession)
    assert isinstance(ScriptedEmbedder(), Embedder)


def test_detector_without_errors_answers_the_truth(
    clip: SyntheticClip, truth: tuple[Track, ...], frames: list[Frame]
) -> None:
    detector = ScriptedDetector(truth, clip.source)
    # out of order, and twice: a picture is recognised wherever it comes from
    for answer, index in zip(
        detector.detect([frames[i].image_rgb for i in (20, 3, 3)], ["dog", "sheep"]), (20, 3, 3), strict=True
    ):
        assert_array_equal(answer.boxes_xyxy, [t.boxes_xyxy[index] for t in truth])
        assert np.all(answer.phrase_scores[:, 1] > 0.6)
        assert np.all(answer.phrase_scores[:, 0] < 0.15)


def test_detector_reads_no_further_than_it_must(clip: SyntheticClip, truth: tuple[Track, ...]) -> None:
    walked: list[int] = []

    class Watched:
        info, warnings = clip.source.info, ()

        def frames(self, start: int = 0, stop: int | None = None):  # type: ignore[no-untyped-def]
            for frame in clip.source.frames(start, stop):
                walked.append(frame.index)
                yield frame

    first = next(clip.source.frames(5)).image_rgb
    detector = ScriptedDetector(truth, Watched())
    detector.detect([first], ["sheep"])
    detector.detect([first], ["sheep"])
    assert walked == [0, 1, 2, 3, 4, 5]


def test_detector_does_not_know_foreign_pictures(clip: SyntheticClip, truth: tuple[Track, ...]) -> None:
    with pytest.raises(LookupError, match="same source"):
        ScriptedDetector(truth, clip.source).detect([np.zeros((256, 320, 3), np.uint8)], ["sheep"])


def test_detector_errors_follow_from_seed_and_frame(
    clip: SyntheticClip, truth: tuple[Track, ...], frames: list[Frame]
) -> None:
    def answers(order: Sequence[int], seed: int = 0) -> list[np.ndarray]:
        detector = ScriptedDetector(truth, clip.source, miss_rate=0.3, jitter_px=2, false_alarms=0.5, seed=seed)
        found = dict(zip(order, detector.detect([frames[i].image_rgb for i in order], ["sheep"]), strict=True))
        return [found[i].boxes_xyxy for i in sorted(order)]

    once, again = answers(range(40)), answers(range(39, -1, -1))
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    other = answers(range(40), seed=1)
    assert not all(np.array_equal(a, b) for a, b in zip(once, other, strict=True))
    counts = [len(boxes) for boxes in once]
    assert min(counts) < 2 < max(counts)


def test_detector_jitter_moves_boxes_a_little(
    clip: SyntheticClip, truth: tuple[Track, ...], frames: list[Frame]
) -> None:
    (answer,) = ScriptedDetector(truth, clip.source, jitter_px=1.5).detect([frames[0].image_rgb], ["sheep"])
    iou = box_iou(answer.boxes_xyxy, np.stack([t.boxes_xyxy[0] for t in truth]))
    assert np.all((np.diag(iou) > 0.75) & (np.diag(iou) < 1))


def test_propagator_without_failure_carries_the_truth(truth: tuple[Track, ...], frames: list[Frame]) -> None:
    _, answers = walk(truth, frames)
    for frame, answer in answers.items():
        assert answer.track_ids.tolist() == [11, 12]
        for mask, track in zip(answer.masks, truth, strict=True):
            assert_array_equal(mask, true_mask(track, frame))
        assert np.all(answer.object_scores > 0)


def test_swap_exchanges_from_its_frame_on(truth: tuple[Track, ...], frames: list[Frame]) -> None:
    _, answers = walk(truth, frames, Swap(20, (1, 2)))
    assert_array_equal(answers[19].masks[0], true_mask(truth[0], 19))
    assert_array_equal(answers[20].masks[0], true_mask(truth[1], 20))
    assert_array_equal(answers[39].masks[1], true_mask(truth[0], 39))


def test_takeover_leaves_two_tracks_on_one_object(truth: tuple[Track, ...], frames: list[Frame]) -> None:
    _, answers = walk(truth, frames, Takeover(15, left=1, taken=2))
    assert_array_equal(answers[15].masks[0], answers[15].masks[1])
    assert_array_equal(answers[15].masks[0], true_mask(truth[1], 15))


def test_loss_lasts_until_the_next_seed(truth: tuple[Track, ...], frames: list[Frame]) -> None:
    session, answers = walk(truth, frames[:30], Loss(10, 1))
    assert answers[9].masks[0].any()
    assert not answers[10].masks[0].any()
    assert answers[29].object_scores[0] < 0 < answers[29].object_scores[1]
    session.seed([Seed(11, mask=true_mask(truth[0], 29))])
    assert_array_equal(session.advance(frames[30]).masks[0], true_mask(truth[0], 30))


def test_failures_do_not_strike_backwards(truth: tuple[Track, ...], frames: list[Frame]) -> None:
    _, answers = walk(truth, frames, Swap(20, (1, 2)), Loss(10, 1), backwards=True)
    assert_array_equal(answers[0].masks[0], true_mask(truth[0], 0))


def test_absent_object_has_no_mask_unless_it_is_sticky() -> None:
    clip = scenes.leaving_and_returning(frames=50)
    truth, frames = clip.ground_truth(), list(clip.source.frames())
    gone = next(f for f in range(50) if f not in truth[0].frame_indices)
    for failures, is_kept in (((), False), ((StickyMask(1),), True)):
        session = ScriptedPropagator(truth, failures=failures).open(height_px=256, width_px=320)
        session.advance(frames[0])
        session.seed([Seed(1, box_xyxy=truth[0].boxes_xyxy[0])])
        answers = [session.advance(frame) for frame in frames[1 : gone + 3]]
        assert answers[-1].masks[0].any() == is_kept
        assert (answers[-1].object_scores[0] > 0) == is_kept
        if is_kept:
            assert_array_equal(answers[-1].masks[0], true_mask(truth[0], gone - 1))


@pytest.mark.parametrize("kind", ["box", "mask", "points"])
def test_every_kind_of_seed_binds_to_what_it_overlaps(truth: tuple[Track, ...], frames: list[Frame], kind: str) -> None:
    session = ScriptedPropagator(truth).open(height_px=256, width_px=320)
    session.advance(frames[0])
    mask, box = true_mask(truth[1], 0), truth[1].boxes_xyxy[0]
    ys, xs = np.nonzero(mask)
    middle = len(ys) // 2
    seed = {
        "box": Seed(7, box_xyxy=box + np.float32(3)),
        "mask": Seed(7, mask=mask),
        "points": Seed(
            7,
            points_xy=np.array([[xs[middle], ys[middle]], [5, 5]], np.float32),
            point_labels=np.array([1, 0], np.int64),
        ),
    }[kind]
    assert_array_equal(session.seed([seed]).masks[0], mask)


def test_seed_on_nothing_stays_where_it_is(truth: tuple[Track, ...], frames: list[Frame]) -> None:
    session = ScriptedPropagator(truth).open(height_px=256, width_px=320)
    session.advance(frames[0])
    session.seed([Seed(3, box_xyxy=np.array([5, 5, 25, 20], np.float32))])
    answer = session.advance(frames[1])
    assert answer.masks[0].sum() == 20 * 15
    assert answer.masks[0][5:20, 5:25].all()
    assert answer.mask_scores[0] < 0.5


def test_session_drops_forgets_and_keeps_its_order(truth: tuple[Track, ...], frames: list[Frame]) -> None:
    session, _ = walk(truth, frames[:3])
    session.forget([12])
    assert session.forgotten == [(2, 12)]
    session.seed([Seed(11, box_xyxy=truth[0].boxes_xyxy[2])])
    assert session.track_ids == (11, 12)
    session.drop([11])
    assert session.track_ids == (12,)
    assert session.advance(frames[3]).track_ids.tolist() == [12]


def test_session_refuses_wrong_frames(truth: tuple[Track, ...], frames: list[Frame]) -> None:
    session = ScriptedPropagator(truth).open(height_px=256, width_px=320)
    with pytest.raises(ValueError, match="advance first"):
        session.seed([Seed(1, box_xyxy=truth[0].boxes_xyxy[0])])
    session.advance(frames[3])
    session.advance(frames[4])
    with pytest.raises(ValueError, match="one direction"):
        session.advance(frames[3])
    with pytest.raises(ValueError, match="8 x 8"):
        session.advance(Frame(5, 0.0, np.zeros((8, 8, 3), np.uint8)))


def test_failure_of_an_unknown_object_is_refused(truth: tuple[Track, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        ScriptedPropagator(truth, failures=[Loss(3, 9)])


def plain_crop(colour: Sequence[int], side: int = 8) -> Crop:
    image = np.empty((side, side, 3), np.uint8)
    image[:] = colour
    return Crop(image, np.ones((side, side), np.bool_))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=5),
    st.floats(0, 0.5),
    st.sampled_from([2, 16, 64]),
)
def test_embeddings_are_unit_length_and_do_not_depend_on_the_batch(
    colours: list[tuple[int, int, int]], noise: float, dimension: int
) -> None:
    embedder = ScriptedEmbedder(noise=noise, dimension=dimension)
    crops = [plain_crop(colour) for colour in colours]
    together = embedder.embed(crops)
    assert together.shape == (len(crops), dimension)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert_array_equal(together, np.concatenate([embedder.embed([crop]) for crop in crops]))


def test_embedder_tells_colours_apart_whatever_the_background() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4] = 200, 30, 30
    mask = np.zeros((8, 8), np.bool_)
    mask[:, :4] = True
    red, masked_red, blue = ScriptedEmbedder().embed(
        [plain_crop((200, 30, 30)), Crop(image, mask), plain_crop((30, 30, 200))]
    )
    assert red @ masked_red == pytest.approx(1, abs=1e-5)
    assert red @ blue < 0.5


def test_no_crops_give_an_empty_array() -> None:
    assert ScriptedEmbedder(dimension=6).embed([]).shape == (0, 6)
