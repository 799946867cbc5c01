"""Jobs over a dataset: what is done, what is left, what a failure costs; scripted pipeline, real database."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin import runner
from fiftyone_plugin.config import AssociationOptions, TrackingOptions
from fiftyone_plugin.errors import FieldConflictError, OutputError, PromptError, VideoError
from fiftyone_plugin.runner import DatasetProgress

pytestmark = pytest.mark.fiftyone


def test_track_dataset_every_video_gets_labels(labels: ModuleType, dataset: Any, scripted: Any) -> None:
    summary = runner.track_dataset(dataset, "sheep. dog.")
    assert [(v.tracks, v.frames, v.error) for v in summary.videos] == [(3, 12, ""), (3, 12, "")]
    assert [len(labels.read_tracks(sample, "tracks")) for sample in dataset] == [3, 3]
    counts = summary.as_dict()
    assert {k: counts[k] for k in ("frames", "tracks", "encounters", "repairs", "needs_review", "seconds")} == {
        "frames": 24,
        "tracks": 6,
        "encounters": 4,
        "repairs": 2,
        "needs_review": 2,
        "seconds": 3.0,
    }
    assert summary.lines()[0] == "6 tracks in 24 frames of 2 videos, 3.0 s"


def test_track_dataset_by_name_and_progress_counts_videos(dataset: Any, scripted: Any) -> None:
    seen: list[DatasetProgress] = []
    runner.track_dataset(dataset.name, "sheep", on_progress=seen.append)
    assert [(p.video_number, p.frames_done) for p in seen] == [(v, f) for v in (1, 2) for f in range(1, 13)]
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert (fractions[11], fractions[-1]) == (0.5, 1.0)
    assert seen[12].line == "video 2 of 2, frame 1 of 12, 3 objects, 10.0 frames/s"


def test_track_dataset_failure_in_one_video_does_not_lose_the_others(
    labels: ModuleType, dataset: Any, scripted: Any
) -> None:
    scripted.failures[1] = VideoError("flock.mp4: damaged: give another")
    summary = runner.track_dataset(dataset, "sheep")
    assert [bool(v.error) for v in summary.videos] == [True, False]
    assert summary.failures[0].endswith("flock.mp4: damaged: give another")
    assert labels.field_state(dataset, "tracks").finished == {dataset.last().id}
    # The same call goes on with what is left.
    again = runner.track_dataset(dataset, "sheep")
    assert [(v.was_done, v.tracks) for v in again.videos] == [(False, 3), (True, 0)]
    assert len(scripted.calls) == 3


def test_track_dataset_bug_in_one_video_is_named(dataset: Any, scripted: Any) -> None:
    scripted.failures[1] = ZeroDivisionError("division by zero")
    summary = runner.track_dataset(dataset, "sheep")
    assert summary.videos[0].error == "unexpected ZeroDivisionError: division by zero"
    assert summary.videos[1].tracks == 3


def test_track_dataset_full_disk_stops_the_job(
    labels: ModuleType, dataset: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OutputError("the database refused (no space left)")

    monkeypatch.setattr(labels, "write_tracks", refuse)
    summary = runner.track_dataset(dataset, "sheep")
    assert (len(scripted.calls), summary.was_cancelled, len(summary.failures)) == (1, True, 1)


def test_track_dataset_cancelled_keeps_finished_videos(labels: ModuleType, dataset: Any, scripted: Any) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 18  # in the middle of the second video

    summary = runner.track_dataset(dataset, "sheep", should_stop=should_stop)
    first, second = dataset
    assert (summary.was_cancelled, len(summary.videos)) == (True, 2)
    state = labels.field_state(dataset, "tracks")
    assert (state.finished, state.started) == ({first.id}, {first.id, second.id})
    assert len(labels.read_tracks(first, "tracks")) == 3
    runner.track_dataset(dataset, "sheep")
    assert [len(labels.read_tracks(sample, "tracks")) for sample in dataset] == [3, 3]


def test_track_dataset_other_prompt_or_settings_need_overwrite(dataset: Any, scripted: Any) -> None:
    runner.track_dataset(dataset, "sheep")
    with pytest.raises(FieldConflictError, match=r"of 2 of these videos \(prompt 'sheep'\)"):
        runner.track_dataset(dataset, "dog")
    often = TrackingOptions(association=AssociationOptions(redetect_every_frames=4))
    with pytest.raises(FieldConflictError):
        runner.track_dataset(dataset, "sheep", options=often)
    assert len(scripted.calls) == 2
    runner.track_dataset(dataset, "dog", overwrite=True)
    assert len(scripted.calls) == 4


def test_track_dataset_field_of_others_is_refused_before_any_work(fo: ModuleType, dataset: Any, scripted: Any) -> None:
    dataset.add_frame_field("tracks", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for overwrite in (False, True):
        with pytest.raises(FieldConflictError, match="never overwritten"):
            runner.track_dataset(dataset, "sheep", overwrite=overwrite)
    assert scripted.calls == []


@pytest.mark.parametrize("prompt", ["", " . , "])
def test_track_dataset_without_a_class_says_so(dataset: Any, scripted: Any, prompt: str) -> None:
    with pytest.raises(PromptError):
        runner.track_dataset(dataset, prompt)


def test_track_dataset_unknown_name_lists_the_known(fo: ModuleType, dataset: Any) -> None:
    with pytest.raises(VideoError, match=f"no dataset 'nowhere': must be one of .*{dataset.name}"):
        runner.track_dataset("nowhere", "sheep")


def _progress(frame: int) -> DatasetProgress:
    return DatasetProgress(1, 1, "flock.mp4", frame, frame + 1, 12, 3, "track", 1.0)


def test_stream_yields_the_newest_progress_and_returns_the_result() -> None:
    def job(on_progress: Callable[[DatasetProgress], None], should_stop: Callable[[], bool]) -> str:
        for frame in range(12):
            on_progress(_progress(frame))
        return "done"

    returned: list[str] = []

    def listen() -> Iterator[DatasetProgress]:
        returned.append((yield from runner.stream(job)))

    seen = [progress.frames_done for progress in listen()]
    assert returned == ["done"]
    assert seen == sorted(set(seen))
    assert seen[-1] == 12


def test_stream_passes_on_what_the_job_raises() -> None:
    def job(on_progress: Any, should_stop: Any) -> None:
        on_progress(_progress(0))
        raise VideoError("flock.mp4: damaged")

    with pytest.raises(VideoError, match="damaged"):
        list(runner.stream(job))


@pytest.mark.parametrize("let_go", ["close", "forget"])
def test_stream_that_nobody_listens_to_stops_the_job(let_go: str) -> None:
    ended = threading.Event()

    def job(on_progress: Any, should_stop: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not should_stop() and time.monotonic() < deadline:
            on_progress(_progress(0))
            time.sleep(0.001)
        if should_stop():
            ended.set()

    generator = runner.stream(job)
    next(generator)
    if let_go == "close":
        generator.close()
    else:
        del generator
        gc.collect()
    assert ended.wait(5)
