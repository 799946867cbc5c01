from __future__ import annotations

from dataclasses import replace

from fiftyone_plugin.report import decision_lines
from fiftyone_plugin.types import Repair, RepairKind, TrackingResult


def test_every_repair_and_every_doubt_is_a_line(result: TrackingResult) -> None:
    assert decision_lines(result) == [
        "frame 6: 1 and 2 swapped (margin 4.5)",
        "frames 8 to 9: please look at sheep 1 and 2 (margin 0.4)",
    ]


def test_filled_gap_has_no_margin(result: TrackingResult) -> None:
    filled = Repair(2, RepairKind.RESEED, 3, 6, {9: (2, 2)}, {9: 2}, 0.0, "3 masks were put into a gap")
    line = decision_lines(replace(result, repairs=(filled,)))[0]
    assert line == "frame 3: 3 masks were put into a gap"
