"""Exactly the objects that were pointed at, both ways from there: a scripted propagator knows the truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.config import IdentityOptions, TrackingOptions
from fiftyone_plugin.errors import FrameRangeError, OptionError
from fiftyone_plugin.identity.constraints import Anchor, Named
from fiftyone_plugin.pipeline import ObjectPrompt, follow
from fiftyone_plugin.pipeline.backwards import WINDOW_FRAMES
from fiftyone_plugin.types import Seed, Source

RED, BLUE, GREEN = (210, 40, 40), (40, 60, 220), (40, 190, 60)
PLAIN = TrackingOptions(identity=IdentityOptions(repair=False))


@pytest.fixture
def apart(world: Any, block: Any) -> Any:
    """Three that never meet; the green one is there from frame 10 to 50 of 70 only."""
    blocks = [
        block("sheep", RED, 5, 5, 1.0),
        block("dog", BLUE, 140, 40, -1.0),
        block("sheep", GREEN, 40, 70, 0.5, 10, 50),
    ]
    return world(blocks, 70)


def prompt(world: Any, number: int, frame: int, *, phrase: str = "it", track_id: int | None = None) -> ObjectPrompt:
    truth = next(t for t in world.truth() if t.track_id == number)
    box = truth.boxes_xyxy[truth.frame_indices.tolist().index(frame)]
    return ObjectPrompt(frame, phrase, Seed(track_id or number, box_xyxy=box))


def run(world: Any, models: Any, prompts: list[ObjectPrompt], options: TrackingOptions = PLAIN, **more: Any) -> Any:
    return follow(world, prompts, options, propagator=models.propagator, embedder=models.embedder, **more)


def test_follow_one_object_both_ways_and_nobody_else(apart: Any, scripted_models: Any) -> None:
    result = run(apart, scripted_models(apart), [prompt(apart, 1, 40, phrase="my sheep")])
    (track,) = result.tracks
    truth = apart.truth()[0]
    assert track.phrase == "my sheep"
    np.testing.assert_array_equal(track.frame_indices, truth.frame_indices)
    assert track.masks == truth.masks
    assert [f for f, s in zip(track.frame_indices, track.sources, strict=True) if s is Source.SEED] == [40]
    # The way back is longer than a window.
    assert WINDOW_FRAMES < 40
    assert result.frames_processed == 70


def test_follow_objects_marked_on_different_frames_begin_where_they_are_there(apart: Any, scripted_models: Any) -> None:
    result = run(apart, scripted_models(apart), [prompt(apart, 2, 0), prompt(apart, 3, 30), prompt(apart, 1, 69)])
    assert {t.track_id: t.frame_indices.tolist() for t in result.tracks} == {
        1: list(range(70)),
        2: list(range(70)),
        3: list(range(10, 50)),
    }


def test_follow_one_object_marked_twice_is_one_track_with_two_seeds(apart: Any, scripted_models: Any) -> None:
    result = run(apart, scripted_models(apart), [prompt(apart, 1, 20), prompt(apart, 1, 50)])
    (track,) = result.tracks
    assert track.frame_indices.tolist() == list(range(70))
    assert [i for i, s in enumerate(track.sources) if s is Source.SEED] == [20, 50]


def test_follow_obeys_what_a_person_said(apart: Any, scripted_models: Any) -> None:
    x0, y0, x1, y1 = apart.truth()[0].boxes_xyxy[7].tolist()
    word = Named(Anchor(5, 7, (x0, y0, x1, y1)), "goat")
    prompts = [prompt(apart, 1, 40, phrase="sheep")]
    assert run(apart, scripted_models(apart), prompts, TrackingOptions()).tracks[0].phrase == "sheep"
    told = run(apart, scripted_models(apart), prompts, TrackingOptions(), constraints=[word])
    assert [t.phrase for t in told.tracks] == ["goat"]


def test_follow_stays_inside_the_frames_asked_for(apart: Any, scripted_models: Any) -> None:
    options = replace(PLAIN, start=15, stop=45)
    result = run(apart, scripted_models(apart), [prompt(apart, 1, 30)], options)
    assert result.tracks[0].frame_indices.tolist() == list(range(15, 45))
    assert result.frames_processed == 30


def test_follow_two_that_cross_is_checked_and_repaired(flock: Any, scripted_models: Any) -> None:
    from fiftyone_plugin.synthetic.fakes import Swap

    models = scripted_models(flock, Swap(30, (3, 4)))
    marked = [prompt(flock, number, 0, phrase="sheep") for number in (1, 2, 3, 4)]
    plain = run(flock, models, marked)
    repaired = run(flock, models, marked, TrackingOptions())
    truth = {t.track_id: t for t in flock.truth()}
    assert plain.tracks[2].boxes_xyxy[-1].tolist() == truth[4].boxes_xyxy[-1].tolist()
    assert repaired.tracks[2].boxes_xyxy[-1].tolist() == truth[3].boxes_xyxy[-1].tolist()
    assert repaired.repairs
    assert len(repaired.carried) == 4


def test_follow_progress_counts_both_ways_and_stop_is_kept(apart: Any, scripted_models: Any) -> None:
    seen: list[Any] = []
    run(apart, scripted_models(apart), [prompt(apart, 1, 40)], on_progress=seen.append)
    assert (seen[-1].frames_done, seen[-1].frames_total) == (71, 71)
    result = run(
        apart,
        scripted_models(apart),
        [prompt(apart, 1, 40)],
        should_stop=lambda: len(seen) >= 76,
        on_progress=seen.append,
    )
    assert result.was_stopped
    assert result.tracks[0].frame_indices.tolist() == [40, 41, 42, 43, 44]


@pytest.mark.parametrize(
    ("frames", "options", "error", "message"),
    [
        ([], PLAIN, OptionError, "0 objects: must be 1 to max_tracks = 64"),
        ([5, 5], PLAIN, OptionError, "object 1 is marked twice on frame 6"),
        ([5], replace(PLAIN, start=10), FrameRangeError, "marked on frame 6: must be one of the frames 11 to 70"),
    ],
    ids=["none", "twice", "outside"],
)
def test_follow_bad_prompts_are_one_clear_line(
    apart: Any, scripted_models: Any, frames: list[int], options: TrackingOptions, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(apart, scripted_models(apart), [prompt(apart, 1, f) for f in frames], options)


@pytest.mark.slow
def test_follow_with_the_bundled_model_and_clicks() -> None:
    """The real engine: one click on a sheep of the demo, in the middle of the clip."""
    from fiftyone_plugin.bundled.demo import demo_ground_truth, demo_video_path
    from fiftyone_plugin.video import open_source

    truth = demo_ground_truth()
    track = max(truth, key=lambda t: int(((t.frame_indices > 10) & (t.frame_indices < 40)).sum()))
    row = track.frame_indices.tolist().index(20)
    x0, y0, x1, y1 = track.boxes_xyxy[row]
    click = Seed(1, points_xy=np.float32([[(x0 + x1) / 2, (y0 + y1) / 2]]), point_labels=np.array([1]))
    options = replace(PLAIN, start=14, stop=26)
    result = follow(open_source(demo_video_path()), [ObjectPrompt(20, "sheep", click)], options)
    (found,) = result.tracks
    assert {19, 20, 21} <= set(found.frame_indices.tolist())
