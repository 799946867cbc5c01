"""Tracks of another tool, audited: the tracks are the world's own, spoilt to order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin import metrics, pipeline
from fiftyone_plugin.errors import TrackFileError
from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.pipeline import views
from fiftyone_plugin.synthetic import scenes
from fiftyone_plugin.synthetic.fakes import ScriptedEmbedder
from fiftyone_plugin.types import Track


def cut(track: Track, rows: slice, **changes: Any) -> Track:
    """Some rows of a track."""
    return replace(
        track,
        frame_indices=track.frame_indices[rows],
        boxes_xyxy=track.boxes_xyxy[rows],
        masks=track.masks[rows] if track.masks is not None else None,
        scores=track.scores[rows],
        mask_scores=track.mask_scores[rows],
        identity_confidence=track.identity_confidence[rows],
        sources=track.sources[rows],
        **changes,
    )


def joined(first: Track, second: Track) -> Track:
    """The rows of two tracks under the id of the first."""
    return replace(
        first,
        frame_indices=np.concatenate([first.frame_indices, second.frame_indices]),
        boxes_xyxy=np.concatenate([first.boxes_xyxy, second.boxes_xyxy]),
        masks=None if first.masks is None or second.masks is None else first.masks + second.masks,
        scores=np.concatenate([first.scores, second.scores]),
        mask_scores=np.concatenate([first.mask_scores, second.mask_scores]),
        identity_confidence=np.concatenate([first.identity_confidence, second.identity_confidence]),
        sources=first.sources + second.sources,
    )


def exchanged(tracks: tuple[Track, ...], a: int, b: int, frame: int) -> tuple[Track, ...]:
    """Two tracks with their futures exchanged from a frame on."""
    by_id = {t.track_id: t for t in tracks}
    rows = {i: int(np.searchsorted(by_id[i].frame_indices, frame)) for i in (a, b)}
    past = {i: cut(by_id[i], slice(None, rows[i])) for i in (a, b)}
    future = {i: cut(by_id[i], slice(rows[i], None)) for i in (a, b)}
    by_id[a], by_id[b] = joined(past[a], future[b]), joined(past[b], future[a])
    return tuple(by_id.values())


def boxes_only(tracks: tuple[Track, ...]) -> tuple[Track, ...]:
    return tuple(replace(t, masks=None) for t in tracks)


@pytest.mark.parametrize("has_masks", [True, False], ids=["masks", "boxes"])
def test_swap_in_tracks_of_another_tool_is_repaired(flock: Any, has_masks: bool) -> None:
    spoilt = exchanged(flock.truth(), 3, 4, 30)
    given = spoilt if has_masks else boxes_only(spoilt)
    result = pipeline.repair(flock, given, embedder=ScriptedEmbedder())
    # The exchange may be placed a frame early or late, since nothing is seen of the one behind just then.
    before, after = (metrics.evaluate(flock.truth(), tracks).as_dict() for tracks in (spoilt, result.tracks))
    assert after["IDF1"] > 97 > 80 > before["IDF1"]
    assert all((t.masks is not None) == has_masks for t in result.tracks)


def test_track_that_was_broken_in_two_is_joined(flock: Any) -> None:
    green, *others = flock.truth()
    broken = (cut(green, slice(None, 25)), cut(green, slice(32, None), track_id=9), *others)
    result = pipeline.repair(flock, broken, embedder=ScriptedEmbedder())
    assert len(result.tracks) == 4
    assert metrics.evaluate(flock.truth(), result.tracks).as_dict()["IDSW"] == 0


def test_correct_tracks_come_out_as_they_went_in(flock: Any) -> None:
    result = pipeline.repair(flock, flock.truth(), embedder=ScriptedEmbedder())
    assert result.repairs == ()
    for before, after in zip(flock.truth(), result.tracks, strict=True):
        assert (before.track_id, before.masks) == (after.track_id, after.masks)
        assert before.boxes_xyxy.tobytes() == after.boxes_xyxy.tobytes()


def test_no_tracks_give_no_tracks(flock: Any) -> None:
    result = pipeline.repair(flock, (), embedder=ScriptedEmbedder())
    assert (result.tracks, result.frames_processed) == ((), 0)


def test_tracks_longer_than_the_video_are_refused(world: Any, flock: Any) -> None:
    short = world(flock.blocks, 20)
    with pytest.raises(TrackFileError, match=r"frame 59 .*has 20 frames"):
        pipeline.repair(short, flock.truth(), embedder=ScriptedEmbedder())


def test_masks_of_another_frame_size_are_refused(flock: Any) -> None:
    track = cut(flock.truth()[0], slice(0, 1))
    small = replace(track, masks=(encode_mask(np.ones((10, 12), np.bool_)),))
    with pytest.raises(TrackFileError, match="12 x 10 px but the video is 160 x 96 px"):
        pipeline.repair(flock, (small,), embedder=ScriptedEmbedder())


def test_stopped_audit_returns_every_track_and_says_how_far_it_looked(flock: Any) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 10

    result = pipeline.repair(flock, flock.truth(), embedder=ScriptedEmbedder(), should_stop=should_stop)
    assert result.frames_processed == 10
    assert len(result.tracks) == 4
    assert any("stopped before frame 10" in w for w in result.warnings)


def test_audit_only_reads_the_frames_that_have_tracks(flock: Any) -> None:
    """A track file that covers a minute of an hour must not cost the hour."""
    told: list[int] = []
    part = tuple(cut(t, slice(20, 30)) for t in flock.truth())
    result = pipeline.repair(
        flock, part, embedder=ScriptedEmbedder(), on_progress=lambda progress: told.append(progress.frame_index)
    )
    assert told == list(range(20, 30))
    assert result.frames_processed == 10


def test_only_masks_that_the_propagator_scored_count_however_poor(
    flock: Any, scripted_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poor views of tracks of others harm tracks that are right."""
    scored: set[bool] = set()
    judge = views.judge_views

    def spy(*given: Any, **more: Any) -> Any:
        scored.add(more["mask_scores"] is not None)
        return judge(*given, **more)

    monkeypatch.setattr(views, "judge_views", spy)
    pipeline.repair(flock, flock.truth(), embedder=ScriptedEmbedder())
    assert scored == {False}
    scored.clear()
    pipeline.track(flock, "sheep.", backends=scripted_models(flock))
    assert scored == {True}


def test_true_tracks_of_animals_behind_a_tree_stay_as_they_are() -> None:
    """What can be seen of an animal half hidden looks like somebody else: it must not count as a view of it."""
    clip = scenes.flock(301, frames=120, look_alike=0.7)
    audited = pipeline.repair(clip.source, clip.ground_truth())
    assert audited.repairs == ()
