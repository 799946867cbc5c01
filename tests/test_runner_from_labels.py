"""Jobs that read labels (audits, marked objects): what is done, what is left, what is another job; real database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin import jobs, pipeline, runner
from fiftyone_plugin.config import IdentityOptions, TrackingOptions
from fiftyone_plugin.errors import FieldConflictError, OptionError
from fiftyone_plugin.jobs import JobProgress

pytestmark = pytest.mark.fiftyone


@pytest.fixture
def tracked(fo: ModuleType, dataset: Any) -> Any:
    """Both videos hold a square as plain detections with an index, and a box to follow on frame 5."""
    for sample in dataset:
        for number in range(1, 13):
            box = [(4 + number) / 64, 10 / 48, 10 / 64, 10 / 48]
            sample.frames[number]["theirs"] = fo.Detections(
                detections=[fo.Detection(label="Square", bounding_box=box, index=1)]
            )
            if number == 5:
                sample.frames[number]["marks"] = fo.Detections(
                    detections=[fo.Detection(label="square", bounding_box=box)]
                )
        sample.save()
    return dataset


class Follower:
    """Stands in for `pipeline.follow`: what it is told, and the square on every frame."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, source: Any, prompts: Any, options: Any, *, should_stop: Any, on_progress: Any, **given: Any
    ) -> Any:
        self.calls.append({"prompts": prompts, **given})
        was_stopped = False
        for frame in source.frames():
            if was_stopped := should_stop():
                break
            on_progress(pipeline.Progress(frame.index, frame.index + 1, 12, 1, "track", 0.1))
        return replace(self.result, settings={"prompt": "", **options.as_dict()}, was_stopped=was_stopped)


@pytest.fixture
def follower(result: Any, monkeypatch: pytest.MonkeyPatch) -> Follower:
    from fiftyone_plugin import registry

    made = Follower(result)
    monkeypatch.setattr(pipeline, "follow", made)
    monkeypatch.setattr(registry, "make_propagator", lambda *a, **k: None)
    monkeypatch.setattr(registry, "make_embedder", lambda *a, **k: None)
    return made


def second_video(at: int) -> Any:
    """Asks to stop before a frame (0-based) of the second video; it is both what is asked and what is told."""
    place = [0, 0]

    def on_progress(progress: JobProgress) -> None:
        place[:] = progress.video_number, progress.frames_done

    return on_progress, lambda: place == [2, at]


@pytest.mark.parametrize("dry_run", [False, True], ids=["repair", "report"])
def test_audit_that_was_stopped_goes_on_and_keeps_finished_videos(
    dry_run: bool, labels: ModuleType, tracked: Any, monkeypatch: pytest.MonkeyPatch, shepherd_home: Path
) -> None:
    whole = runner.repair_dataset(tracked, "theirs", field="whole", dry_run=dry_run)
    on_progress, should_stop = second_video(at=4)
    cut = runner.repair_dataset(
        tracked, "theirs", field="cut", dry_run=dry_run, on_progress=on_progress, should_stop=should_stop
    )
    assert cut.was_cancelled
    assert len(cut.videos) == 1
    assert jobs.status(cut.job_id).is_resumable
    seen: list[JobProgress] = []
    again = runner.repair_dataset(tracked, "theirs", field="cut", dry_run=dry_run, on_progress=seen.append)
    # It goes on with the fifth frame of the second video.
    assert [(p.video_number, p.frames_done) for p in seen] == [(2, n) for n in range(5, 13)]
    if dry_run:
        timeless = [replace(v, seconds=0.0, peak_memory_mb=0.0) for v in again.videos]
        assert timeless == [replace(v, seconds=0.0, peak_memory_mb=0.0) for v in whole.videos]
        assert not tracked.has_frame_field("cut")
    else:
        assert [v.was_done for v in again.videos] == [True, False]
        assert labels.field_state(tracked, "cut").finished == set(tracked.values("id"))
    assert not (shepherd_home / "jobs" / again.job_id / "checkpoints").exists()


def test_audit_again_leaves_everything_as_it_is(tracked: Any) -> None:
    runner.repair_dataset(tracked, "theirs")
    again = runner.repair_dataset(tracked, "theirs")
    assert [v.was_done for v in again.videos] == [True, True]


