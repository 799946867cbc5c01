"""Edits in a clone of a dataset, in the App: what the form says where their history is gone."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.fiftyone


def test_undo_in_a_clone_without_a_history_says_so_in_one_line(
    foo: ModuleType, labels: ModuleType, form: Any, dataset: Any, result: Any
) -> None:
    edit_tracks = foo.get_operator("@shepherd/tracking/edit_tracks")
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", result)
    labels.split(sample, "tracks", 1, 5)
    copy = dataset.clone()
    try:
        drawn = form(edit_tracks, copy, {"action": "undo"}, current_sample=sample.id)
        assert drawn.errors == {}
        assert "split sheep 1 at frame 6" in drawn.text("edit")
        labels.write_tracks(sample, "tracks", result, overwrite=True)
        message = form(edit_tracks, copy, {"action": "undo"}, current_sample=sample.id).errors["nothing"]
        assert message.startswith("There is no edit to undo here: this dataset is a clone")
        assert "\n" not in message
        # Everything else works.
        done = edit_tracks(copy.select(sample.id), "relabel", track=1, phrase="ram").result
        assert done["message"] == "relabelled sheep 1 as ram"
    finally:
        copy.delete()
