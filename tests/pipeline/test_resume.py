"""Marked objects and audits, cut anywhere and gone on with in new objects: they end as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin import pipeline
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.errors import JobError
from fiftyone_plugin.pipeline import Backends, Checkpointing, ObjectPrompt, Progress
from fiftyone_plugin.pipeline import audit as audit_module
from fiftyone_plugin.synthetic.fakes import ScriptedEmbedder, ScriptedSession, Swap
from fiftyone_plugin.types import Frame, Seed, Track, TrackingResult

FRAMES = 60
MARKS = ((1, 12), (2, 20), (3, 20), (4, 33), (1, 50))
"""Object and frame: the way back begins at 33 and goes through three more first marks; object 1 is marked twice."""
WAY = FRAMES - 12 + 34
"""Frames that are taken: from the first mark on, and back from the last first one."""


class KilledError(Exception):
    """Stands for the end of the process: nothing behind it is run."""


def flat(value: Any) -> Any:
    """Anything in a result, comparable with ``==`` to the last bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if hasattr(value, "__dataclass_fields__"):
        return [(f.name, flat(getattr(value, f.name))) for f in fields(value)]
    if isinstance(value, tuple | list):
        return [flat(v) for v in value]
    return value


def same(a: TrackingResult, b: TrackingResult) -> bool:
    return flat(replace(a, seconds=0.0, peak_memory_mb=0.0)) == flat(replace(b, seconds=0.0, peak_memory_mb=0.0))


