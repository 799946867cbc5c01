"""Edits in a real database: what changes, that nothing else does, and that undo brings back the very same labels."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.errors import EditError, FieldConflictError
from fiftyone_plugin.identity import apply_repairs
from fiftyone_plugin.types import Decision, Encounter, EncounterKind, Outcome, Repair, RepairKind, Track, TrackingResult

pytestmark = pytest.mark.fiftyone


def documents(target: Any) -> tuple[Any, Any]:
    """Labels and events as they are in the database."""
    import fiftyone as fo
    from bson import ObjectId

    if isinstance(target, fo.DatasetView):
        samples = {str(s["_id"]): s for s in target._root_dataset._sample_collection.find()}
        found = [samples[i] for i in target.values("id")]
        return [s.get("tracks") for s in found], [s.get("tracks_events") for s in found]
    key = ObjectId(target.id)
    frames = target.dataset._frame_collection.find({"_sample_id": key})
    labels = {f["frame_number"]: f.get("tracks") for f in frames}
    return labels, target.dataset._sample_collection.find_one({"_id": key})["tracks_events"]


def frames_of(labels: ModuleType, target: Any) -> dict[int, list[int]]:
    return {t.track_id: t.frame_indices.tolist() for t in labels.read_tracks(target, "tracks")}


@pytest.fixture
def sample(labels: ModuleType, dataset: Any, result: TrackingResult) -> Any:
    """A video whose field `tracks` holds the result: sheep 1 (0-11), sheep 2 (0-2, 6-9), dog 3 (4-11)."""
    target = dataset.first()
    labels.write_tracks(target, "tracks", result)
    return target


EDITS: dict[str, Any] = {
    "merge": lambda labels, s: labels.merge(s, "tracks", 2, labels.split(s, "tracks", 2, 6).track_ids[1]),
    "split": lambda labels, s: labels.split(s, "tracks", 1, 5),
    "swap": lambda labels, s: labels.swap(s, "tracks", 1, 2, 6),
    "swap_part": lambda labels, s: labels.swap(s, "tracks", 1, 3, 2, 7),
    "relabel": lambda labels, s: labels.relabel(s, "tracks", 3, "black dog"),
    "delete": lambda labels, s: labels.delete(s, "tracks", 1),
    "delete_encounter": lambda labels, s: labels.delete(s, "tracks", 2, encounter_id=2),
    "lock": lambda labels, s: labels.lock(s, "tracks", [1, 3]),
    "accept": lambda labels, s: labels.accept(s, "tracks", encounter_id=2),
}


@pytest.mark.parametrize("name", EDITS)
def test_edit_undo_and_redo_leave_the_very_same_documents(
    labels: ModuleType, dataset: Any, sample: Any, result: TrackingResult, name: str
) -> None:
    from fiftyone_plugin.labels.table import read_table

    labels.write_tracks(dataset.last(), "tracks", result)
    elsewhere = documents(dataset.last())
    states, summaries = [documents(sample)], [labels.read_summary(sample, "tracks")]
    EDITS[name](labels, sample)
    states.append(documents(sample))
    summaries.append(labels.read_summary(sample, "tracks"))
    assert summaries[0] != summaries[1]
    # Index, label and instance stay together.
    sample.reload()
    seen: dict[int, set[tuple[str, str]]] = {}
    for frame in sample.frames.values():
        for d in frame.tracks.detections:
            seen.setdefault(d.index, set()).add((d.label, str(d.instance.id)))
    assert all(len(found) == 1 for found in seen.values())
    assert len({instance for ((_, instance),) in seen.values()}) == len(seen)
    assert set(read_table(sample, "tracks").namings) == set(seen)
    # Back, and there again.
    steps = len(labels.history(sample, "tracks")[0])
    for _ in range(steps):
        labels.undo(sample, "tracks")
    assert documents(sample) == states[0]
    assert {**labels.read_summary(sample, "tracks"), "marks": {}} == {**summaries[0], "marks": {}}
    for _ in range(steps):
        labels.redo(sample, "tracks")
    assert documents(sample) == states[1]
    assert labels.read_summary(sample, "tracks") == summaries[1]
    # The other video was never touched.
    assert documents(dataset.last()) == elsewhere
    assert labels.history(dataset.last(), "tracks") == ((), ())


def test_split_gives_the_rest_a_new_id_and_summary_and_events_follow(labels: ModuleType, sample: Any) -> None:
    masks = {t.track_id: t.masks for t in labels.read_tracks(sample, "tracks")}
    edit = labels.split(sample, "tracks", 1, 5)
    assert (edit.kind, edit.track_ids, edit.frame) == ("split", (1, 4), 5)
    assert edit.text == "split sheep 1 at frame 6: from there on it is sheep 4"
    assert frames_of(labels, sample)[1] == [0, 1, 2, 3, 4]
    assert frames_of(labels, sample)[4] == [5, 6, 7, 8, 9, 10, 11]
    pieces = {t.track_id: t for t in labels.read_tracks(sample, "tracks")}
    assert pieces[1].masks + pieces[4].masks == masks[1]
    lines = {line["track_id"]: line for line in labels.read_summary(sample, "tracks")["tracks"]}
    assert (lines[1]["stop"], lines[4]["start"], lines[4]["frames"]) == (5, 5, 7)
    assert lines[1]["mean_score"] == pytest.approx(float(pieces[1].scores.mean()))
    sample.reload()
    births = [(tuple(d.track_ids), list(d.support)) for d in sample.tracks_events.detections if d.label == "birth"]
    assert ((4,), [6, 6]) in births


def test_ids_are_never_given_twice(labels: ModuleType, sample: Any) -> None:
    first = labels.split(sample, "tracks", 1, 5).track_ids[1]
    labels.merge(sample, "tracks", 1, first)
    assert labels.split(sample, "tracks", 1, 5).track_ids[1] == first + 1
    labels.undo(sample, "tracks")
    labels.delete(sample, "tracks", 3)
    assert labels.split(sample, "tracks", 1, 5).track_ids[1] == first + 2


def test_merge_of_tracks_that_meet_is_refused_with_the_frames(labels: ModuleType, sample: Any) -> None:
    before = documents(sample)
    with pytest.raises(EditError, match=r"sheep 1 and sheep 2 are both on frames 1 to 3, 7 to 10: .*swap them"):
        labels.merge(sample, "tracks", 1, 2)
    assert documents(sample) == before


def test_merge_takes_label_and_instance_of_the_one_that_stays(labels: ModuleType, sample: Any) -> None:
    new = labels.split(sample, "tracks", 3, 8).track_ids[1]
    labels.relabel(sample, "tracks", new, "wolf")
    labels.merge(sample, "tracks", 3, new)
    (dog,) = [t for t in labels.read_tracks(sample, "tracks") if t.track_id == 3]
    assert (dog.phrase, len(dog)) == ("dog", 8)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m, s: m.merge(s, "tracks", 1, 9), r"track 9: field 'tracks' has no such track here; it has 1, 2, 3"),
        (lambda m, s: m.merge(s, "tracks", 1, 1), "cannot be merged with itself"),
        (lambda m, s: m.split(s, "tracks", 1, 0), r"can be split at frames 2 to 12, not at 1"),
        (lambda m, s: m.swap(s, "tracks", 2, 3, 12), "neither sheep 2 nor dog 3 is on frames 13 to 12"),
        (lambda m, s: m.relabel(s, "tracks", 1, "  "), "must be another one than 'sheep', and not empty"),
        (lambda m, s: m.lock(s, "tracks", [2], locked=False), "not locked"),
        (lambda m, s: m.accept(s, "tracks", encounter_id=7), "encounter 7: the run has 1, 2"),
        (lambda m, s: m.accept(s, "tracks"), "either an encounter or a repair"),
        (lambda m, s: m.undo_repair(s, "tracks", 4), "repair 4: the run has 1"),
        (lambda m, s: m.undo_repair(s, "tracks", 1), "did not keep what it was made of"),
        (lambda m, s: m.undo(s, "tracks"), "no edit to undo"),
        (lambda m, s: m.redo(s, "tracks"), "no edit to redo"),
    ],
)
def test_impossible_edit_is_one_clear_line_and_changes_nothing(
    labels: ModuleType, sample: Any, edit: Any, message: str
) -> None:
    before = documents(sample)
    with pytest.raises(EditError, match=message) as raised:
        edit(labels, sample)
    assert "\n" not in str(raised.value)
    assert documents(sample) == before
    assert labels.history(sample, "tracks") == ((), ())


def test_edit_of_labels_of_others_is_refused(fo: ModuleType, labels: ModuleType, dataset: Any) -> None:
    target = dataset.first()
    target.frames[1]["boxes"] = fo.Detections(detections=[fo.Detection(label="x", bounding_box=[0, 0, 1, 1], index=1)])
    target.save()
    with pytest.raises(FieldConflictError, match="labels of others are never changed"):
        labels.delete(target, "boxes", 1)


def test_locked_track_refuses_edits_until_it_is_unlocked(labels: ModuleType, sample: Any) -> None:
    labels.lock(sample, "tracks", [1])
    with pytest.raises(EditError, match="sheep 1 is locked: unlock it first"):
        labels.swap(sample, "tracks", 2, 1, 6)
    labels.lock(sample, "tracks", [1], locked=False)
    labels.swap(sample, "tracks", 2, 1, 6)


def test_new_edit_ends_the_possibility_to_redo(labels: ModuleType, sample: Any) -> None:
    labels.split(sample, "tracks", 1, 5)
    labels.undo(sample, "tracks")
    labels.relabel(sample, "tracks", 1, "ram")
    assert [e.kind for e in labels.history(sample, "tracks")[0]] == ["relabel"]
    with pytest.raises(EditError, match="no edit to redo"):
        labels.redo(sample, "tracks")


def test_edit_cut_short_is_whole_again_after_undo(
    labels: ModuleType, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fiftyone.core.collections as collections

    before = documents(sample)
    calls, write = [], collections.SampleCollection.set_label_values

    def fail_late(self: Any, path: str, *args: Any, **options: Any) -> Any:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(self, path, *args, **options)

    monkeypatch.setattr(collections.SampleCollection, "set_label_values", fail_late)
    with pytest.raises(KeyboardInterrupt):
        labels.swap(sample, "tracks", 1, 3, 6)
    monkeypatch.undo()
    assert documents(sample)[0] != before[0]
    labels.undo(sample, "tracks")
    assert documents(sample) == before


# --- review -------------------------------------------------------------------------------------------------------


def test_accept_settles_the_doubt_in_events_and_review(labels: ModuleType, sample: Any) -> None:
    (doubt, repair) = labels.review_items(labels.read_summary(sample, "tracks"))
    assert (doubt.encounter_id, doubt.outcome, doubt.state, doubt.track_ids) == (2, "abstain", "open", (1, 2))
    assert doubt.expected_error == pytest.approx(0.45 * (12 * 4 / 12 + 7 * 2 / 10))
    assert (repair.repair_id, repair.outcome, repair.state) == (1, "exchange", "open")
    assert labels.review_progress(labels.read_summary(sample, "tracks")) == (0, 1)
    labels.accept(sample, "tracks", encounter_id=2)
    assert labels.review_progress(labels.read_summary(sample, "tracks")) == (1, 1)
    sample.reload()
    (event,) = [d for d in sample.tracks_events.detections if d.encounter_id == 2]
    assert (event.label, event.review) == ("reviewed", "accepted")
    assert [i.repair_id for i in labels.review_items(labels.read_summary(sample, "tracks"))] == [1, None]
    labels.accept(sample, "tracks", repair_id=1)
    assert labels.review_items(labels.read_summary(sample, "tracks"))[0].state == "accepted"


def test_edit_with_an_encounter_settles_its_doubt(labels: ModuleType, sample: Any) -> None:
    labels.swap(sample, "tracks", 1, 2, 8, encounter_id=2)
    assert labels.review_items(labels.read_summary(sample, "tracks"))[-1].state == "edited"
    labels.undo(sample, "tracks")
    assert labels.review_progress(labels.read_summary(sample, "tracks")) == (0, 1)


# --- constraints --------------------------------------------------------------------------------------------------


def test_constraints_say_what_the_edits_meant(labels: ModuleType, sample: Any) -> None:
    from fiftyone_plugin.identity.constraints import Lock, MustLink, SplitAt

    labels.swap(sample, "tracks", 1, 2, 6)
    a, b = labels.read_constraints(sample, "tracks")
    assert isinstance(a, MustLink)
    assert [(x.track_id, x.frame) for x in (a.a, a.b)] == [(1, 5), (2, 6)]
    assert [(x.track_id, x.frame) for x in (b.a, b.b)] == [(2, 2), (1, 6)]
    assert a.b.box_xyxy == pytest.approx((26, 8, 34, 16))
    labels.undo(sample, "tracks")
    assert labels.read_constraints(sample, "tracks") == ()
    labels.split(sample, "tracks", 2, 6)
    labels.lock(sample, "tracks", [3])
    split, lock = labels.read_constraints(sample, "tracks")
    assert isinstance(split, SplitAt)
    assert (split.before.frame, split.after.frame) == (2, 6)
    assert isinstance(lock, Lock)
    assert [x.frame for x in lock.anchors] == [4, 5, 6, 7, 8, 9, 10, 11]


def test_constraints_outlive_the_labels_they_were_said_of(
    labels: ModuleType, sample: Any, result: TrackingResult
) -> None:
    labels.split(sample, "tracks", 2, 6)
    said = labels.read_constraints(sample, "tracks")
    labels.write_tracks(sample, "tracks", result, overwrite=True)
    assert labels.read_constraints(sample, "tracks") == said
    assert labels.history(sample, "tracks") == ((), ())
    labels.lock(sample, "tracks", [1])
    assert len(labels.read_constraints(sample, "tracks")) == 2


# --- repairs taken back -------------------------------------------------------------------------------------------


def repaired(carried: tuple[Track, ...], repairs: tuple[Repair, ...], result: TrackingResult) -> TrackingResult:
    encounters = tuple(Encounter(r.repair_id, EncounterKind.CROSSING, "sheep", 3, 6, (1, 2)) for r in repairs)
    return replace(
        result,
        tracks=apply_repairs(carried, repairs),
        carried=carried,
        repairs=repairs,
        encounters=encounters,
        decisions=tuple(Decision(e, Outcome.EXCHANGE, 3.0, 0.9) for e in encounters),
    )


REPAIRS = {
    "exchange": Repair(1, RepairKind.EXCHANGE, 6, None, {1: (2, 2), 2: (1, 5)}, {1: 2, 2: 1}, 4.5, "swapped", 1),
    "reassign": Repair(2, RepairKind.REASSIGN, 10, None, {1: (2, 9)}, {1: 2}, 3.0, "came back", 2),
    "split": Repair(3, RepairKind.SPLIT, 8, None, {3: None}, {3: 4}, 2.0, "another one", 3),
    "trim": Repair(4, RepairKind.TRIM, 4, 6, {3: None}, {3: None}, 1.0, "sits on nothing", 4),
}


@pytest.mark.parametrize("name", REPAIRS)
def test_undo_repair_gives_what_the_run_would_have_given_without_it(
    labels: ModuleType, dataset: Any, result: TrackingResult, name: str
) -> None:
    every = tuple(REPAIRS.values())
    chosen = REPAIRS[name]
    target = dataset.first()
    labels.write_tracks(target, "tracks", repaired(result.tracks, every, result))
    before = documents(target)
    edit = labels.undo_repair(target, "tracks", chosen.repair_id)
    assert edit.kind == "undo_repair"
    expected = apply_repairs(result.tracks, [r for r in every if r is not chosen])
    found = {tuple(t.frame_indices.tolist()): t for t in labels.read_tracks(target, "tracks")}
    assert set(found) == {tuple(t.frame_indices.tolist()) for t in expected}
    for track in expected:
        mine = found[tuple(track.frame_indices.tolist())]
        assert mine.masks == track.masks
        assert mine.sources == track.sources
        np.testing.assert_array_equal(mine.boxes_xyxy, track.boxes_xyxy)
        np.testing.assert_array_equal(mine.scores, track.scores)
    (item,) = [i for i in labels.review_items(labels.read_summary(target, "tracks")) if i.repair_id == chosen.repair_id]
    assert item.state == "undone"
    labels.undo(target, "tracks")
    assert documents(target) == before


def test_undo_all_repairs_one_by_one_ends_with_plain_propagation(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    target = dataset.first()
    labels.write_tracks(target, "tracks", repaired(result.tracks, tuple(REPAIRS.values()), result))
    written = documents(target)
    for repair in REPAIRS.values():
        labels.undo_repair(target, "tracks", repair.repair_id)
    plain = {t.track_id: t for t in result.tracks}
    found = {t.track_id: t for t in labels.read_tracks(target, "tracks")}
    assert {i: t.frame_indices.tolist() for i, t in found.items()} == {
        i: t.frame_indices.tolist() for i, t in plain.items()
    }
    assert all(found[i].masks == plain[i].masks for i in plain)
    with pytest.raises(EditError, match="undone already"):
        labels.undo_repair(target, "tracks", 1)
    for _ in REPAIRS:
        labels.undo(target, "tracks")
    assert documents(target) == written


def test_undo_repair_leaves_what_a_person_did_since(labels: ModuleType, dataset: Any, result: TrackingResult) -> None:
    target = dataset.first()
    labels.write_tracks(target, "tracks", repaired(result.tracks, (REPAIRS["exchange"],), result))
    labels.relabel(target, "tracks", 1, "ram")
    tail = labels.split(target, "tracks", 2, 10).track_ids[1]
    labels.undo_repair(target, "tracks", 1)
    found = {t.track_id: t for t in labels.read_tracks(target, "tracks")}
    # Frames 10 and 11 of propagated track 1 were split off by hand, and stay so.
    assert found[tail].frame_indices.tolist() == [10, 11]
    assert (found[1].phrase, found[1].frame_indices.tolist()) == ("ram", list(range(10)))
    assert found[2].frame_indices.tolist() == [0, 1, 2, 6, 7, 8, 9]


def test_undo_repair_that_later_edits_forbid_says_so(labels: ModuleType, dataset: Any, result: TrackingResult) -> None:
    target = dataset.first()
    labels.write_tracks(target, "tracks", repaired(result.tracks, (REPAIRS["split"],), result))
    labels.lock(target, "tracks", [3])
    with pytest.raises(EditError, match="dog 3 is locked"):
        labels.undo_repair(target, "tracks", 3)


def test_edits_of_an_image_sequence_round_trip(labels: ModuleType, sequences: Any, result: TrackingResult) -> None:
    (target, other) = labels.targets(sequences.group_by("scene", order_by="frame_number"))
    labels.write_tracks(target, "tracks", repaired(result.tracks, tuple(REPAIRS.values()), result))
    before, elsewhere = documents(target), documents(other)
    labels.swap(target, "tracks", 1, 3, 8)
    labels.undo_repair(target, "tracks", 4)
    labels.delete(target, "tracks", 2)
    assert 2 not in frames_of(labels, target)
    for _ in range(3):
        labels.undo(target, "tracks")
    assert documents(target) == before
    assert documents(other) == elsewhere
