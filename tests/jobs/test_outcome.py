"""What is said of a job over many videos."""

from __future__ import annotations

from fiftyone_plugin.jobs import DatasetSummary, VideoOutcome


def test_lines_of_a_job_that_had_nothing_left_to_do_say_only_that() -> None:
    summary = DatasetSummary("tracks", (VideoOutcome("a.mp4", was_done=True), VideoOutcome("b.mp4", was_done=True)))
    assert summary.lines() == ["finished before, and left as it is: 2 videos"]


def test_lines_count_videos_that_were_done_and_left() -> None:
    videos = (VideoOutcome("a.mp4", was_done=True), VideoOutcome("b.mp4", frames=12, tracks=1, seconds=2.0))
    assert DatasetSummary("tracks", videos).lines() == [
        "1 track in 12 frames of 1 video, 2.0 s",
        "0 repairs, 0 encounters to look at, labels in 'tracks'",
        "finished before, and left as it is: 1 video",
    ]


def test_failure_names_its_video_once() -> None:
    videos = (VideoOutcome("a.mp4", error="a.mp4: is no video"), VideoOutcome("b.mp4", error="a bug"))
    assert DatasetSummary("tracks", videos).failures == ("a.mp4: is no video", "b.mp4: a bug")
