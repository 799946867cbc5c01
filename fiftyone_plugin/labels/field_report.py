"""What the runs of a field concluded, video by video, under the keys of a report file (`fiftyone_plugin.report`).

Read from the stored summaries, so videos that an earlier call finished are in it, and what a person edited since shows
in the tracks. Reads no labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fiftyone_plugin.labels.events import ids_of_encounter
from fiftyone_plugin.labels.media import describe, load_dataset, targets
from fiftyone_plugin.labels.storage import read_summaries

__all__ = ["field_report"]

_REPAIR = ("kind", "start", "stop", "continues", "relabels", "reason")


def field_report(dataset_or_view: Any, field: str) -> dict[str, dict[str, Any]]:
    """For every video with tracks of ours in a field: video, settings, warnings, tracks, decisions and repairs.

    Args:
        dataset_or_view: A dataset, a view, or the name of a dataset.
        field: Name of the label field, without ``frames.``.

    Returns:
        Plain JSON values by the name of the video (`describe`); frames are 0-based, ranges half-open.
    """
    collection = load_dataset(dataset_or_view) if isinstance(dataset_or_view, str) else dataset_or_view
    found = list(targets(collection))
    summaries = zip(found, read_summaries(found, field), strict=True)
    return {describe(target): _report(summary) for target, summary in summaries if summary is not None}


def _report(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "video": {name: summary[name] for name in ("source", "width_px", "height_px", "frames_per_second")},
        "settings": summary["settings"],
        "warnings": summary["warnings"],
        "track_list": [_track(line) for line in summary["tracks"]],
        "decision_list": [_decision(summary, decision) for decision in summary["decisions"]],
        "repair_list": [_repair(repair) for repair in summary["repairs"]],
    }


def _track(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "track_id": line["track_id"],
        "phrase": line["phrase"],
        "first_frame": line["start"],
        "last_frame": line["stop"] - 1,
        "frames": line["frames"],
        "mean_score": round(line["mean_score"], 4),
        "min_identity_confidence": round(line["min_identity_confidence"], 4),
    }


def _decision(summary: Mapping[str, Any], decision: Mapping[str, Any]) -> dict[str, Any]:
    encounter = decision["encounter"]
    return {
        "encounter": encounter["encounter_id"],
        **{name: encounter[name] for name in ("kind", "phrase", "start", "stop")},
        "track_ids": list(ids_of_encounter(summary, encounter)),
        "outcome": decision["outcome"],
        "margin": round(decision["margin"], 4),
        "confidence": round(decision["confidence"], 4),
        "terms": {name: round(nats, 4) for name, nats in decision["terms"].items()},
    }


def _repair(repair: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "repair": repair["repair_id"],
        **{name: repair[name] for name in _REPAIR},
        "margin": round(repair["margin"], 4),
        "encounter": repair["encounter_id"],
    }
