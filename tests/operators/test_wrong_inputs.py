"""Whatever is wrong with what an operator is given from Python, there is one line that says so, and no traceback."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin.errors import InputError

pytestmark = pytest.mark.fiftyone


@pytest.fixture
def sample(labels: ModuleType, dataset: Any, result: Any) -> Any:
    """A video with tracks of ours in `tracks`, and the only one of its dataset."""
    dataset.delete_samples([dataset.last().id])
    labels.write_tracks(dataset.first(), "tracks", result)
    return dataset.first()


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("track_objects", {"prompt": "sheep", "field": "new", "detector": "yolo"}, "detector 'yolo': must be one of"),
        ("track_objects", {"prompt": "sheep", "field": "new", "box_threshold": "high"}, "'high': must be a number"),
        ("track_objects", {"prompt": "sheep", "field": "new", "max_tracks": 0}, "max_tracks = 0: must be 1 or more"),
        ("track_objects", {"prompt": "sheep", "field": "new", "device": "gpu"}, "device 'gpu': must be auto, cpu"),
        (
            "track_objects",
            {"prompt": "sheep", "field": "new", "counts": "cow=3"},
            "must be of one of the classes sheep",
        ),
        ("track_objects", {"prompt": "sheep", "field": "new", "first_frame": 99}, "99: the video has 12 frames"),
        ("track_objects", {"prompt": "sheep", "field": "filepath"}, "is a name that FiftyOne uses itself"),
        ("track_objects", {"prompt": "sheep", "field": "tracks_events"}, "holds events or numbers of other tracks"),
        ("preview_prompt", {"prompt": "sheep", "detector": "yolo"}, "detector 'yolo': must be one of"),
        ("prompt_objects", {"from_field": "nope"}, "Field with the marks 'nope': must be one of tracks"),
        ("prompt_objects", {"from_field": "tracks", "field": "new", "label_ids": ["x"]}, "none of the chosen labels"),
        ("repair_tracks", {"from_field": "nope"}, "Tracks to check 'nope': must be one of tracks"),
        ("repair_tracks", {"from_field": "tracks", "min_margin": -1}, "min_margin = -1: must lie in"),
        ("repair_tracks", {"from_field": "tracks", "embedder": "smell"}, "embedder 'smell': must be one of colour"),
        ("repair_tracks", {"from_field": "tracks", "counts": "cow=3"}, "must be of one of the classes"),
        ("edit_tracks", {"action": "accept"}, "give either an encounter or a repair to accept"),
        (
            "edit_tracks",
            {"action": "relabel", "track": 1, "phrase": " "},
            "label ' ': must be another one than 'sheep'",
        ),
        ("evaluate_tracks", {"field": "tracks", "ground_truth": "tracks"}, "There is no second field with detections"),
        ("export_tracks", {"field": "tracks", "folder": __file__}, "test_wrong_inputs.py: is a file: give a folder"),
        ("import_tracks", {"path": __file__, "format": "mot"}, "need at least frame,id,left,top,width,height"),
        ("import_tracks", {"path": "/nowhere"}, "/nowhere: there is no such file or folder"),
        ("cancel_tracking", {"job_id": "nope"}, "No tracking job is running"),
        ("manage_models", {"download": "embedders/smell"}, "'embedders/smell': must be one of"),
    ],
)
def test_call_wrong_input_is_one_clear_line(
    foo: ModuleType, sample: Any, name: str, given: dict[str, Any], message: str
) -> None:
    operator = foo.get_operator(f"@shepherd/tracking/{name}")
    with pytest.raises(foo.executor.ExecutionError) as raised:
        operator(sample, **given)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_call_folder_that_cannot_be_made_is_one_clear_line(foo: ModuleType, sample: Any, tmp_path: Path) -> None:
    export = foo.get_operator("@shepherd/tracking/export_tracks")
    with pytest.raises(foo.executor.ExecutionError, match=r"^/.*x: cannot be made \(.*\): give another folder$"):
        export(sample, "tracks", str(tmp_path / ("x" * 300)))


def test_app_shows_one_line_and_no_second_error(foo: ModuleType, sample: Any) -> None:
    """After a failure the App asks for the output too, without results: that must not fail as well."""
    from fiftyone.operators.executor import ExecutionContext, Executor

    for name in ("import_tracks", "export_tracks", "evaluate_tracks", "preview_prompt"):
        operator = foo.get_operator(f"@shepherd/tracking/{name}")
        executor = Executor()
        ctx = ExecutionContext({"dataset_name": sample.dataset.name, "params": {"field": "no such"}}, executor=executor)
        with pytest.raises(InputError):
            operator.execute(ctx)
        (told,) = [r.params for r in executor._requests if r.operator_uri == "notify"]
        assert told["variant"] == "error"
        assert "\n" not in told["message"]
        assert operator.resolve_output(ctx) is not None


def test_call_bug_keeps_its_traceback(foo: ModuleType, sample: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fiftyone_plugin import labels

    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(labels, "export_field", broken)
    with pytest.raises(foo.executor.ExecutionError, match=r"(?s)Traceback.*RuntimeError: a bug of ours"):
        foo.get_operator("@shepherd/tracking/export_tracks")(sample, "tracks", "/tmp")
