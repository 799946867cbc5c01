"""What became of a job over many videos, for people and as JSON. Knows nothing of masks and models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fiftyone_plugin.durable import write_durably

__all__ = ["DatasetSummary", "Finding", "VideoOutcome", "counted", "load_outcome", "save_outcome"]

_COUNTED = ("frames", "tracks", "encounters", "repairs", "needs_review")
_SHOWN_FAILURES = 20
"""Failures that are written out for people; all of them are in the JSON and in the job's record."""


_OUTCOME = "outcome.json"


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit has to say of one encounter: a repair, or a doubt that is left to a person."""

    kind: str
    """``crossing``, ``occlusion``, ``return``; the kind of the repair where there was no encounter."""
    outcome: str
    """``abstain`` for a doubt, else the kind of the repair."""
    phrase: str
    start: int
    stop: int
    """0-based, half-open."""
    track_ids: tuple[int, ...]
    """As they are called in the result."""
    margin: float
    """Log-odds (nats)."""
    confidence: float
    """Probability in [0, 1] that the identities are right as they stand in the result."""
    expected_error: float
    """Frames that are expected to be wrong."""
    reason: str
    """One line."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Parts of the margin by name, in the same unit."""

    @property
    def is_doubt(self) -> bool:
        """Whether it was left as it is, for a person to decide."""
        return self.outcome == "abstain"


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
    findings: tuple[Finding, ...] = ()
    """Of an audit: every repair and every doubt, in order of time."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        plain = {**asdict(self), "warnings": list(self.warnings)}
        return {**plain, "findings": [{**asdict(f), "track_ids": list(f.track_ids)} for f in self.findings]}


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
        """One line per video that failed, which names it once."""
        return tuple(
            video.error if video.error.startswith(video.source) else f"{video.source}: {video.error}"
            for video in self.videos
            if video.error
        )

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
            "videos": [v.as_dict() for v in self.videos],
        }

    def lines(self) -> list[str]:
        """The outcome for people."""
        found = self.as_dict()
        done = [v for v in self.videos if not v.error and not v.was_done]
        place = f"labels in {self.field!r}" if self.field else "nothing was written"
        skipped = sum(v.was_done for v in self.videos)
        text = []
        if done or not skipped:
            doubts = counted(found["needs_review"], "encounter")
            frames = f"{counted(found['frames'], 'frame')} of {counted(len(done), 'video')}"
            text += [
                f"{counted(found['tracks'], 'track')} in {frames}, {found['seconds']:.1f} s",
                f"{counted(found['repairs'], 'repair')}, {doubts} to look at, {place}",
            ]
        if skipped:
            text.append(f"finished before, and left as it is: {counted(skipped, 'video')}")
        if self.failures:
            of = f"{len(self.failures)} of {counted(len(self.videos), 'video')}"
            text.append(f"{of} failed; the same call tries them again")
        if self.was_cancelled:
            text.append("stopped before the end; the same call goes on with the videos that are left")
        return text

    def failure_lines(self) -> list[str]:
        """Which videos failed and why, for people: no more than they would read."""
        hidden = len(self.failures) - _SHOWN_FAILURES
        more = [f"... and {hidden} more; the job {self.job_id} lists them all"] if hidden > 0 else []
        return [*self.failures[:_SHOWN_FAILURES], *more]


def counted(count: int, noun: str) -> str:
    """``1 video``, ``2 videos``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def save_outcome(folder: Path, about: Mapping[str, Any], outcome: VideoOutcome) -> None:
    """Keep what became of a video, for a later call of the same job; a disk that is full costs only that.

    Args:
        folder: Of this video; made if it is not there.
        about: Plain values that differ where the outcome might.
        outcome: Of a video that worked.
    """
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / _OUTCOME, json.dumps({"about": dict(about), "outcome": outcome.as_dict()}).encode())


def load_outcome(folder: Path, about: Mapping[str, Any]) -> VideoOutcome | None:
    """What `save_outcome` kept there; None where there is nothing, or of something else."""
    try:
        kept = json.loads((folder / _OUTCOME).read_bytes())
        if kept["about"] != json.loads(json.dumps(dict(about))):
            return None
        plain = kept["outcome"]
        findings = tuple(Finding(**{**f, "track_ids": tuple(f["track_ids"])}) for f in plain["findings"])
        return VideoOutcome(**{**plain, "warnings": tuple(plain["warnings"]), "findings": findings})
    except (OSError, ValueError, KeyError, TypeError):
        return None
