"""The main job, end to end: the bundled models on the bundled clip, into a real FiftyOne dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fiftyone_plugin.bundled.demo import demo_ground_truth
from fiftyone_plugin.demo import DemoOutcome, run_demo
from fiftyone_plugin.errors import OutputError
from fiftyone_plugin.exporters import read_mot

DATASET = "demo-under-test"


@pytest.fixture(scope="module")
def outcome(labels: ModuleType, fo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoOutcome]:
    yield run_demo(tmp_path_factory.mktemp("demo"), dataset=DATASET)
    fo.delete_dataset(DATASET)


def test_repair_mends_what_plain_propagation_breaks(outcome: DemoOutcome) -> None:
    plain, repaired = outcome.without_repair, outcome.with_repair
    assert plain["IDSW"] >= 4, "the clip is made so that plain propagation exchanges animals"
    assert repaired["IDSW"] * 2 <= plain["IDSW"]
    assert repaired["IDF1"] > plain["IDF1"] + 20
    assert repaired["HOTA"] > plain["HOTA"] + 20


def test_summary_has_the_keys_of_the_contract(outcome: DemoOutcome) -> None:
    found = json.loads(json.dumps(outcome.as_dict()))
    for name in ("without_repair", "with_repair"):
        assert set(found[name]) == {"HOTA", "AssA", "DetA", "IDF1", "MOTA", "IDSW", "Frag"}
    assert {"frames", "tracks", "encounters", "repairs", "needs_review", "seconds", "peak_memory_mb"} <= set(found)
    assert found["frames"] == 120
    assert f"fiftyone app launch {DATASET}" in "\n".join(outcome.lines())


def test_files_of_the_demo_are_whole(outcome: DemoOutcome) -> None:
    names = {path.name for path in outcome.folder.iterdir()}
    assert {"contact_sheet.png", "side_by_side.mp4", "report.json", "with_repair.txt", "without_repair.txt"} <= names
    boxes = read_mot(outcome.folder / "with_repair.txt")
    assert [len(t) for t in boxes] == [len(t) for t in outcome.repaired.tracks]
    report = json.loads((outcome.folder / "report.json").read_text())
    assert len(report["repair_list"]) == len(outcome.repaired.repairs)


def test_dataset_of_the_demo_holds_truth_plain_and_repaired(
    outcome: DemoOutcome, fo: ModuleType, labels: ModuleType
) -> None:
    dataset = fo.load_dataset(DATASET)
    assert dataset.persistent
    sample = dataset.first()
    for field, tracks in (
        ("ground_truth", demo_ground_truth()),
        ("tracks_plain", outcome.plain.tracks),
        ("tracks", outcome.repaired.tracks),
    ):
        read = labels.read_tracks(sample, field)
        assert [t.track_id for t in read] == [t.track_id for t in tracks]
        for a, b in zip(read, tracks, strict=True):
            assert a.masks == b.masks
            np.testing.assert_array_equal(a.frame_indices, b.frame_indices)


def test_demo_twice_replaces_what_it_wrote(
    outcome: DemoOutcome, fo: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = iter([outcome.plain, outcome.repaired])
    monkeypatch.setattr("fiftyone_plugin.demo.pipeline.track", lambda *_args, **_settings: next(results))
    again = run_demo(outcome.folder, dataset=DATASET)
    assert again.with_repair == outcome.with_repair
    assert len(fo.load_dataset(DATASET)) == 1


def test_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="give another output folder"):
        run_demo(tmp_path / "file" / "demo", dataset=None)
