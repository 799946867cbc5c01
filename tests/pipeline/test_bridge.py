"""Gaps inside tracks: what two scripted walks into them come to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fiftyone_plugin.geometry import decode_mask, encode_mask, mask_boxes
from fiftyone_plugin.pipeline.bridge import REACH_FRAMES, Gap, bridge, walked_together
from fiftyone_plugin.synthetic.fakes import Loss, ScriptedPropagator, Takeover
from fiftyone_plugin.types import FrameMasks, Source, Track

RED, BLUE = (210, 40, 40), (40, 60, 220)
GAP = Gap(1, 20, 28)


def masks_of(track: Track) -> dict[int, np.ndarray]:
    return {f: decode_mask(m) for f, m in zip(track.frame_indices.tolist(), track.masks or (), strict=True)}


@pytest.fixture
def walker(world: Any, block: Any) -> Any:
    """One that walks to the right for 50 frames."""
    return world([block("sheep", RED, 5, 30, 2.0)], 50)


def test_object_that_is_visible_is_shown_on_every_frame_of_the_gap(walker: Any, without: Any) -> None:
    (truth,) = walker.truth()
    cut = without(truth, 20, 28)
    cut = replace(cut, identity_confidence=np.linspace(0.9, 0.5, len(cut), dtype=np.float32))
    (piece,) = bridge(walker, ScriptedPropagator([truth]), [cut], [GAP])
    assert (piece.track_id, piece.phrase, piece.frame_indices.tolist()) == (1, "sheep", list(range(20, 28)))
    assert piece.masks == truth.masks[20:28]
    np.testing.assert_array_equal(piece.boxes_xyxy, truth.boxes_xyxy[20:28])
    assert set(piece.sources) == {Source.PROPAGATED}
    # The lower one of both ends.
    np.testing.assert_allclose(piece.identity_confidence, cut.identity_confidence[20])


def test_object_that_is_away_stays_absent(walker: Any, without: Any) -> None:
    cut = without(walker.truth()[0], 20, 28)
    assert bridge(walker, ScriptedPropagator([cut]), [cut], [GAP]) == ()


def test_object_that_leaves_late_and_returns_early_is_shown_only_while_it_is_there(walker: Any, without: Any) -> None:
    (truth,) = walker.truth()
    there = without(truth, 22, 26)
    (piece,) = bridge(walker, ScriptedPropagator([there]), [without(truth, 20, 28)], [GAP])
    assert piece.frame_indices.tolist() == [20, 21, 26, 27]


def test_walk_that_loses_the_object_leaves_it_to_the_other(walker: Any, without: Any) -> None:
    (truth,) = walker.truth()
    propagator = ScriptedPropagator([truth], failures=[Loss(23, 1)])
    (piece,) = bridge(walker, propagator, [without(truth, 20, 28)], [GAP])
    assert piece.masks == truth.masks[20:28]


def test_walk_that_goes_over_to_another_track_is_not_believed(world: Any, block: Any, without: Any) -> None:
    scene = world([block("sheep", RED, 5, 30, 2.0), block("sheep", BLUE, 45, 52)], 50)
    first, second = scene.truth()
    propagator = ScriptedPropagator([first, second], failures=[Takeover(22, 1, 2)])
    (piece,) = bridge(scene, propagator, [without(first, 20, 28), second], [GAP])
    assert piece.masks == first.masks[20:28]


def test_walk_that_leaps_away_is_not_believed(world: Any, block: Any, without: Any) -> None:
    # The other one has no track, and is as large; only the leap gives it away.
    scene = world([block("sheep", RED, 5, 30, 2.0), block("sheep", BLUE, 109, 30)], 50)
    first, second = scene.truth()
    propagator = ScriptedPropagator([first, second], failures=[Takeover(22, 1, 2)])
    (piece,) = bridge(scene, propagator, [without(first, 20, 28)], [GAP])
    assert piece.masks == first.masks[20:28]


def test_walks_that_disagree_leave_the_frame_empty(world: Any, block: Any, without: Any) -> None:
    # The other one has no track, stands close by, and is as large: either walk could be right.
    scene = world([block("sheep", RED, 45, 30), block("sheep", BLUE, 45, 46)], 50)
    first, second = scene.truth()
    propagator = ScriptedPropagator([first, second], failures=[Takeover(24, 1, 2)])
    (piece,) = bridge(scene, propagator, [without(first, 20, 28)], [GAP])
    assert piece.frame_indices.tolist() == [20, 21, 22, 23]


def test_mask_that_lies_on_another_track_is_left_out(walker: Any, without: Any) -> None:
    (truth,) = walker.truth()
    double = replace(truth, track_id=2)
    assert bridge(walker, ScriptedPropagator([truth]), [without(truth, 20, 28), double], [GAP]) == ()


def test_mask_that_grows_abruptly_is_not_believed_alone(walker: Any, without: Any) -> None:
    (truth,) = walker.truth()
    masks = list(truth.masks or ())
    huge = np.zeros_like(decode_mask(masks[0]))
    huge[:, :150] = True
    masks[24] = encode_mask(huge)
    propagator = ScriptedPropagator([replace(truth, masks=tuple(masks))], failures=[Loss(22, 1)])
    (piece,) = bridge(walker, propagator, [without(truth, 20, 28)], [GAP])
    assert piece.frame_indices.tolist() == [20, 21, 22, 23, 25, 26, 27]


class Doubtful(ScriptedPropagator):
    """Shows something all the time, and does not believe in it."""

    def open(self, **size: Any) -> Any:
        session = super().open(**size)
        advance = session.advance

        def doubt(frame: Any) -> FrameMasks:
            seen = advance(frame)
            return replace(seen, mask_scores=np.full(len(seen), 0.1, np.float32))

        session.advance = doubt  # type: ignore[method-assign]
        return session


def test_mask_that_the_propagator_does_not_believe_in_is_left_out(walker: Any, without: Any) -> None:
    (truth,) = walker.truth()
    assert bridge(walker, Doubtful([truth]), [without(truth, 20, 28)], [GAP]) == ()


def test_walk_begins_with_a_mask_that_nobody_touches(world: Any, block: Any, without: Any) -> None:
    # Frames 17 to 19, next to the gap, show the two run together; a walk from there would carry both on.
    scene = world([block("sheep", RED, 5, 30, 1.0), block("sheep", BLUE, 42, 40, -1.0)], 50)
    first, second = scene.truth()
    masks = list(first.masks or ())
    for frame in (17, 18, 19):
        masks[frame] = encode_mask(decode_mask(masks[frame]) | decode_mask(second.masks[frame]))
    boxes = np.stack([mask_boxes(decode_mask(m)[None])[0] for m in masks])
    spoilt = without(replace(first, masks=tuple(masks), boxes_xyxy=boxes), 20, 28)
    seeded: list[int] = []

    class Watched(ScriptedPropagator):
        def open(self, **size: Any) -> Any:
            session = super().open(**size)
            seed = session.seed
            session.seed = lambda seeds: (seeded.append(session._walk.frame.index), seed(seeds))[1]
            return session

    bridge(scene, Watched([first, second]), [spoilt, second], [GAP])
    ahead = [f for f in seeded if f < 20]
    assert ahead
    assert max(ahead) < 17


def test_gap_at_the_end_of_a_track_is_none(walker: Any, without: Any) -> None:
    (truth,) = walker.truth()
    assert bridge(walker, ScriptedPropagator([truth]), [without(truth, 40, 50)], [Gap(1, 40, 50)]) == ()
    boxes_only = replace(without(truth, 20, 28), masks=None)
    assert bridge(walker, ScriptedPropagator([truth]), [boxes_only], [GAP]) == ()


# The fixtures are classes, the same for every example.
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(y_px=st.integers(12, 48), x_px=st.integers(20, 70), length=st.integers(1, 12))
def test_pixels_of_others_are_never_taken(
    world: Any, block: Any, y_px: int, x_px: int, length: int, without: Any
) -> None:
    scene = world([block("sheep", RED, 5, 30, 2.0), block("sheep", BLUE, x_px, y_px)], 50)
    second = scene.truth()[1]
    whole = world([block("sheep", RED, 5, 30, 2.0)], 50).truth()[0]  # as if the other one were of glass
    gap = Gap(1, 20, 20 + length)
    theirs = masks_of(second)
    for piece in bridge(scene, ScriptedPropagator([whole]), [without(whole, gap.start, gap.stop), second], [gap]):
        assert set(piece.frame_indices.tolist()) <= set(range(gap.start, gap.stop))
        for frame, mask in masks_of(piece).items():
            assert mask.any()
            assert not (mask & theirs[frame]).any()


class Counting(ScriptedPropagator):
    """Counts sessions, frames, and masks that were carried."""

    sessions, frames, masks = 0, 0, 0

    def open(self, **size: Any) -> Any:
        session = super().open(**size)
        advance = session.advance
        self.sessions += 1

        def count(frame: Any) -> FrameMasks:
            seen = advance(frame)
            self.frames += 1
            self.masks += len(seen)
            return seen

        session.advance = count  # type: ignore[method-assign]
        return session


def test_gaps_near_each_other_are_walked_together_and_filled_as_if_alone(world: Any, block: Any, without: Any) -> None:
    scene = world([block("sheep", RED, 5, 10, 1.0), block("sheep", BLUE, 60, 40, -1.0)], 50)
    first, second = scene.truth()
    tracks = [without(first, 20, 28), without(second, 24, 31)]
    gaps = [Gap(1, 20, 28), Gap(2, 24, 31)]
    one_by_one = Counting([first, second])
    alone = [piece for gap in gaps for piece in bridge(scene, one_by_one, tracks, [gap])]
    counting = Counting([first, second])
    together = bridge(scene, counting, tracks, gaps)
    assert [(p.track_id, p.frame_indices.tolist(), p.masks) for p in together] == [
        (p.track_id, p.frame_indices.tolist(), p.masks) for p in alone
    ]
    assert [p.track_id for p in together] == [1, 2]
    assert (one_by_one.sessions, counting.sessions) == (4, 2)
    assert counting.masks == one_by_one.masks  # nobody is carried beyond the gap
    assert counting.frames <= 2 * (31 - 20 + REACH_FRAMES)


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 200), st.integers(1, 40)).map(
            lambda g: Gap(g[0], g[1], g[1] + g[2])
        ),
        max_size=40,
        unique=True,
    )
)
def test_groups_hold_every_gap_once_and_no_track_twice(gaps: list[Gap]) -> None:
    groups = walked_together(gaps)
    assert sorted((g for group in groups for g in group), key=repr) == sorted(gaps, key=repr)
    for group in groups:
        assert len({g.track_id for g in group}) == len(group)
        assert group == [g for g in gaps if g in group]
        span = max(g.stop for g in group) - min(g.start for g in group)
        assert span <= sum(g.stop - g.start + 2 * REACH_FRAMES for g in group)
