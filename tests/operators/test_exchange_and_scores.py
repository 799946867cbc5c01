"""Operators that write, read and measure tracks: what goes out comes back exactly, and scores are stored."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.fiftyone


@pytest.fixture
def operator(foo: ModuleType) -> Any:
    return lambda name: foo.get_operator(f"@shepherd/tracking/{name}")


@pytest.fixture
def tracked(labels: ModuleType, dataset: Any, result: Any) -> Any:
    for sample in dataset:
        labels.write_tracks(sample, "tracks", result)
    return dataset


@pytest.mark.parametrize("format", ["mot", "coco", "davis", "cvat"])
def test_import_reads_exactly_what_export_wrote(
    operator: Any, labels: ModuleType, tracked: Any, tmp_path: Path, format: str
) -> None:
    written = operator("export_tracks")(tracked, "tracks", str(tmp_path / "out"), format=format).result
    # Both videos are the same file, so their names are numbered.
    suffix = {"mot": ".txt", "coco": ".json", "davis": "", "cvat": ".xml"}[format]
    assert [Path(p).name for p in written["files"]] == [f"flock_1{suffix}", f"flock_2{suffix}"]
    assert written["message"].startswith("6 tracks of 2 videos written to")
    operator("import_tracks")(tracked, str(tmp_path / "out"), field="back", format=format)
    for sample in tracked:
        there, back = labels.read_tracks(sample, "tracks"), labels.read_tracks(sample, "back")
        assert [t.track_id for t in back] == [t.track_id for t in there]
        for a, b in zip(there, back, strict=True):
            np.testing.assert_array_equal(a.frame_indices, b.frame_indices)
            if format != "davis":
                np.testing.assert_allclose(a.boxes_xyxy, b.boxes_xyxy, atol=0.01)
            if format != "mot":
                assert a.masks == b.masks
    assert labels.field_state(tracked, "back").is_ours


def test_import_of_one_file_into_one_video(operator: Any, labels: ModuleType, tracked: Any, tmp_path: Path) -> None:
    one = tracked.limit(1)
    (path,) = operator("export_tracks")(one, "tracks", str(tmp_path)).result["files"]
    assert Path(path).name == "flock.txt"
    result = operator("import_tracks")(one, path, field="mot").result
    assert result["message"] == "3 tracks of 1 video read into 'mot'"
    assert labels.read_tracks(tracked.first(), "mot")[0].phrase


def test_import_wrong_files_are_one_clear_line(
    fo: ModuleType, operator: Any, form: Any, tracked: Any, tmp_path: Path
) -> None:
    importer = operator("import_tracks")
    drawn = form(importer, tracked, {"path": str(tmp_path / "nowhere"), "field": "tracks"})
    assert "there is no such file or folder" in drawn.errors["path"]
    assert "already holds tracks" in drawn.errors["field"]
    (tmp_path / "other.txt").write_text("1,1,0,0,5,5,1,-1,-1,-1\n")
    with pytest.raises(Exception, match=r"holds a file for none of the 2 videos: .* such as flock_1.txt"):
        importer(tracked, str(tmp_path), field="new")
    (tmp_path / "late.txt").write_text("99,1,0,0,5,5,1,-1,-1,-1\n")
    with pytest.raises(Exception, match=r"reaches frame 99, but .* has 12 frames"):
        importer(tracked.limit(1), str(tmp_path / "late.txt"), field="new")
    assert not tracked.has_frame_field("new")


def test_import_never_writes_over_labels_of_others(fo: ModuleType, operator: Any, tracked: Any, tmp_path: Path) -> None:
    sample = tracked.first()
    sample.frames[1]["mine"] = fo.Detections(detections=[fo.Detection(label="x", bounding_box=[0, 0, 1, 1])])
    sample.save()
    (path,) = operator("export_tracks")(tracked.limit(1), "tracks", str(tmp_path)).result["files"]
    with pytest.raises(Exception, match="never overwritten"):
        operator("import_tracks")(tracked.limit(1), path, field="mine", overwrite=True)
    sample.reload()
    assert [d.label for d in sample.frames[1].mine.detections] == ["x"]


def test_export_form_shows_what_will_be_written(operator: Any, form: Any, tracked: Any, tmp_path: Path) -> None:
    exporter = operator("export_tracks")
    drawn = form(exporter, tracked, {"folder": str(tmp_path), "format": "coco", "field": "tracks"})
    assert drawn.errors == {}
    assert f"2 videos, such as {tmp_path}/flock_1.json" in drawn.text("names")
    (tmp_path / "file").touch()
    assert form(exporter, tracked, {"folder": str(tmp_path / "file" / "x")}).errors["folder"]
    assert "folder" in form(exporter, tracked, {}).errors


# --- scores -------------------------------------------------------------------------------------------------------


def test_evaluate_stores_scores_per_video_and_a_run(operator: Any, labels: ModuleType, tracked: Any) -> None:
    for sample in tracked:
        (path_result,) = [labels.read_tracks(sample, "tracks")]
        assert path_result
    _copy(labels, tracked, "truth")
    labels.swap(tracked.last(), "tracks", 1, 3, 8)
    found = operator("evaluate_tracks")(tracked, "tracks", "truth").result
    assert [v["IDSW"] for v in found["videos"]] == [0, 2]
    assert found["videos"][0]["HOTA"] == pytest.approx(100.0)
    assert found["scores"]["IDSW"] == 2
    assert found["rows"][0]["video"] == "all together"
    tracked.reload()
    assert tracked.values("tracks_eval.IDSW") == [0, 2]
    assert {"tracks_eval.HOTA", "tracks_eval.IDF1", "tracks_eval.IDSW"} <= set(tracked.list_indexes())
    assert tracked.match(tracked_field("tracks_eval.HOTA") < 99).values("id") == [tracked.last().id]
    results = tracked.load_run_results(found["run_key"], cache=False)
    assert results.total["IDSW"] == 2
    # Once more, over our own scores.
    operator("evaluate_tracks")(tracked, "tracks", "truth")
    # The scores are no tracks: the field is not offered as one, and nothing of the review reads it as a run of ours.
    assert labels.browse.own_fields(tracked)


def tracked_field(path: str) -> Any:
    from fiftyone import ViewField

    return ViewField(path)


def _copy(labels: ModuleType, dataset: Any, field: str) -> None:
    from fiftyone_plugin.types import TrackingResult, VideoInfo

    for sample in dataset:
        video = VideoInfo("x", 64, 48, 12, 25.0)
        labels.write_tracks(
            sample, field, TrackingResult(video, labels.read_tracks(sample, "tracks"), frames_processed=12)
        )


def test_evaluate_without_ground_truth_says_so(operator: Any, form: Any, tracked: Any) -> None:
    evaluator = operator("evaluate_tracks")
    assert "no second field" in form(evaluator, tracked, {"field": "tracks"}).errors["ground_truth_missing"]
    with pytest.raises(Exception, match="no second field"):
        evaluator(tracked, "tracks", "truth")


def test_evaluate_never_writes_over_a_field_of_others(operator: Any, labels: ModuleType, tracked: Any) -> None:
    import fiftyone as fo

    _copy(labels, tracked, "truth")
    tracked.add_sample_field("tracks_eval", fo.FloatField)
    with pytest.raises(Exception, match=r"'tracks_eval' of dataset .* exists and was not made by this plugin"):
        operator("evaluate_tracks")(tracked, "tracks", "truth")
    assert operator("evaluate_tracks")(tracked, "tracks", "truth", store=False).result["scores"]["IDSW"] == 0
