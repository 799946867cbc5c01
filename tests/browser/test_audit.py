"""An audit of tracks of another tool in the FiftyOne App: report first, then the repaired tracks; in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fiftyone_plugin.bundled.demo import demo_ground_truth

pytestmark = [pytest.mark.browser, pytest.mark.fiftyone, pytest.mark.slow]

SWAPPED, SWAP_FRAME = (1, 2), 60
BROKEN, BREAK_FRAME, NEW_ID = 4, 30, 9
FIELD, MENDED = "theirs", "theirs_repaired"


@pytest.fixture(scope="module")
def audited(fo: Any, clip: Any) -> Iterator[Any]:
    """The clip with true tracks as plain detections, of which two exchange their objects, and one is broken in two."""
    sample = clip.first()
    width, height = sample.metadata.frame_width, sample.metadata.frame_height
    found: dict[int, list[Any]] = {}
    for track in demo_ground_truth():
        for frame, (x0, y0, x1, y1) in zip(track.frame_indices.tolist(), track.boxes_xyxy.tolist(), strict=True):
            box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
            index = _index(track.track_id, frame)
            found.setdefault(frame + 1, []).append(fo.Detection(label=track.phrase, bounding_box=box, index=index))
    for number, detections in found.items():
        sample.frames[number][FIELD] = fo.Detections(detections=detections)
    sample.save()
    return clip


def _index(track_id: int, frame: int) -> int:
    if track_id in SWAPPED and frame >= SWAP_FRAME:
        return sum(SWAPPED) - track_id
    return NEW_ID if track_id == BROKEN and frame >= BREAK_FRAME else track_id


def test_audit_reports_first_and_then_repairs(app: Any, audited: Any, labels: Any) -> None:
    page = app.page
    app.open(audited.name)

    # Look first: the report names what was done to the tracks, and nothing is written.
    form = app.start_operator("Audit and repair tracks")
    form.get_by_text("Report only").wait_for()
    app.press(form, "Execute")
    page.get_by_role("heading", name="2 repairs would be made").wait_for(timeout=240_000)
    for line in ("sheep 1 and sheep 2, hidden for a moment: exchange the two back", "sheep 4, gone and back: join"):
        page.get_by_text(line).wait_for()
    page.wait_for_timeout(500)
    app.shoot("audit-report")
    audited.reload()
    assert not audited.has_frame_field(MENDED)
    page.get_by_role("button", name="Done").click()
    form.wait_for(state="hidden")

    # Then repair: the two are exchanged back in the new field, and the broken one is whole.
    form = app.start_operator("Audit and repair tracks")
    form.get_by_text("Report only").click()
    form.get_by_text("Field for the repaired tracks").wait_for()
    app.press(form, "Execute")
    page.get_by_role("heading", name="2 repairs made").wait_for(timeout=240_000)
    page.wait_for_timeout(500)
    app.shoot("audit-done")
    audited.reload()
    repaired = {t.track_id: set(t.frame_indices.tolist()) for t in labels.read_tracks(audited.first(), MENDED)}
    truth = {t.track_id: set(t.frame_indices.tolist()) for t in demo_ground_truth()}
    assert repaired == truth
    # What was given is as it was.
    assert NEW_ID in {t.track_id for t in labels.read_tracks(audited.first(), FIELD)}
