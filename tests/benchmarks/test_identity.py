from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fiftyone_plugin import benchmarks
from fiftyone_plugin.benchmarks import identity
from fiftyone_plugin.benchmarks import identity_tables as tables
from fiftyone_plugin.benchmarks.identity_cases import Case, Row, no_repair, run
from fiftyone_plugin.benchmarks.identity_injection import inject
from fiftyone_plugin.benchmarks.identity_real import read_sequence, sequence_names
from fiftyone_plugin.benchmarks.identity_synthetic import CONDITIONS
from fiftyone_plugin.benchmarks.identity_targets import check_targets, targets_table
from fiftyone_plugin.benchmarks.identity_timing import made_up_evidence, measure_audit
from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.pipeline.settle import Evidence
from fiftyone_plugin.synthetic.actors import Actor
from fiftyone_plugin.synthetic.scenes import WIDTH_PX
from fiftyone_plugin.types import Track

COLOURS = ((220, 40, 40), (40, 40, 220), (40, 180, 60))


def write_sequence(folder: Path, truth: Sequence[Track], *, has_frames: bool = True) -> None:
    """A sequence in MOT's layout: coloured squares on grey."""
    (folder / "gt").mkdir(parents=True)
    lines = [
        f"{f + 1},{t.track_id},{b[0]:.2f},{b[1]:.2f},10,10,1,1,1"
        for t in truth
        for f, b in zip(t.frame_indices.tolist(), t.boxes_xyxy, strict=True)
    ]
    (folder / "gt" / "gt.txt").write_text("\n".join(lines))
    (folder / "seqinfo.ini").write_text("[Sequence]\nimWidth=160\nimHeight=240\nseqLength=100\n")
    (folder / "trackers").mkdir()
    (folder / "trackers" / "perfect.txt").write_text("\n".join(lines))
    if has_frames:
        (folder / "img1").mkdir()
        for frame in range(100):
            image = np.full((240, 160, 3), 120, np.uint8)
            for t in truth:
                for f, (x0, y0, x1, y1) in zip(t.frame_indices.tolist(), t.boxes_xyxy.astype(int), strict=True):
                    if f == frame:
                        image[y0:y1, x0:x1] = COLOURS[t.track_id - 1]
            Image.fromarray(image).save(folder / "img1" / f"{frame + 1:06d}.png")


def test_parts_of_a_benchmark_are_no_benchmarks() -> None:
    assert "identity" in benchmarks.names()
    assert not [name for name in benchmarks.names() if name.startswith("identity_")]


