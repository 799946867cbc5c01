"""Numbers that a person is shown while a job works."""

from __future__ import annotations

import pytest

from fiftyone_plugin import pipeline
from fiftyone_plugin.jobs import JobProgress, Pace, duration
from fiftyone_plugin.jobs.each_video import Reporter


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (40, "40 s"), (89, "89 s"), (95, "2 min"), (720, "12 min"), (12600, "3.5 h"), (400000, "5 days")],
)
def test_duration_has_the_precision_of_an_estimate(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_line_names_only_what_is_known() -> None:
    begun = JobProgress(1, 1, "flock.mp4", 0, 1, 100, 3, "track", 0.5)
    assert begun.line == "frame 1 of 100, 3 objects"
    assert begun.fraction == 0.01
    later = JobProgress(3, 4, "flock.mp4", 49, 50, 100, 3, "track", 5.0, 10.0, 95.0)
    assert later.line == "video 3 of 4 (flock.mp4), frame 50 of 100, 3 objects, 10.0 frames/s, 2 min left"
    assert later.fraction == 0.625
    repairing = JobProgress(1, 1, "flock.mp4", 99, 100, 100, 3, "repair", 10.0, 10.0, None)
    assert repairing.line == "repairing identities of 3 objects"
    filling = JobProgress(2, 2, "flock.mp4", 99, 100, 100, 3, "fill", 10.0, 10.0, None, steps_done=2, steps_total=7)
    assert filling.line == "video 2 of 2 (flock.mp4), filling gaps in tracks, 3 of 7"
    auditing = JobProgress(1, 1, "flock.mp4", 49, 50, 100, 3, "audit", 5.0, 10.0, 95.0)
    assert auditing.line == "frame 50 of 100, 3 objects, 10.0 frames/s, 2 min left"


def test_steps_of_the_work_are_told_to_the_record_and_to_whoever_called() -> None:
    class Record:
        def __init__(self) -> None:
            self.told: list[JobProgress] = []
            self.report = self.told.append

    record, called = Record(), Record()
    report = Reporter(record, called.report, videos_total=1).of_video(1, "flock.mp4", videos_after=0)  # type: ignore[arg-type]
    report(pipeline.Progress(99, 100, 100, 3, "trace", 10.0, 4, 9))
    assert record.told == called.told
    assert record.told[0].line == "tracing objects back to where they came from, 5 of 9"


def test_fraction_of_a_video_longer_than_it_said_stays_inside() -> None:
    assert JobProgress(1, 2, "flock.mp4", 119, 120, 100, 3, "track", 5.0).fraction == 0.5
    assert JobProgress(1, 2, "flock.mp4", 0, 1, 0, 3, "track", 5.0).fraction == 0.0


def test_pace_is_that_of_the_latest_frames() -> None:
    pace = Pace()
    assert pace.frames_per_second(1, 5.0) == 0.0  # one report tells nothing, the models were loaded meanwhile
    assert pace.frames_per_second(2, 5.5) == 2.0
    for frame in range(3, 103):
        rate = pace.frames_per_second(frame, 5.5 + 0.1 * (frame - 2))
    assert rate == pytest.approx(10.0)


def test_pace_of_a_resumed_run_counts_only_what_it_saw() -> None:
    pace = Pace()
    pace.frames_per_second(601, 300.0)
    assert pace.frames_per_second(602, 300.25) == 4.0


def test_pace_stays_known_over_the_next_video_and_ignores_a_repeated_report() -> None:
    pace = Pace()
    pace.frames_per_second(1, 1.0)
    pace.frames_per_second(2, 1.5)
    pace.new_video()
    assert pace.frames_per_second(1, 0.1) == 2.0
    assert pace.frames_per_second(1, 60.0) == 2.0
