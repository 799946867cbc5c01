"""The line that a person reads after a repair was taken back names the tracks that are there, in a real database."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin.identity import apply_repairs
from fiftyone_plugin.types import Repair, RepairKind, TrackingResult

pytestmark = pytest.mark.fiftyone

REPAIRS = {
    "exchange": Repair(1, RepairKind.EXCHANGE, 6, None, {1: (2, 2), 2: (1, 5)}, {1: 2, 2: 1}, 4.5, "swapped"),
    "reassign": Repair(1, RepairKind.REASSIGN, 4, None, {3: (2, 2)}, {3: 2}, 3.0, "came back"),
    "split": Repair(1, RepairKind.SPLIT, 8, None, {3: None}, {3: 4}, 2.0, "another one"),
    "trim": Repair(1, RepairKind.TRIM, 4, 6, {3: None}, {3: None}, 1.0, "sits on nothing"),
}
"""Of sheep 1 (frames 1 to 12), sheep 2 (1 to 3, 7 to 10) and dog 3 (5 to 12), as people count frames."""


@pytest.fixture
def repaired(labels: ModuleType, dataset: Any, result: TrackingResult) -> Any:
    """``repaired(*kinds)`` writes the result with these repairs, and returns its video."""

    def write(*kinds: str) -> Any:
        repairs = tuple(replace(REPAIRS[kind], repair_id=n) for n, kind in enumerate(kinds, start=1))
        carried = result.tracks
        if "reassign" in kinds:  # the second and the third are never seen at once
            carried = (carried[0], *(t if t.track_id != 2 else _first_rows(t, 3) for t in carried[1:]))
        made = replace(
            result,
            tracks=apply_repairs(carried, repairs),
            carried=carried,
            repairs=repairs,
            encounters=(),
            decisions=(),
        )
        labels.write_tracks(dataset.first(), "tracks", made)
        return dataset.first()

    return write


def _first_rows(track: Any, count: int) -> Any:
    columns = ("frame_indices", "boxes_xyxy", "masks", "scores", "mask_scores", "identity_confidence", "sources")
    return replace(track, **{name: getattr(track, name)[:count] for name in columns})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("exchange", "sheep 1 and sheep 2 are exchanged again from frame 7 on"),
        ("reassign", "sheep 2 is two tracks again, sheep 2 and dog 3 from frame 5 on"),
        ("split", "dog 4 is part of dog 3 again"),
        ("trim", "dog 3 is again on frames 5 to 6"),
    ],
)
def test_undo_of_a_repair_is_told_in_tracks_that_are_there(
    labels: ModuleType, repaired: Any, kind: str, words: str
) -> None:
    edit = labels.undo_repair(repaired(kind), "tracks", 1)
    assert edit.text == f"undid repair 1: {words}"


def test_undo_speaks_of_tracks_as_they_are_called_now(labels: ModuleType, repaired: Any) -> None:
    """The propagated track that was joined was 3, an id that nobody sees; a person has given the name meanwhile."""
    target = repaired("reassign")
    labels.relabel(target, "tracks", 2, "ram")
    labels.swap(target, "tracks", 1, 2, 0)
    edit = labels.undo_repair(target, "tracks", 1)
    now = {t.track_id: t.frame_indices.tolist() for t in labels.read_tracks(target, "tracks")}
    assert edit.text.startswith("undid repair 1: sheep 1 is two tracks again, sheep 1 and ")
    assert edit.text.endswith(" from frame 5 on")
    named = int(edit.text.removesuffix(" from frame 5 on").rpartition(" ")[2])
    assert now[named] == list(range(4, 12))