def test_the_benchmark_runs_on_real_sequences(
    tmp_path: Path, crossing: list[Track], capsys: pytest.CaptureFixture[str]
) -> None:
    write_sequence(tmp_path / "data" / "squares", crossing)
    write_sequence(tmp_path / "data" / "boxes_only" / "bare", crossing, has_frames=False)
    arguments = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"), "--seeds", "1", "--details", "3"]
    arguments += ["--methods", "no repair", "IoU", "oracle"]
    out = tmp_path / "rows.json"
    assert identity.main(["--part", "injected", "trackers", "harm", *arguments, "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert {r["method"] for r in rows["injected"]} == {"no repair", "IoU re-matching", "oracle"}
    swap = {r["method"]: r for r in rows["injected"] if r["case"] == "squares swap 1"}
    assert swap["no repair"]["repair_recall"] == {"part": 0, "whole": 2, "share": 0.0}
    assert swap["oracle"]["IDF1"] == 100.0
    # pictures are needed for injected failures only
    assert {r["case"] for r in rows["harm"]} == {"squares", "bare (boxes only)"}
    assert {r["IDF1"] for r in rows["harm"] if r["method"] == "no repair"} == {100.0}
    assert {r["group"] for r in rows["trackers"]} == {"people", "people, boxes only"}
    text = capsys.readouterr().out
    assert text.count("## ") >= 3
    assert "What went wrong" in text


def test_methods_can_be_chosen_by_how_they_begin(tmp_path: Path, crossing: list[Track]) -> None:
    write_sequence(tmp_path / "data" / "bare", crossing, has_frames=False)
    sequence = read_sequence(tmp_path / "data", *sequence_names(tmp_path / "data"))
    rows = list(identity.measure_true_tracks(sequence, None, methods=["no", "gta"]))
    assert [r.method for r in rows] == ["no repair", "GTA", "GTA, fitted"]
    everything = {r.method for r in identity.measure_true_tracks(sequence, None)}
    assert everything == set(identity.GIVEN_TRACKS)


def test_a_folder_without_sequences_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="NAME/gt/gt"):
        identity.main(["--part", "harm", "--data", str(tmp_path)])
    with pytest.raises(OptionError, match="--part synthetic timing"):
        identity.main(["--part", "harm"])


def rows_of(crossing: list[Track]) -> list[Row]:
    swapped = inject(crossing, "swap", 1)
    assert swapped is not None
    case = Case("a swap 1", "a group", tuple(crossing), Evidence(swapped, {}, {}))
    return run(case, {"no repair": no_repair, tables.OURS: no_repair, "oracle": identity.oracle})


def test_worst_names_objects_ids_and_frames(crossing: list[Track]) -> None:
    rows = rows_of(crossing)
    text = "\n".join(tables.worst(rows, 5))
    (first, second) = next(r for r in rows if r.method == tables.OURS).remaining
    assert f"object {first.object_id} carries {first.old_id} until {first.last_frame}, {first.new_id}" in text
    assert f"object {second.object_id} carries" in text
    assert tables.worst([r for r in rows if r.method == "oracle"], 5) == ["- nothing"]


def test_report_gives_shares_as_counts(crossing: list[Track]) -> None:
    text = tables.report("injected", rows_of(crossing))
    (line,) = [line for line in text.splitlines() if line.startswith("| oracle")]
    assert "| 2/2 1.00 |" in line
    assert "a swap |" in text


def test_targets_are_checked_against_what_was_measured(crossing: list[Track]) -> None:
    rows = rows_of(crossing)
    people = [replace(r, group="people") for r in rows]
    timing = {"minutes": 10.0, "objects": 10, "seconds": 61.0}
    found = {t.about: t for t in check_targets({"injected": people}, timing, distinguishable=["usual"])}
    mended = found["injected swaps, people: errors mended"]
    assert (mended.measured, mended.is_reached, mended.how) == (0.0, False, "0 of 2")
    assert found["injected: lowest change of IDF1, points"].is_reached is True
    # nothing was decided: neither reached nor missed
    assert found["injected, people: decided repairs that are right"].is_reached is None
    assert found["audit of 10 minutes, 10 objects, seconds"].is_reached is False
    assert "| **no** |" in targets_table(list(found.values()))


def test_synthetic_targets_compare_with_the_best_of_the_others(crossing: list[Track]) -> None:
    plain, _, best = (replace(r, group="usual") for r in rows_of(crossing))
    ours, filled = replace(best, method=tables.OURS), replace(plain, method=tables.FINISHED)
    rows = [plain, ours, replace(plain, method="GTA"), filled]
    found = {t.about: t for t in check_targets({"synthetic": rows}, None, distinguishable=["usual"])}
    # what is made on request only does not count
    assert found["synthetic: ID switches fewer than without repair"].how == "0 of 2"
    assert found["synthetic: ID switches fewer than the best of the others"].measured == 1.0


def test_conditions_draw_the_same_clip_again_and_keep_their_promise() -> None:
    for name, condition in CONDITIONS.items():
        assert repr(condition.clip(501, 60).scene) == repr(condition.clip(501, 60).scene), name
    usual, longer = CONDITIONS["usual"].clip(501, 120).scene, CONDITIONS["long hiding"].clip(501, 120).scene
    sizes = [[a.size_px for a in scene.actors if a.is_scenery] for scene in (usual, longer)]
    assert sizes[1] == [2 * s for s in sizes[0]]
    away = CONDITIONS["long absence"]
    longer = away.clip(503, 120).scene.actors
    short = replace(away, away_frames=0).clip(503, 120 + away.away_frames).scene.actors
    added = [b.waypoints[-1].frame - a.waypoints[-1].frame for a, b in zip(short, longer, strict=True)]
    assert max(added) > 0
    # once for every absence, however many points of the way lie outside
    assert all(frames % away.away_frames == 0 for frames in added)
    assert all(_absences(b) * away.away_frames == frames for b, frames in zip(longer, added, strict=True))


def _absences(actor: Actor) -> int:
    is_out = [p.x_px > WIDTH_PX or p.x_px < 0 for p in actor.waypoints]
    return sum(a and b and not before for before, a, b in zip([False, *is_out], is_out, is_out[1:], strict=False))


def test_timing_measures_tracks_that_meet_and_return() -> None:
    evidence = made_up_evidence(frames=1500, objects=6, seed=1)
    assert len(evidence.tracks) >= 6
    assert all(t.track_id in evidence.galleries for t in evidence.tracks)
    found = measure_audit(minutes=0.3, objects=4)
    assert found["encounters"] > 0
    assert found["seconds"] < 30
