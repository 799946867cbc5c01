"""From a prompt to repaired and edited tracks in the FiftyOne App, in a real browser on a real database."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.fiftyone, pytest.mark.slow]

PROMPT = "sheep. dog."
FIELD = "tracks"
SHOW, TRACK, OTHER = 0, 1, 2
"""The panel's dropdowns, from top to bottom."""


def test_whole_way_from_prompt_to_edited_tracks(app: Any, clip: Any, labels: Any) -> None:
    page = app.page
    app.open(clip.name)

    # Preview
    form = app.start_operator("Preview a tracking prompt")
    form.get_by_role("textbox").first.fill(PROMPT)
    app.press(form, "Preview")
    page.get_by_text("detections in").first.wait_for()
    page.wait_for_timeout(500)
    app.shoot("preview")
    page.keyboard.press("Escape")
    form.wait_for(state="hidden")

    # Track
    coloured: list[str] = []
    page.on("request", lambda r: coloured.append(r.url) if '"colorBy":"instance"' in (r.post_data or "") else None)
    form = app.start_operator("Track objects by name")
    form.get_by_role("textbox").first.fill(PROMPT)
    form.get_by_text("Looks for 2 classes").wait_for()
    app.shoot("track-form")
    app.press(form, "Execute")
    page.get_by_text("of 120").first.wait_for()
    app.until(lambda: _frame_of_progress(page) > 40, "progress to move on")
    app.shoot("track-progress")
    # Its last word, after which it reloads the dataset: that would close a sample that was opened too soon.
    page.get_by_text("tracks in 120 frames").first.wait_for(timeout=240_000)
    assert {line["phrase"] for line in _summary(labels, clip)["tracks"]} == {"sheep", "dog"}
    app.settle()
    assert coloured  # every track has a colour of its own, at once
    app.shoot("track-done")

    # Look at it
    app.open(clip.name)
    app.shoot("grid")
    app.open_first_sample()
    app.shoot("sample")

    # Review
    app.open_panel("review_tracks", "Review tracks")
    page.get_by_text("Worth a look", exact=True).first.wait_for()
    app.choose(SHOW, "Everything")
    picture = page.locator('#modal img[src^="data:image"]').first
    picture.wait_for()
    app.settle()
    app.shoot("review")
    page.get_by_role("tab", name="Film").click()
    page.locator("#modal video[src^='data:video']").wait_for()
    app.settle()
    app.shoot("review-film")
    page.get_by_role("tab", name="Before and after").click()
    picture.wait_for()

    # Undo one repair: in the database the tracks are what they were without it.
    before = _frames_of(clip)
    while not page.get_by_role("button", name="Undo repair").count():
        page.get_by_role("button", name="Next").click()
        app.settle()
    page.get_by_role("button", name="Undo repair").click()
    (item,) = app.until(lambda: _undone(labels, clip), "the repair to be undone in the database")
    assert item.repair_id is not None
    apart = app.until(lambda: _changed(clip, before), "the labels to be changed")
    page.get_by_role("button", name="Redo repair").wait_for()
    app.settle()
    app.dismiss()
    app.shoot("review-undone")

    # Split a track, and merge its halves: afterwards it is on the frames it was on.
    track_id = max(apart, key=lambda i: len(apart[i]))
    name = f"{_phrases(labels, clip)[track_id]} {track_id}"
    middle = sorted(apart[track_id])[len(apart[track_id]) // 2]
    app.choose(TRACK, name)
    page.locator("#modal input[type=number]").last.fill(str(middle))
    page.get_by_role("button", name=f"Split {name} at frame {middle}").click()
    halves = app.until(lambda: _changed(clip, apart), "the track to be split in the database")
    (new_id,) = set(halves) - set(apart)
    assert halves[track_id] | halves[new_id] == apart[track_id]
    assert min(halves[new_id]) == middle
    app.settle()
    app.choose(TRACK, name)  # the item, and with it the choice, may have changed
    app.choose(OTHER, f"{_phrases(labels, clip)[new_id]} {new_id}")
    page.get_by_role("button", name=f"Merge {name} and").click()
    app.until(lambda: _frames_of(clip) == apart, "the halves to be merged in the database")
    app.settle()
    app.shoot("review-merged")
    done, _ = labels.history(clip.first(), FIELD)
    assert [edit.kind for edit in done] == ["undo_repair", "split", "merge"]


def _undone(labels: Any, dataset: Any) -> list[Any]:
    return [item for item in labels.review_items(_summary(labels, dataset)) if item.state == "undone"]


def _changed(dataset: Any, before: dict[int, set[int]]) -> dict[int, set[int]] | None:
    now = _frames_of(dataset)
    return now if now != before else None


def _phrases(labels: Any, dataset: Any) -> dict[int, str]:
    return {line["track_id"]: line["phrase"] for line in _summary(labels, dataset)["tracks"]}


def _summary(labels: Any, dataset: Any) -> Any:
    dataset.reload()  # runs and fields that the server made since
    return labels.read_summary(dataset.first(), FIELD)


def _frame_of_progress(page: Any) -> int:
    found = re.search(r"frame (\d+) of 120", page.locator("body").inner_text())
    return int(found[1]) if found else 0


def _frames_of(dataset: Any) -> dict[int, set[int]]:
    """Which track is on which frames, by FiftyOne's own query."""
    (numbers,), (ids,) = dataset.values(["frames.frame_number", f"frames.{FIELD}.detections.index"])
    found: dict[int, set[int]] = {}
    for number, here in zip(numbers, ids, strict=True):
        for track_id in here or ():
            found.setdefault(track_id, set()).add(number)
    return found
