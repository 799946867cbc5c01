"""What the runs of a field concluded: the same as the report of a single video, and a file on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin.cli import main
from fiftyone_plugin.report import as_report
from fiftyone_plugin.types import TrackingResult

pytestmark = pytest.mark.fiftyone

LISTS = ("video", "settings", "warnings", "track_list", "decision_list", "repair_list")


def test_field_report_says_what_the_report_of_the_result_says(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    result = replace(result, warnings=("the light changed",))
    labels.write_tracks(dataset.first(), "tracks", result)
    found = labels.field_report(dataset, "tracks")
    assert list(found) == [labels.describe(dataset.first())]  # the other video has no tracks
    (report,) = found.values()
    expected = json.loads(json.dumps({name: as_report(result)[name] for name in LISTS}))
    del expected["video"]["frame_count"]  # that of the file is not kept with the labels
    assert json.loads(json.dumps(report)) == expected


def test_field_report_knows_what_a_person_edited(labels: ModuleType, dataset: Any, result: TrackingResult) -> None:
    labels.write_tracks(dataset.first(), "tracks", result)
    labels.split(dataset.first(), "tracks", 1, 6)
    (report,) = labels.field_report(dataset.name, "tracks").values()
    assert [line["track_id"] for line in report["track_list"]] == [1, 2, 3, 4]


@pytest.mark.usefixtures("scripted")
def test_track_of_a_dataset_writes_the_report_of_every_video(
    labels: ModuleType, dataset: Any, result: TrackingResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    arguments = ["track", f"dataset:{dataset.name}", "--prompt", "sheep. dog.", "--report", str(path), "--json"]
    for _ in range(2):  # the second time, both videos are finished already
        assert main(arguments) == 0
        told, written = json.loads(capsys.readouterr().out), json.loads(path.read_text())
        assert len(written["videos"]) == len(told["videos"]) == 2
        assert {name: written[name] for name in told if name != "videos"} == {k: told[k] for k in told if k != "videos"}
        for video in written["videos"]:
            assert [line["track_id"] for line in video["track_list"]] == [1, 2, 3]
            assert len(video["decision_list"]) == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["track", "dataset:any", "--prompt", "a", "--dataset", "other"], "--dataset goes with a video"),
        (["track", "dataset:any", "--prompt", "a", "--format", "mot"], "--format goes with --output"),
        (["track", "any.mp4", "--prompt", "a", "--field", "mine"], "--field goes with a dataset"),
        (["repair", "any.mp4", "--tracks", "any.txt", "--overwrite"], "--overwrite goes with a dataset"),
        (["repair", "dataset:any", "--tracks", "t", "--report", "/dev/null/report.json"], "no folder that can be"),
    ],
    ids=["dataset", "format", "field", "overwrite", "report"],
)
def test_option_that_would_be_forgotten_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert complaint in capsys.readouterr().err