def test_audit_of_labels_that_have_changed_needs_overwrite(tracked: Any) -> None:
    runner.repair_dataset(tracked, "theirs")
    sample = tracked.last()
    sample.frames[3].theirs.detections[0].bounding_box[0] += 0.01
    sample.save()
    with pytest.raises(FieldConflictError, match=r"other labels of 'theirs' than .*: give overwrite=True"):
        runner.repair_dataset(tracked, "theirs")
    assert [v.was_done for v in runner.repair_dataset(tracked, "theirs", overwrite=True).videos] == [False, False]


def test_audit_with_other_settings_needs_overwrite(tracked: Any) -> None:
    runner.repair_dataset(tracked, "theirs")
    sure = TrackingOptions(identity=IdentityOptions(min_margin=5.0))
    with pytest.raises(FieldConflictError, match="already holds tracks of 2"):
        runner.repair_dataset(tracked, "theirs", options=sure)


def test_report_is_made_anew_once_it_was_finished(tracked: Any) -> None:
    seen: list[JobProgress] = []
    for _ in range(2):
        runner.repair_dataset(tracked, "theirs", dry_run=True, on_progress=seen.append)
    assert len(seen) == 4 * 12


def test_marked_objects_that_were_stopped_go_on_and_keep_finished_videos(
    labels: ModuleType, tracked: Any, follower: Follower
) -> None:
    on_progress, should_stop = second_video(at=4)
    cut = runner.prompt_dataset(tracked, "marks", on_progress=on_progress, should_stop=should_stop)
    assert cut.was_cancelled
    first, second = tracked
    state = labels.field_state(tracked, "tracks")
    assert (state.finished, state.started) == ({first.id}, {first.id, second.id})
    again = runner.prompt_dataset(tracked, "marks")
    assert [v.was_done for v in again.videos] == [True, False]
    places = [call["checkpointing"] for call in follower.calls]
    assert [p.folder.name for p in places] == [first.id, second.id, second.id]
    assert all(p.resume and not p.is_strict for p in places)
    assert labels.field_state(tracked, "tracks").finished == {first.id, second.id}


def test_marks_that_have_changed_need_overwrite(fo: ModuleType, tracked: Any, follower: Follower) -> None:
    runner.prompt_dataset(tracked, "marks")
    sample = tracked.first()
    sample.frames[8]["marks"] = fo.Detections(detections=[fo.Detection(label="other", bounding_box=[0, 0, 0.3, 0.3])])
    sample.save()
    with pytest.raises(FieldConflictError, match="other labels of 'marks'"):
        runner.prompt_dataset(tracked, "marks")
    runner.prompt_dataset(tracked, "marks", overwrite=True)
    assert [len(call["prompts"]) for call in follower.calls] == [1, 1, 2, 1]


def test_number_of_a_class_that_is_not_looked_for_is_one_clear_line(tracked: Any) -> None:
    options = TrackingOptions(identity=IdentityOptions(counts={"cow": 3}))
    with pytest.raises(OptionError, match=r"^count of 'cow': must be of one of the classes sheep, dog$"):
        runner.track_dataset(tracked, "sheep. dog.", options=options)


def test_number_of_a_class_is_taken_as_the_audited_labels_name_it(
    tracked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of others are written as others like."""
    asked: list[dict[str, int]] = []
    repair = pipeline.repair

    def remembering(source: Any, tracks: Any, options: Any, **more: Any) -> Any:
        asked.append(dict(options.identity.counts))
        return repair(source, tracks, options, **more)

    monkeypatch.setattr(pipeline, "repair", remembering)
    options = TrackingOptions(identity=IdentityOptions(counts={"square": 1}))
    for target in (tracked, tracked.name):
        runner.repair_dataset(target, "theirs", options=options, dry_run=True)
    assert asked == [{"Square": 1}] * 4
    other = TrackingOptions(identity=IdentityOptions(counts={"cow": 3}))
    with pytest.raises(OptionError, match=r"^count of 'cow': must be of one of the classes square$"):
        runner.repair_dataset(tracked, "theirs", options=other)
    with pytest.raises(OptionError, match="classes sheep"):
        runner.with_counts_as_written(other, ["sheep"])
    assert runner.with_counts_as_written(other, []) is other
