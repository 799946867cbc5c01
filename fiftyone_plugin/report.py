"""What a run concluded, in numbers, in lines for people, and as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fiftyone_plugin.exporters import write_atomically
from fiftyone_plugin.types import Decision, Repair, RepairKind, TrackingResult

__all__ = ["as_report", "decision_lines", "summary", "write_dataset_report", "write_report"]


def summary(result: TrackingResult) -> dict[str, Any]:
    """Counts under the keys of the command line's JSON contract."""
    return {
        "frames": result.frames_processed,
        "tracks": len(result.tracks),
        "encounters": len(result.encounters),
        "repairs": len(result.repairs),
        "needs_review": len(result.needs_review),
        "seconds": round(result.seconds, 3),
        "peak_memory_mb": round(result.peak_memory_mb, 1),
    }


def decision_lines(result: TrackingResult) -> list[str]:
    """One line per repair, and one per encounter that a person should look at."""
    lines = [
        # Masks made anew say nothing of who is who.
        f"frame {r.start}: {r.reason}" + (f" (margin {r.margin:.1f})" if r.kind is not RepairKind.RESEED else "")
        for r in result.repairs
    ]
    for d in result.needs_review:
        e = d.encounter
        ids = " and ".join(str(i) for i in e.track_ids)
        lines.append(f"frames {e.start} to {e.stop - 1}: please look at {e.phrase} {ids} (margin {d.margin:.1f})")
    return lines


def as_report(result: TrackingResult) -> dict[str, Any]:
    """Everything but the masks, ready for JSON; frames are 0-based."""
    return {
        **summary(result),
        "video": {
            "source": result.video.source,
            "width_px": result.video.width_px,
            "height_px": result.video.height_px,
            "frame_count": result.video.frame_count,
            "frames_per_second": result.video.frames_per_second,
        },
        "settings": dict(result.settings),
        "warnings": list(result.warnings),
        "track_list": [
            {
                "track_id": t.track_id,
                "phrase": t.phrase,
                "first_frame": int(t.frame_indices[0]),
                "last_frame": int(t.frame_indices[-1]),
                "frames": len(t),
                "mean_score": round(float(t.scores.mean()), 4),
                "min_identity_confidence": round(float(t.identity_confidence.min()), 4),
            }
            for t in result.tracks
            if len(t)
        ],
        "decision_list": [_decision(d) for d in result.decisions],
        "repair_list": [_repair(r) for r in result.repairs],
    }


def write_report(path: Path, result: TrackingResult) -> None:
    """Write `as_report` to a file, whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    write_atomically(path, json.dumps(as_report(result), indent=1).encode())


def write_dataset_report(path: Path, outcome: Mapping[str, Any], videos: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what became of a job over many videos to one file, whole or not at all.

    Args:
        path: The file.
        outcome: The job's totals, and its ``videos``, each with its ``source``.
        videos: More about videos by source, such as their tracks and decisions.

    Raises:
        OutputError: The file cannot be written.
    """
    told = [{**video, **videos.get(video["source"], {})} for video in outcome["videos"]]
    write_atomically(path, json.dumps({**outcome, "videos": told}, indent=1).encode())


def _decision(d: Decision) -> dict[str, Any]:
    e = d.encounter
    return {
        "encounter": e.encounter_id,
        "kind": e.kind.value,
        "phrase": e.phrase,
        "start": e.start,
        "stop": e.stop,
        "track_ids": list(e.track_ids),
        "outcome": d.outcome.value,
        "margin": round(d.margin, 4),
        "confidence": round(d.confidence, 4),
        "terms": {k: round(v, 4) for k, v in d.terms.items()},
    }


def _repair(r: Repair) -> dict[str, Any]:
    return {
        "repair": r.repair_id,
        "kind": r.kind.value,
        "start": r.start,
        "stop": r.stop,
        "continues": {str(k): list(v) if v is not None else None for k, v in r.continues.items()},
        "relabels": {str(k): v for k, v in r.relabels.items()},
        "margin": round(r.margin, 4),
        "reason": r.reason,
        "encounter": r.encounter_id,
    }
