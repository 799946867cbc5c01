"""What became of a job over many videos, for people and as JSON. Knows nothing of tracks, only of their number."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["DatasetSummary", "VideoOutcome"]

_COUNTED = ("frames", "tracks", "encounters", "repairs", "needs_review")
_SHOWN_FAILURES = 20
"""Failures that are written out for people; all of them are in the JSON and in the job's record."""


@dataclass(frozen=True, slots=True)
class VideoOutcome:
    """What became of one video."""

    source: str
    frames: int = 0
    tracks: int = 0
    tracks_before: int = 0
    """Of an audit: tracks that were read."""
    encounters: int = 0
    repairs: int = 0
    needs_review: int = 0
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    error: str = ""
    """One line; empty if it worked."""
    was_done: bool = False
    """An earlier run with the same settings had finished it; nothing was done again."""
    warnings: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    """Of an audit: one line per repair, and per encounter that a person should look at."""


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What became of a job."""

    field: str
    """That was written; empty where nothing was."""
    videos: tuple[VideoOutcome, ...]
    """Videos that were finished, failed, or found finished."""
    was_cancelled: bool = False
    """Stopped early; finished videos are kept, and the same call goes on with the rest."""
    job_id: str = ""
    """Under which `jobs.status` knows it."""
    trouble: str = ""
    """Why it stopped by itself, in one line, such as a disk that is full; empty if it did not."""

    @property
    def failures(self) -> tuple[str, ...]:
        """One line per video that failed."""
        return tuple(f"{video.source}: {video.error}" for video in self.videos if video.error)

    @property
    def is_failed(self) -> bool:
        """It stopped by itself, or not one video could be done."""
        return bool(self.trouble) or (bool(self.videos) and len(self.failures) == len(self.videos))

    def as_dict(self) -> dict[str, Any]:
        """Totals under the keys of the command line's JSON contract, and each video's own."""
        totals = {name: sum(getattr(v, name) for v in self.videos) for name in _COUNTED}
        return {
            **totals,
            "seconds": round(sum(v.seconds for v in self.videos), 3),
            "peak_memory_mb": round(max((v.peak_memory_mb for v in self.videos), default=0.0), 1),
            "field": self.field,
            "job_id": self.job_id,
            "failures": list(self.failures),
            "was_cancelled": self.was_cancelled,
            "videos": [{**asdict(v), "warnings": list(v.warnings), "findings": list(v.findings)} for v in self.videos],
        }

    def lines(self) -> list[str]:
        """The outcome for people."""
        found = self.as_dict()
        done = [v for v in self.videos if not v.error and not v.was_done]
        place = f"labels in {self.field!r}" if self.field else "nothing was written"
        text = [
            f"{found['tracks']} tracks in {found['frames']} frames of {len(done)} videos, {found['seconds']:.1f} s",
            f"{found['repairs']} repairs, {found['needs_review']} encounters to look at, {place}",
        ]
        if skipped := sum(v.was_done for v in self.videos):
            text.append(f"{skipped} videos were finished before and left as they are")
        if self.failures:
            text.append(f"{len(self.failures)} of {len(self.videos)} videos failed; the same call tries them again")
        if self.was_cancelled:
            text.append("stopped before the end; the same call goes on with the videos that are left")
        return text

    def failure_lines(self) -> list[str]:
        """Which videos failed and why, for people: no more than they would read."""
        hidden = len(self.failures) - _SHOWN_FAILURES
        more = [f"... and {hidden} more; the job {self.job_id} lists them all"] if hidden > 0 else []
        return [*self.failures[:_SHOWN_FAILURES], *more]
