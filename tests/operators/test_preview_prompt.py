"""Operator `preview_prompt`: counts and a picture from a few frames. The detector is scripted, the frames are real."""

from __future__ import annotations

import base64
import shutil
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from fiftyone_plugin import pipeline
from fiftyone_plugin.types import Detections

pytestmark = pytest.mark.fiftyone

URI = "@shepherd/tracking/preview_prompt"


@pytest.fixture
def previews(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """`pipeline.preview` finds the bright square of the test video as a sheep; what it was asked is returned."""
    calls: list[dict[str, Any]] = []

    def preview(source: Any, prompt: str, options: Any, *, frames: int, backends: Any = None) -> Any:
        calls.append({"source": source.info.source, "prompt": prompt, "options": options, "frames": frames})
        shown = list(source.frames(0, frames))
        box = np.float32([[5, 10, 15, 20]])
        found = [Detections(f.index, box + np.float32([f.index, 0] * 2), np.float32([0.75]), ("sheep",)) for f in shown]
        return list(zip(shown, found if prompt != "cow" else [Detections.empty(f.index) for f in shown], strict=True))

    monkeypatch.setattr(pipeline, "preview", preview)
    return calls


def test_execute_operator_returns_counts_and_a_picture(
    foo: ModuleType, dataset: Any, previews: list[dict[str, Any]]
) -> None:
    params = {"prompt": "sheep. dog", "frames": 3, "box_threshold": 0.5}
    result = foo.execute_operator(URI, {"dataset": dataset}, params=params).result
    assert result["counts"] == [{"frame": n, "sheep": 1, "dog": 0} for n in (1, 2, 3)]
    assert result["message"].startswith("3 detections in 3 frames of ")
    assert previews[0]["options"].detection.box_threshold == 0.5
    head, data = result["picture"].split(",")
    assert head == "data:image/jpeg;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    # Two by two tiles of 640 x 480, the last of them empty.
    assert picture.shape == (960, 1280, 3)
    assert picture[490:, 650:].max() < 30
    # Scaled by ten: the left edge of the first frame's box, in the colour of the first class.
    np.testing.assert_allclose(picture[150, 50], (255, 109, 4), atol=40)


def test_execute_operator_writes_nothing(foo: ModuleType, dataset: Any, previews: list[dict[str, Any]]) -> None:
    before = (dataset.get_field_schema(flat=True), dataset.get_frame_field_schema(flat=True), dataset.list_runs())
    foo.execute_operator(URI, {"dataset": dataset}, params={"prompt": "sheep"})
    dataset.reload()
    after = (dataset.get_field_schema(flat=True), dataset.get_frame_field_schema(flat=True), dataset.list_runs())
    assert [list(x) for x in after] == [list(x) for x in before]


def test_execute_operator_looks_at_the_selected_video(
    fo: ModuleType, foo: ModuleType, tmp_path: Any, dataset: Any, previews: list[dict[str, Any]]
) -> None:
    other = tmp_path / "other.mp4"
    shutil.copy(dataset.first().filepath, other)
    dataset.add_sample(fo.Sample(filepath=str(other)))
    chosen = dataset.last().id
    foo.execute_operator(URI, {"dataset": dataset, "selected": [chosen]}, params={"prompt": "sheep"})
    foo.execute_operator(URI, {"dataset": dataset, "current_sample": chosen}, params={"prompt": "sheep"})
    foo.execute_operator(URI, {"dataset": dataset}, params={"prompt": "sheep"})
    assert [call["source"].endswith("other.mp4") for call in previews] == [True, True, False]


def test_execute_operator_nothing_found_says_what_to_try(
    preview_prompt: Any, dataset: Any, previews: list[dict[str, Any]]
) -> None:
    message = preview_prompt(dataset, "cow").result["message"]
    assert message.endswith("nothing found; try other words, or a lower box threshold")


def test_resolve_output_shows_line_picture_and_table(preview_prompt: Any, dataset: Any) -> None:
    from fiftyone.operators.executor import ExecutionContext

    results = {"counts": [{"frame": 1, "sheep": 2}]}
    context = ExecutionContext({"dataset_name": dataset.name, "params": {}, "results": results})
    shown = preview_prompt.resolve_type(context, "outputs").to_json()["type"]["properties"]
    assert shown["picture"]["view"]["name"] == "ImageView"
    assert [c["key"] for c in shown["counts"]["view"]["columns"]] == ["frame", "sheep"]


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"prompt": "?"}, "prompt"),
        ({"prompt": "sheep", "frames": 0}, "frames"),
        ({"prompt": "sheep", "models": "custom", "detector": "grounding-dino:huge"}, "detector"),
    ],
)
def test_form_wrong_value_is_marked_where_it_stands(
    form: Any, preview_prompt: Any, dataset: Any, params: dict[str, Any], where: str
) -> None:
    assert list(form(preview_prompt, dataset, params).errors) == [where]


def test_form_names_the_video(form: Any, preview_prompt: Any, dataset: Any) -> None:
    drawn = form(preview_prompt, dataset, {"prompt": "sheep"})
    assert drawn.errors == {}
    assert drawn.text("video") == f"Looks at {dataset.first().filepath}|"


def test_form_of_an_empty_dataset_says_so(fo: ModuleType, form: Any, preview_prompt: Any) -> None:
    empty = fo.Dataset()
    assert "add videos" in form(preview_prompt, empty, {"prompt": "sheep"}).errors["nothing_to_track"]
    empty.delete()