def dying(after: int | None) -> Callable[[Progress], None]:
    seen = 0

    def on_progress(progress: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise KilledError

    return on_progress


def stopping(after: int) -> Callable[[], bool]:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > after

    return should_stop


@pytest.fixture
def models(flock: Any, scripted_models: Callable[..., Backends]) -> Callable[[], Backends]:
    """New models every time, as another process would load them; red and blue are exchanged at frame 30."""
    return lambda: scripted_models(flock, Swap(30, (3, 4)))


@pytest.fixture
def follow(flock: Any, models: Callable[[], Backends]) -> Callable[..., TrackingResult]:
    truth = {t.track_id: t for t in flock.truth()}
    marks = tuple(ObjectPrompt(f, "sheep", Seed(i, box_xyxy=truth[i].boxes_xyxy[f])) for i, f in MARKS)

    def run(where: Checkpointing | None, *, marks: Any = marks, **more: Any) -> TrackingResult:
        made = models()
        given = {"propagator": made.propagator, "embedder": made.embedder, "checkpointing": where, **more}
        return pipeline.follow(flock, marks, TrackingOptions(), **given)

    return run


@pytest.fixture
def audit(flock: Any) -> Callable[..., TrackingResult]:
    tracks = exchanged(flock.truth(), 3, 4, 30)

    def run(where: Checkpointing | None, *, tracks: Any = tracks, **more: Any) -> TrackingResult:
        return pipeline.repair(flock, tracks, embedder=ScriptedEmbedder(), checkpointing=where, **more)

    return run


def exchanged(tracks: tuple[Track, ...], a: int, b: int, frame: int) -> tuple[Track, ...]:
    """Two tracks with what they are on from a frame on exchanged."""
    by_id = {t.track_id: t for t in tracks}
    cut = {i: int(np.searchsorted(by_id[i].frame_indices, frame)) for i in (a, b)}

    def joined(mine: int, other: int) -> Track:
        past, future = (by_id[mine], slice(None, cut[mine])), (by_id[other], slice(cut[other], None))
        columns = ("frame_indices", "boxes_xyxy", "scores", "mask_scores", "identity_confidence")
        arrays = {c: np.concatenate([getattr(t, c)[rows] for t, rows in (past, future)]) for c in columns}
        lists = {c: tuple(x for t, rows in (past, future) for x in getattr(t, c)[rows]) for c in ("masks", "sources")}
        return replace(by_id[mine], **arrays, **lists)

    return tuple({**by_id, a: joined(a, b), b: joined(b, a)}.values())


@pytest.mark.parametrize(
    ("cut", "every"), [*((cut, 7) for cut in (1, 8, 38, 46, 47, 48, 49, 50, 60, 69, WAY)), (49, 1), (63, 1)]
)
def test_marked_objects_killed_anywhere_end_as_uninterrupted(
    cut: int, every: int, follow: Callable[..., TrackingResult], tmp_path: Path
) -> None:
    where = Checkpointing(tmp_path / "run", resume=True, every_frames=every)
    with pytest.raises(KilledError):
        follow(where, on_progress=dying(cut))
    assert pipeline.is_checkpoint(where.folder) == (cut > every)
    seen: list[Progress] = []
    whole = follow(where, on_progress=seen.append)
    # Little is done twice, and the count goes on.
    assert cut - every <= seen[0].frames_done <= cut if cut > every else seen[0].frames_done == 1
    assert (seen[-1].frames_done, seen[-1].frames_total) == (WAY, WAY)
    plain = follow(None)
    assert plain.repairs
    assert plain.frames_processed == FRAMES
    assert same(whole, plain)


@pytest.mark.parametrize("stop_at", [0, 1, 47, 48, 49, 70, WAY - 1])
def test_marked_objects_stopped_go_on_where_they_were(
    stop_at: int, follow: Callable[..., TrackingResult], tmp_path: Path
) -> None:
    where = Checkpointing(tmp_path / "run", resume=True)
    half = follow(where, should_stop=stopping(stop_at))
    assert half.was_stopped
    seen: list[Progress] = []
    whole = follow(where, on_progress=seen.append)
    assert seen[0].frames_done == stop_at + 1
    assert same(whole, follow(None))


def test_marked_objects_killed_again_and_again(follow: Callable[..., TrackingResult], tmp_path: Path) -> None:
    where = Checkpointing(tmp_path / "run", resume=True, every_frames=3)
    for _ in range(11):
        with pytest.raises(KilledError):
            follow(where, on_progress=dying(7))
    assert same(follow(where), follow(None))


def test_marked_objects_finished_walk_is_not_walked_again(
    follow: Callable[..., TrackingResult], tmp_path: Path
) -> None:
    where = Checkpointing(tmp_path / "run", resume=True)
    first = follow(where)
    seen: list[Progress] = []
    assert same(follow(where, on_progress=seen.append), first)
    assert seen == []


def test_marks_that_were_changed_are_another_run(
    follow: Callable[..., TrackingResult], flock: Any, tmp_path: Path
) -> None:
    where = Checkpointing(tmp_path / "run", resume=True)
    follow(where, should_stop=stopping(30))
    moved = [ObjectPrompt(20, "sheep", Seed(1, box_xyxy=flock.truth()[0].boxes_xyxy[20]))]
    with pytest.raises(JobError, match=r"given\.marks: .* there, .* here"):
        follow(where, marks=moved)
    lenient = follow(replace(where, is_strict=False), marks=moved)
    assert [line for line in lenient.warnings if "began anew" in line]
    assert same(replace(lenient, warnings=()), follow(None, marks=moved))


def test_propagator_without_state_starts_over(
    follow: Callable[..., TrackingResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ScriptedSession, "state")
    where = Checkpointing(tmp_path / "run", resume=True)
    follow(where, should_stop=stopping(70))
    assert not where.folder.exists()
    assert same(follow(where), follow(None))


@pytest.mark.parametrize(("cut", "every"), [*((cut, 7) for cut in (1, 8, 29, 30, 59, 60)), (31, 1)])
def test_audit_killed_anywhere_ends_as_uninterrupted(
    cut: int, every: int, audit: Callable[..., TrackingResult], tmp_path: Path
) -> None:
    where = Checkpointing(tmp_path / "run", resume=True, every_frames=every)
    with pytest.raises(KilledError):
        audit(where, on_progress=dying(cut))
    assert pipeline.is_checkpoint(where.folder) == (cut > every)
    seen: list[Progress] = []
    whole = audit(where, on_progress=seen.append)
    assert seen[0].frames_done > cut - every - 1
    plain = audit(None)
    assert plain.repairs
    assert same(whole, plain)


class Panned:
    """A source whose ground moves by under the camera, one pixel a frame."""

    def __init__(self, world: Any) -> None:
        self._world, self.info, self.warnings = world, world.info, ()
        self._ground = np.random.default_rng(1).integers(0, 256, (96, 400, 3), np.uint8).repeat(4, 0).repeat(4, 1)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        for frame in self._world.frames(start, stop):
            image = self._ground[: frame.height_px, frame.index : frame.index + frame.width_px].copy()
            yield replace(frame, image_rgb=image)


def test_audit_goes_on_with_the_way_of_the_camera(flock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is followed from frame to frame, so what it knows is part of the state."""
    paths: list[Any] = []
    settle = audit_module.settle
    monkeypatch.setattr(audit_module, "settle", lambda e, *a, **k: (paths.append(e.camera), settle(e, *a, **k))[1])
    where = Checkpointing(tmp_path / "run", resume=True)

    def run(place: Checkpointing | None, **more: Any) -> None:
        pipeline.repair(Panned(flock), flock.truth(), embedder=ScriptedEmbedder(), checkpointing=place, **more)

    run(where, should_stop=stopping(31))
    run(where)
    run(None)
    assert paths[2].to_first[-1][0, 2] > 40  # it was seen to move at all
    assert flat(paths[1]) == flat(paths[2])


def test_audit_stopped_goes_on_where_it_was(audit: Callable[..., TrackingResult], tmp_path: Path) -> None:
    where = Checkpointing(tmp_path / "run", resume=True)
    half = audit(where, should_stop=stopping(31))
    assert half.was_stopped
    seen: list[Progress] = []
    whole = audit(where, on_progress=seen.append)
    assert seen[0].frames_done == 32
    assert same(whole, audit(None))


def test_audit_of_other_tracks_is_another_run(audit: Callable[..., TrackingResult], flock: Any, tmp_path: Path) -> None:
    where = Checkpointing(tmp_path / "run", resume=True)
    audit(where, should_stop=stopping(30))
    with pytest.raises(JobError, match=r"given\.rows"):
        audit(where, tracks=flock.truth())


def test_audit_does_not_go_on_with_marked_objects(
    audit: Callable[..., TrackingResult], follow: Callable[..., TrackingResult], tmp_path: Path
) -> None:
    """Both keep their state in the place of the field that they write, one after the other."""
    where = Checkpointing(tmp_path / "run", resume=True)
    follow(where, should_stop=stopping(30))
    with pytest.raises(JobError, match="another run"):
        audit(where)
    assert same(replace(audit(replace(where, is_strict=False)), warnings=()), audit(None))
