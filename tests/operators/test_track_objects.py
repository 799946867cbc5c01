"""Operator `track_objects`: its form, its ways to run, and what it leaves in the dataset. The pipeline is scripted."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin.errors import InputError

pytestmark = pytest.mark.fiftyone

URI = "@shepherd/tracking/track_objects"


# --- the form ----------------------------------------------------------------------------------------------------


def test_form_prompt_alone_is_enough(form: Any, track_objects: Any, dataset: Any) -> None:
    drawn = form(track_objects, dataset, {"prompt": "sheep. black dog"})
    assert drawn.errors == {}
    assert "2 classes: “sheep”, “black dog”" in drawn.text("classes")
    assert drawn.text("cost").startswith("2 videos, 24 frames: perhaps 12 s|a rough guess")
    assert "synthetic demo world" in drawn.text("models_bundled")
    assert "cannot_schedule" not in drawn.properties
    assert "overwrite" not in drawn.properties
    assert drawn.options.default_choice_to_delegated is False


def test_form_still_empty_is_drawn_without_errors_but_the_prompt(form: Any, track_objects: Any, dataset: Any) -> None:
    assert form(track_objects, dataset, {}).errors == {"prompt": "Required property"}


@pytest.mark.parametrize(
    ("params", "where", "message"),
    [
        ({"prompt": " . , "}, "prompt", "names no class"),
        ({"models": "custom", "detector": "yolo"}, "detector", "'yolo': must be one of grounding-dino"),
        ({"models": "custom", "propagator": "sam2:huge"}, "propagator", "sam2:huge: must be one of bundled"),
        ({"models": "best"}, "models", "'best': must be one of bundled, fast, accurate"),
        ({"models": "custom", "embedder": "colour+hair"}, "embedder", "embedder 'hair': must be one of colour"),
        ({"detector": "yolo"}, "models_wrong", "detector 'yolo': must be one of grounding-dino"),
        ({"advanced": True, "device": "gpu"}, "problem", "device 'gpu': must be auto, cpu, cuda"),
        ({"max_tracks": 0}, "problem", "max_tracks = 0: must be 1 or more"),
        ({"first_frame": 9, "last_frame": 3}, "last_frame", "frames 9 to 3"),
        ({"first_frame": 0}, "first_frame", "greater than 1"),
        ({"advanced": True, "box_threshold": 1.5}, "box_threshold", "less than 1"),
        ({"advanced": True, "redetect_every": -1}, "redetect_every", "greater than 0"),
        ({"advanced": True, "counts": "sheep=few"}, "counts", "counts 'sheep=few': must be CLASS=N with N 1 or more"),
        (
            {"advanced": True, "counts": "sheep=2, cow=1"},
            "counts",
            "count of 'cow': must be of one of the classes sheep",
        ),
        ({"field": "my tracks"}, "field", "letters, digits and underscores"),
        ({"field": "metadata"}, "field", "field 'metadata': is a name that FiftyOne uses itself"),
    ],
)
def test_form_wrong_value_is_marked_where_it_stands(
    form: Any, track_objects: Any, dataset: Any, params: dict[str, Any], where: str, message: str
) -> None:
    errors = form(track_objects, dataset, {"prompt": "sheep", **params}).errors
    assert where in errors
    assert message in errors[where]


def test_form_keeps_what_is_rarely_needed_folded_away(form: Any, track_objects: Any, dataset: Any) -> None:
    folded = {"counts", "mend_masks", "redetect_every", "max_tracks", "device"}
    assert not folded & set(form(track_objects, dataset, {"prompt": "sheep"}).properties)
    unfolded = form(
        track_objects, dataset, {"prompt": "sheep", "advanced": True, "counts": "Sheep=3", "mend_masks": True}
    )
    assert folded <= set(unfolded.properties)
    assert unfolded.errors == {}
    plain = form(track_objects, dataset, {"prompt": "sheep", "advanced": True, "repair": False})
    assert not {"counts", "mend_masks"} & set(plain.properties)


@pytest.mark.parametrize("counts", ["Sheep=3, dog = 1", {"sheep": 3, "dog": 1}], ids=["text", "mapping"])
def test_call_known_numbers_and_mending_reach_the_pipeline(
    track_objects: Any, dataset: Any, scripted: Any, counts: Any
) -> None:
    track_objects(dataset.limit(1), "sheep. dog.", counts=counts, mend_masks=True)
    ((_, options),) = scripted.calls
    assert options.identity.counts == {"sheep": 3, "dog": 1}
    assert options.identity.mend_masks


@pytest.mark.parametrize(
    ("counts", "message"),
    [("sheep", "counts 'sheep': must be CLASS=N"), ("cow=1", "count of 'cow': must be of one of the classes sheep")],
)
def test_call_wrong_number_is_one_clear_line(
    track_objects: Any, dataset: Any, scripted: Any, counts: str, message: str
) -> None:
    with pytest.raises(Exception, match=message):
        track_objects(dataset, "sheep", counts=counts)
    assert scripted.calls == []


def test_form_images_without_order_say_what_to_do(
    fo: ModuleType, form: Any, track_objects: Any, tmp_path: Path
) -> None:
    images = fo.Dataset()
    images.add_sample(fo.Sample(filepath=str(tmp_path / "a.png")))
    drawn = form(track_objects, images, {"prompt": "sheep"})
    assert "group_by('scene'" in drawn.errors["nothing_to_track"]
    images.delete()


def test_form_field_of_others_is_refused(fo: ModuleType, form: Any, track_objects: Any, dataset: Any) -> None:
    dataset.add_frame_field("tracks", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    drawn = form(track_objects, dataset, {"prompt": "sheep"})
    assert "never overwritten" in drawn.errors["field"]
    assert "never overwritten" in drawn.text("field_conflict")
    assert form(track_objects, dataset, {"prompt": "sheep", "field": "mine"}).errors == {}


def test_form_own_field_offers_to_overwrite_or_goes_on(
    form: Any, track_objects: Any, dataset: Any, scripted: Any
) -> None:
    track_objects(dataset.limit(1), "sheep")
    same = form(track_objects, dataset, {"prompt": "sheep"})
    assert same.errors == {}
    assert "left as it is: 1 video" in same.text("field_done")
    assert "as measured before" in same.text("cost")
    other = form(track_objects, dataset, {"prompt": "dog"})
    assert "already holds tracks of 1 of these videos" in other.errors["field"]
    assert form(track_objects, dataset, {"prompt": "dog", "overwrite": True}).errors == {}


def test_form_long_job_warns_where_the_app_cannot_schedule(
    fo: ModuleType, form: Any, track_objects: Any, dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sample in dataset:
        sample.metadata = fo.VideoMetadata(total_frame_count=40_000, frame_width=64, frame_height=48)
        sample.save()
    drawn = form(track_objects, dataset, {"prompt": "sheep"})
    assert "80000 frames: perhaps 11.1 h" in drawn.text("cost")
    how = drawn.text("cannot_schedule")
    assert f"FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS=true fiftyone app launch {dataset.name}" in how
    assert "fiftyone delegated launch -m --monitor-interval 5" in how
    assert (drawn.options.allow_immediate_execution, drawn.options.default_choice_to_delegated) == (True, False)
    monkeypatch.setattr(fo.config, "allow_legacy_orchestrators", True)
    able = form(track_objects, dataset, {"prompt": "sheep"})
    assert "cannot_schedule" not in able.properties
    assert "fiftyone delegated launch" in able.text("how_to_schedule")
    assert able.options.default_choice_to_delegated is True
    few = form(track_objects, dataset, {"prompt": "sheep", "first_frame": 11, "last_frame": 20})
    assert "20 frames" in few.text("cost")
    assert few.options.default_choice_to_delegated is False


def test_form_tells_of_a_job_on_the_same_field(form: Any, track_objects: Any, dataset: Any, scripted: Any) -> None:
    from fiftyone_plugin import runner

    def note(name: str) -> str:
        return str(form(track_objects, dataset, {"prompt": "sheep"}).text(name))

    def look(_: Any) -> None:
        told.append(note("job_running"))
        raise KeyboardInterrupt

    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        runner.track_dataset(dataset, "sheep", on_progress=look)
    assert "is being written right now" in told[0]
    assert "goes on where it was" in note("job_resumable")
    runner.track_dataset(dataset, "sheep")
    drawn = form(track_objects, dataset, {"prompt": "sheep"})
    assert not {"job_running", "job_resumable"} & set(drawn.properties)


def test_delegated_job_that_was_cancelled_keeps_what_is_finished_and_can_be_run_again(
    track_objects: Any, labels: ModuleType, dataset: Any, scripted: Any
) -> None:
    from fiftyone.operators.delegated import DelegatedOperationService

    from fiftyone_plugin import jobs

    dataset.persistent = True
    write = labels.write_tracks

    def write_and_cancel(*args: Any, **options: Any) -> None:
        write(*args, **options)
        (job,) = jobs.list_jobs(dataset=dataset.name)
        jobs.cancel(job.job_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "write_tracks", write_and_cancel)
        track_objects(dataset, "sheep", delegate=True)
        service = DelegatedOperationService()
        service.execute_queued_operations(operator=URI)
    (operation,) = service.list_operations(operator=URI, dataset_name=dataset.name)
    assert operation.result.result["was_cancelled"] is True
    assert labels.field_state(dataset, "tracks").finished == {dataset.first().id}
    assert jobs.status(operation.result.result["job_id"]).state is jobs.JobState.CANCELLED
    again = service.rerun_operation(doc_id=operation.id)  # what `fiftyone delegated rerun` does
    service.execute_queued_operations(operator=URI)
    result = service.get(doc_id=again.id).result.result
    assert [v["was_done"] for v in result["videos"]] == [True, False]
    assert labels.field_state(dataset, "tracks").finished == set(dataset.values("id"))


def test_form_weights_that_are_missing_are_named(
    form: Any, track_objects: Any, dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fiftyone_plugin import weights

    monkeypatch.setattr(weights, "is_cached", lambda model: False)
    text = form(track_objects, dataset, {"prompt": "sheep", "models": "fast"}).text("models_missing")
    assert all(name in text for name in ("grounding-dino-tiny", "sam2.1-hiera-tiny", "dinov2-small"))
    monkeypatch.setattr(weights, "is_cached", lambda model: True)
    assert "models_there" in form(track_objects, dataset, {"prompt": "sheep", "models": "fast"}).properties


def test_form_in_the_app_offers_the_target_view(form: Any, track_objects: Any, dataset: Any) -> None:
    drawn = form(track_objects, dataset, {"prompt": "sheep"}, selected=[dataset.first().id])
    assert "SELECTED_SAMPLES" in str(drawn.json["type"]["properties"]["view_target"]["type"]["values"])


def test_placement_is_a_button_in_the_grid(track_objects: Any) -> None:
    assert track_objects.resolve_placement(None).to_json()["place"] == "samples-grid-secondary-actions"


# --- running it --------------------------------------------------------------------------------------------------


def test_execute_operator_writes_tracks(foo: ModuleType, labels: ModuleType, dataset: Any, scripted: Any) -> None:
    params = {
        "prompt": "sheep. dog.",
        "field": "flock",
        "models": "fast",
        "embedder": "colour",
        "box_threshold": 0.4,
        "redetect_every": 8,
        "repair": False,
    }
    foo.execute_operator(URI, {"dataset": dataset}, params=params)
    assert [len(labels.read_tracks(sample, "flock")) for sample in dataset] == [3, 3]
    (prompt, options), _ = scripted.calls
    assert prompt == "sheep. dog."
    assert (options.models.detector, options.models.embedder) == ("grounding-dino:tiny", "colour")
    assert (options.detection.box_threshold, options.association.redetect_every_frames) == (0.4, 8)
    assert (options.identity.repair, options.start, options.stop) == (False, 0, None)


def test_execute_operator_frames_are_one_based_and_inclusive(foo: ModuleType, dataset: Any, scripted: Any) -> None:
    foo.execute_operator(URI, {"dataset": dataset}, params={"prompt": "sheep", "first_frame": 3, "last_frame": 6})
    assert [(o.start, o.stop) for _, o in scripted.calls] == [(2, 6), (2, 6)]
    assert sorted(n for n, f in dataset.first().frames.items() if f.tracks) == [3, 4, 5, 6]


def test_execute_operator_of_a_view_leaves_the_rest_alone(foo: ModuleType, dataset: Any, scripted: Any) -> None:
    foo.execute_operator(URI, {"view": dataset.limit(1)}, params={"prompt": "sheep"})
    assert len(scripted.calls) == 1
    assert len(dataset.last().frames) == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "Path: prompt. Reason: Required property"),
        ({"prompt": "..."}, "Path: prompt. Reason: prompt '...' names no class"),
        ({"prompt": "sheep", "field": "a b"}, "Path: field. Reason: field 'a b'"),
    ],
)
def test_execute_operator_bad_input_is_one_clear_line(
    foo: ModuleType, dataset: Any, scripted: Any, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match="Validation error") as raised:
        foo.execute_operator(URI, {"dataset": dataset}, params=params)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_execute_operator_labels_of_others_stay_as_they_are(
    fo: ModuleType, foo: ModuleType, dataset: Any, scripted: Any
) -> None:
    sample = dataset.first()
    sample.frames[1]["tracks"] = fo.Detections(detections=[fo.Detection(label="mine", bounding_box=[0, 0, 1, 1])])
    sample.save()
    before = sample.frames[1].tracks.to_json()
    with pytest.raises(Exception, match="never overwritten"):
        foo.execute_operator(URI, {"dataset": dataset}, params={"prompt": "sheep", "overwrite": True})
    sample.reload()
    assert sample.frames[1].tracks.to_json() == before


def test_execute_in_the_app_yields_live_progress(
    track_objects: Any, labels: ModuleType, dataset: Any, scripted: Any
) -> None:
    messages = [m.to_json()["body"] for m in track_objects.execute(_context(dataset, {"prompt": "sheep"}))]
    names = [m["operator_uri"] for m in messages]
    assert names[-2:] == ["notify", "reload_dataset"]
    shown = [m["params"] for m in messages if m["operator_uri"] == "set_progress"]
    assert (shown[0]["label"], shown[-1]["progress"]) == ("Loading models", 1)
    assert any("video 1 of 2 (flock.mp4), frame" in m["label"] for m in shown)
    assert messages[-2]["params"]["variant"] == "success"
    assert [len(labels.read_tracks(sample, "tracks")) for sample in dataset] == [3, 3]


def test_execute_in_the_app_colours_what_is_open_already(track_objects: Any, dataset: Any, scripted: Any) -> None:
    """The App takes the colours of a dataset when it opens it; so it must be told."""
    params = {"prompt": "sheep", "color_by_instance": True}
    messages = [m.to_json()["body"] for m in track_objects.execute(_context(dataset, params))]
    (told,) = [m["params"] for m in messages if m["operator_uri"] == "set_color_scheme"]
    assert told == {"color_by": "instance"}
    dataset.reload()
    assert dataset.app_config.color_scheme.color_by == "instance"


@pytest.mark.parametrize(
    ("error", "line"),
    [(InputError("no such weights"), "no such weights"), (OSError("gone"), "unexpected OSError: gone")],
    ids=["ours", "a bug"],
)
def test_execute_in_the_app_error_is_said(
    track_objects: Any, dataset: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    """The App drops errors of generators: nobody would learn why the bar stands still."""

    def fail(options: Any) -> Any:
        raise error

    monkeypatch.setattr(importlib.import_module("fiftyone_plugin.pipeline").Backends, "load", fail)
    messages: list[Any] = []
    with pytest.raises(type(error)):
        messages.extend(track_objects.execute(_context(dataset, {"prompt": "sheep"})))
    progress, note = (message.to_json()["body"] for message in messages[-2:])
    assert progress["params"]["label"].startswith("Stopped: ")
    assert note["operator_uri"] == "notify"
    assert note["params"]["variant"] == "error"
    assert note["params"]["message"].endswith(line)


def test_execute_in_the_app_closed_tab_keeps_finished_videos(
    track_objects: Any, labels: ModuleType, dataset: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Event()
    write = labels.write_tracks

    def write_and_tell(*args: Any, **options: Any) -> None:
        write(*args, **options)
        written.set()

    monkeypatch.setattr(labels, "write_tracks", write_and_tell)
    generator = track_objects.execute(_context(dataset, {"prompt": "sheep"}))
    next(generator)
    next(generator)
    assert written.wait(10)
    generator.close()
    (thread,) = [t for t in threading.enumerate() if t.name == "shepherd-job"] or [None]
    if thread is not None:
        thread.join(10)
    assert dataset.first().id in labels.field_state(dataset, "tracks").finished


def _context(dataset: Any, params: dict[str, Any]) -> Any:
    from fiftyone.operators.executor import ExecutionContext, Executor

    return ExecutionContext({"dataset_name": dataset.name, "params": params}, executor=Executor())


def test_execute_one_failed_video_is_told_and_all_failed_is_an_error(
    foo: ModuleType, track_objects: Any, dataset: Any, scripted: Any
) -> None:
    from fiftyone_plugin.errors import VideoError

    scripted.failures[1] = VideoError("flock.mp4: damaged")
    messages = [m.to_json()["body"] for m in track_objects.execute(_context(dataset, {"prompt": "sheep"}))]
    told = [m["params"] for m in messages if m["operator_uri"] == "notify"]
    assert [m["variant"] for m in told] == ["error", "warning"]
    assert "flock.mp4: damaged" in told[0]["message"]
    scripted.failures.update({n: VideoError("flock.mp4: damaged") for n in range(3, 9)})
    with pytest.raises(Exception, match=r"flock\.mp4: damaged"):
        foo.execute_operator(URI, {"dataset": dataset}, params={"prompt": "sheep", "field": "other"})


def test_call_from_python_returns_the_summary(
    track_objects: Any, labels: ModuleType, dataset: Any, scripted: Any
) -> None:
    result = track_objects(dataset, "sheep. dog.", field="flock", first_frame=1, repair=False).result
    assert (result["tracks"], result["frames"], result["failures"]) == (6, 24, [])
    assert result["summary"].startswith("6 tracks in 24 frames of 2 videos")
    assert labels.field_state(dataset, "flock").finished == set(dataset.values("id"))


def test_delegated_is_queued_and_runs_in_the_service(
    foo: ModuleType, track_objects: Any, labels: ModuleType, dataset: Any, scripted: Any
) -> None:
    from fiftyone.operators.delegated import DelegatedOperationService

    dataset.persistent = True
    queued = track_objects(dataset, "sheep", delegate=True)
    assert queued.delegated
    assert scripted.calls == []
    service = DelegatedOperationService()
    service.execute_queued_operations(operator=URI)
    (operation,) = service.list_operations(operator=URI, dataset_name=dataset.name)
    assert operation.run_state == "completed", operation.result.error
    assert operation.label == "Track 'sheep'"
    assert operation.result.result["tracks"] == 6
    assert operation.status.progress > 0
    assert "frame" in operation.status.label
    assert labels.field_state(dataset, "tracks").finished == set(dataset.values("id"))


def test_delegated_job_that_fails_is_marked_so(
    foo: ModuleType, track_objects: Any, dataset: Any, scripted: Any
) -> None:
    from fiftyone.operators.delegated import DelegatedOperationService

    from fiftyone_plugin.errors import VideoError

    scripted.failures.update({n: VideoError("flock.mp4: damaged") for n in (1, 2)})
    dataset.persistent = True
    track_objects(dataset, "sheep", delegate=True)
    service = DelegatedOperationService()
    service.execute_queued_operations(operator=URI)
    (operation,) = service.list_operations(operator=URI, dataset_name=dataset.name)
    assert operation.run_state == "failed"
    assert "flock.mp4: damaged" in operation.result.error


def test_app_that_opens_a_dataset_imports_the_review_panel_beforehand(
    track_objects: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[f"{type(track_objects).__module__.rpartition('.')[0]}.warm_up"]
    begun, imported = threading.Event(), []
    monkeypatch.setattr(module, "_begun", begun)
    monkeypatch.setattr(module.importlib, "import_module", imported.append)
    for _ in range(2):
        track_objects.resolve_placement(None)
    for thread in threading.enumerate():
        if thread.name == "shepherd-warm-up":
            thread.join(10)
    assert imported == [f"{module.__package__}.review_session"]
