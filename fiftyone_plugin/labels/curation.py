"""What helps to find the videos that need a person: numbers per video for the sidebar, and saved views.

The numbers follow from the stored summary, so they are as cheap for a long video as for a short one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
from fiftyone import ViewField

from fiftyone_plugin.errors import FieldConflictError
from fiftyone_plugin.labels.events import EventKind, events_of_summary
from fiftyone_plugin.labels.media import collection_of
from fiftyone_plugin.labels.ownership import field_state, stats_field

__all__ = ["DOUBTFUL_CONFIDENCE", "save_views", "stats_of", "write_stats"]

DOUBTFUL_CONFIDENCE = 0.8
"""An identity less certain than this, in [0, 1], is called low in the saved view."""
_MARK = "Made by Shepherd"


def stats_of(summary: Mapping[str, Any]) -> dict[str, float | int]:
    """A run's summary of one video in the numbers that the sidebar filters and sorts by."""
    kinds = [event.kind for event in events_of_summary(summary)]
    repaired = (
        EventKind.SWAP_REPAIRED,
        EventKind.RETURN_RECOGNISED,
        EventKind.REASSIGNED,
        EventKind.SPLIT,
        EventKind.TRIMMED,
        EventKind.MASKS_REPAIRED,
    )
    confidences = [line["min_identity_confidence"] for line in summary["tracks"]]
    return {
        "tracks": len(summary["tracks"]),
        "repairs": sum(kind in repaired for kind in kinds),
        "returns": kinds.count(EventKind.RETURN_RECOGNISED),
        "needs_review": kinds.count(EventKind.NEEDS_REVIEW),
        "reviewed": kinds.count(EventKind.REVIEWED),
        "min_identity_confidence": float(min(confidences, default=1.0)),
    }


def write_stats(target: Any, field: str, summary: Mapping[str, Any]) -> None:
    """Replace the numbers of a target; every image of a sequence gets them, so that a filter keeps it whole."""
    collection = collection_of(target)
    stats = stats_of(summary)
    values = {key: fo.DynamicEmbeddedDocument(**stats) for key in collection.values("id")}
    collection.set_values(stats_field(field), values, key_field="id", validate=False, expand_schema=False)


def save_views(dataset: Any, field: str) -> tuple[str, ...]:
    """Make, or refresh, the saved views of a field of ours; views of others with such a name are left alone.

    Returns:
        The names of the views.

    Raises:
        FieldConflictError: The field is not ours.
    """
    state = field_state(dataset, field)
    if not state.is_ours or dataset.get_field(stats_field(state.field)) is None:
        raise FieldConflictError(f"field {field!r} of dataset {dataset.name!r}: holds no tracks of this plugin")
    path = stats_field(state.field)

    def number(name: str) -> Any:
        return ViewField(f"{path}.{name}")

    views = {
        "needs review": dataset.match(number("needs_review") > 0).sort_by(number("needs_review"), reverse=True),
        "has returns": dataset.match(number("returns") > 0),
        "repaired": dataset.match(number("repairs") > 0).sort_by(number("repairs"), reverse=True),
        "low identity confidence": dataset.match(number("min_identity_confidence") < DOUBTFUL_CONFIDENCE).sort_by(
            number("min_identity_confidence")
        ),
    }
    made = []
    for name, view in views.items():
        full = f"{state.field}: {name}"
        if dataset.has_saved_view(full):
            if not str(dataset.get_saved_view_info(full).get("description") or "").startswith(_MARK):
                continue
            dataset.delete_saved_view(full)
        dataset.save_view(full, view, description=f"{_MARK}: videos by what happened to the tracks in {state.field!r}")
        made.append(full)
    return tuple(made)
