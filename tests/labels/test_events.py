"""Events and summaries of a result, without FiftyOne's labels."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import pytest

from fiftyone_plugin.types import (
    Decision,
    Encounter,
    EncounterKind,
    Outcome,
    Repair,
    RepairKind,
    TrackingResult,
)

pytestmark = pytest.mark.fiftyone


def test_events_of_return_is_recognised_and_a_takeover_is_reassigned(
    labels: ModuleType, result: TrackingResult
) -> None:
    comeback = Encounter(5, EncounterKind.RETURN, "sheep", 2, 7, (2,))
    takeover = Encounter(6, EncounterKind.CROSSING, "sheep", 4, 8, (1, 3))
    changed = replace(
        result,
        decisions=tuple(Decision(e, Outcome.REASSIGN, 3.0, 0.9) for e in (comeback, takeover)),
        repairs=(
            Repair(1, RepairKind.REASSIGN, 6, None, {4: (2, 2)}, {4: 2}, 3.0, "2 came back", 5),
            Repair(2, RepairKind.REASSIGN, 5, None, {3: (1, 3)}, {3: 1}, 3.0, "1 had moved on", 6),
            Repair(3, RepairKind.TRIM, 10, 12, {3: None}, {3: None}, 1.0, "nothing there"),
        ),
    )
    found = {e.kind: (e.start, e.stop, e.track_ids) for e in labels.events_of(changed)}
    assert found["return_recognised"] == (2, 7, (2,))
    assert found["reassigned"] == (4, 8, (1,))
    assert found["trimmed"] == (10, 12, (3,))


def test_events_of_part_of_a_video_are_measured_against_that_part(labels: ModuleType, result: TrackingResult) -> None:
    # Tracked from frame 4 to 12: the dog that begins at frame 4 is no birth, nobody is lost before it.
    late = replace(result, tracks=result.tracks[2:], decisions=(), repairs=(), frames_processed=8)
    assert labels.events_of(replace(late, settings={"start": 4})) == ()
    (birth,) = labels.events_of(replace(late, frames_processed=12, settings={"start": 0}))
    assert (birth.kind, birth.start, birth.stop) == ("birth", 4, 5)


def test_summary_of_is_plain_json(labels: ModuleType, result: TrackingResult) -> None:
    summary = labels.summary_of(result)
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["start"], summary["stop"], summary["seconds"]) == (0, 12, 1.5)
    assert summary["tracks"][1]["min_identity_confidence"] == pytest.approx(0.7)
