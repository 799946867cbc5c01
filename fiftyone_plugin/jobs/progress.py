"""Where a job is: one object for the command line, the App and whoever asks from another process.

Knows nothing of how work is done or where progress is kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

__all__ = ["JobProgress", "Pace", "duration"]

_PACE_FRAMES = 32
"""Reports over which the speed is taken: long enough to be steady, short enough to follow the number of objects."""

_STEPS = {
    "trace": "tracing objects back to where they came from",
    "repair": "repairing identities of {} objects",
    "fill": "filling gaps in tracks",
}
"""What is said of stages that do not go by frames."""


def duration(seconds: float) -> str:
    """A duration to the precision that an estimate has: ``40 s``, ``12 min``, ``3.5 h``, ``4 days``."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{round(seconds / 86400)} days"


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Where a job over one or many videos is."""

    video_number: int
    """1-based."""
    videos_total: int
    source: str
    """File, or folder of images."""
    frame_index: int
    """0-based, in this video."""
    frames_done: int
    """Of this video, those of earlier processes included."""
    frames_total: int
    """Of this video."""
    tracks_live: int
    """Objects that are followed now."""
    stage: str
    """As of `pipeline.Progress`."""
    seconds: float
    """Work on this video, that of earlier processes included."""
    frames_per_second: float = 0.0
    """Lately; 0 while it is not known."""
    seconds_left: float | None = None
    """For the whole job, at that speed; None while it is not known."""
    steps_done: int = 0
    """Of stages that do not go by frames."""
    steps_total: int = 0

    @property
    def fraction(self) -> float:
        """Part of the whole job that is done, in [0, 1], as if all videos were equally long."""
        inside = min(self.frames_done / self.frames_total, 1.0) if self.frames_total else 0.0
        return (self.video_number - 1 + inside) / self.videos_total

    @property
    def line(self) -> str:
        """One line for people."""
        name = PurePath(self.source).name
        where = f"video {self.video_number} of {self.videos_total} ({name}), " if self.videos_total > 1 else ""
        if self.stage in _STEPS:
            at = f", {self.steps_done + 1} of {self.steps_total}" if self.steps_total else ""
            return f"{where}{_STEPS[self.stage].format(self.tracks_live)}{at}"
        rate = f", {self.frames_per_second:.1f} frames/s" if self.frames_per_second > 0 else ""
        left = f", {duration(self.seconds_left)} left" if self.seconds_left else ""
        return f"{where}frame {self.frames_done} of {self.frames_total}, {self.tracks_live} objects{rate}{left}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with `fraction` and `line`."""
        return {**asdict(self), "fraction": self.fraction, "line": self.line}


class Pace:
    """Speed of the work, from what it reports.

    Time is the work's own clock (`JobProgress.seconds`), so a pause between two processes does not count.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque(maxlen=_PACE_FRAMES)
        self._rate = 0.0

    def new_video(self) -> None:
        """Begin the next video, whose clock starts again; the speed stays until a better one is known."""
        self._points.clear()

    def frames_per_second(self, frames_done: int, seconds: float) -> float:
        """Take a report, and tell the speed; 0 while it is not known."""
        if self._points and frames_done <= self._points[-1][1]:
            return self._rate
        self._points.append((seconds, frames_done))
        (first_seconds, first_frames), (last_seconds, last_frames) = self._points[0], self._points[-1]
        if last_seconds > first_seconds:
            self._rate = (last_frames - first_frames) / (last_seconds - first_seconds)
        return self._rate
