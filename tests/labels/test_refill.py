"""Masks tracked anew after an edit, in a real database: what is put in, that nothing else changes, undo and redo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.benchmarks.identity_injection import take
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.errors import EditError, ModelUnavailableError, OptionError
from fiftyone_plugin.geometry import encode_mask, rle_iou
from fiftyone_plugin.identity import apply_repairs
from fiftyone_plugin.pipeline.bridge import Gap
from fiftyone_plugin.pipeline.rechoose import Rechosen, Window
from fiftyone_plugin.types import (
    Decision,
    Encounter,
    EncounterKind,
    Outcome,
    Repair,
    RepairKind,
    Source,
    Track,
    TrackingResult,
)

pytestmark = pytest.mark.fiftyone

HEIGHT_PX, WIDTH_PX = 48, 64


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
    return (
        {f["frame_number"]: f.get("tracks") for f in frames},
        target.dataset._sample_collection.find_one({"_id": key})["tracks_events"],
    )


def by_label(target: Any) -> dict[str, Any]:
    labels = documents(target)[0]
    every = labels.values() if isinstance(labels, dict) else labels
    return {str(d["_id"]): d for frame in every if frame for d in frame["detections"]}


def squares(track_id: int, frames: Sequence[int], *, source: Source = Source.PROPAGATED) -> Track:
    """New masks, recognised by their place: the lower left corner."""
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), np.bool_)
    mask[40:48, 0:6] = True
    count = len(frames)
    return Track(
        track_id=track_id,
        phrase="sheep",
        frame_indices=np.array(frames, np.int64),
        boxes_xyxy=np.tile(np.array([0, 40, 6, 48], np.float32), (count, 1)),
        masks=(encode_mask(mask),) * count,
        scores=np.full(count, 0.9, np.float32),
        mask_scores=np.full(count, 0.8, np.float32),
        identity_confidence=np.full(count, 0.7, np.float32),
        sources=(source,) * count,
    )


class Painter:
    """A repropagator that paints squares, and remembers what it was asked."""

    def __init__(
        self,
        fill: Callable[[Gap], Sequence[int]] = lambda gap: range(gap.start, gap.stop),
        rechosen: Rechosen | None = None,
    ) -> None:
        self._fill, self._rechosen = fill, rechosen
        self.tracks: dict[int, list[int]] = {}
        self.gaps: list[Gap] = []
        self.windows: list[Window] = []

    def fill(self, tracks: Sequence[Track], gaps: Sequence[Gap]) -> list[Track]:
        self.tracks = {t.track_id: t.frame_indices.tolist() for t in tracks}
        self.gaps += gaps
        return [squares(gap.track_id, frames) for gap in gaps if (frames := list(self._fill(gap)))]

    def rechoose(self, tracks: Sequence[Track], window: Window) -> Rechosen:
        self.tracks = {t.track_id: t.frame_indices.tolist() for t in tracks}
        self.windows.append(window)
        return self._rechosen or Rechosen()


class Broken:
    """One whose models cannot be had."""

    def fill(self, tracks: Any, gaps: Any) -> Any:
        raise ModelUnavailableError("sam2:tiny is gone")

    def rechoose(self, tracks: Any, window: Any) -> Any:
        raise ModelUnavailableError("sam2:tiny is gone")


@pytest.fixture
def sample(labels: ModuleType, dataset: Any, result: TrackingResult) -> Any:
    """Sheep 1 (0-11), sheep 2 (0-2), dog 3 (4-11), sheep 4 (6-9); a doubt about sheep 1 and 4 in frames 8 and 9."""
    target = dataset.first()
    labels.write_tracks(target, "tracks", replace(result, carried=result.tracks, repairs=()))
    labels.split(target, "tracks", 2, 6)
    return target


def there_and_back(labels: ModuleType, target: Any, before: Any, summary: Any) -> None:
    """Undo brings back the very same documents, redo those of the edit."""
    done, after = documents(target), labels.read_summary(target, "tracks")
    for _ in range(2):
        labels.undo(target, "tracks")
        assert documents(target) == before
        assert {**labels.read_summary(target, "tracks"), "marks": {}} == {**summary, "marks": {}}
        labels.redo(target, "tracks")
        assert documents(target) == done
        assert labels.read_summary(target, "tracks") == after


# --- merge --------------------------------------------------------------------------------------------------------


def test_merge_fills_the_gap_and_nothing_else(labels: ModuleType, sample: Any) -> None:
    before, summary, ids = documents(sample), labels.read_summary(sample, "tracks"), by_label(sample)
    painter = Painter()
    edit = labels.merge(sample, "tracks", 2, 4, anew=painter)
    assert painter.gaps == [Gap(2, 3, 6)]
    # It is shown all tracks as they will be called, the gap's own in one piece.
    assert painter.tracks[2] == [0, 1, 2, 6, 7, 8, 9]
    assert set(painter.tracks) == {1, 2, 3}
    assert edit.text == "merged sheep 4 into sheep 2"
    assert edit.note == "3 of the 3 frames between them were tracked anew"
    now = by_label(sample)
    new = [now[i] for i in now.keys() - ids.keys()]
    assert len(new) == 3
    one = next(d for i, d in ids.items() if d["index"] == 2)
    for label in new:
        assert (label["index"], label["label"], label["source"]) == (2, "sheep", "propagated")
        assert label["instance"] == one["instance"]
        assert label.keys() == one.keys()
    (track,) = [t for t in labels.read_tracks(sample, "tracks") if t.track_id == 2]
    assert track.frame_indices.tolist() == list(range(10))
    assert track.masks[3:6] == squares(2, [3, 4, 5]).masks
    np.testing.assert_allclose(track.scores[3:6], 0.9)
    # What was there is what it was, but for the track that ended.
    assert {i: d for i, d in now.items() if i in ids and ids[i]["index"] != 4} == {
        i: d for i, d in ids.items() if d["index"] != 4
    }
    lines = {line["track_id"]: line for line in labels.read_summary(sample, "tracks")["tracks"]}
    assert (lines[2]["frames"], lines[2]["gaps"]) == (10, [])
    sample.reload()
    assert not [d for d in sample.tracks_events.detections if d.label == "loss" and list(d.track_ids) == [2]][1:]
    there_and_back(labels, sample, before, summary)


def test_merge_says_the_same_to_later_runs_whether_it_filled_or_not(labels: ModuleType, sample: Any) -> None:
    labels.merge(sample, "tracks", 2, 4)
    plain = labels.read_constraints(sample, "tracks")
    labels.undo(sample, "tracks")
    labels.merge(sample, "tracks", 2, 4, anew=Painter())
    assert labels.read_constraints(sample, "tracks") == plain


@pytest.mark.parametrize(
    ("anew", "limit", "note"),
    [
        (Painter(lambda gap: [4]), 64, "1 of the 3 frames between them were tracked anew"),
        (Painter(lambda gap: []), 64, "The object was not found in the 3 frames between them, which stay empty"),
        (Painter(), 2, "The gap of 3 frames is longer than 2 and stays empty"),
        (Broken(), 64, "Masks were not tracked anew: sam2:tiny is gone"),
        (None, 64, ""),
    ],
    ids=["in_part", "not_found", "too_long", "no_models", "not_asked"],
)
def test_merge_is_made_whatever_becomes_of_the_gap(
    labels: ModuleType, sample: Any, anew: Any, limit: int, note: str
) -> None:
    edit = labels.merge(sample, "tracks", 2, 4, anew=anew, max_gap_frames=limit)
    assert edit.note == note
    (track,) = [t for t in labels.read_tracks(sample, "tracks") if t.track_id == 2]
    filled = [4] if note.startswith("1 of") else []
    assert track.frame_indices.tolist() == sorted([0, 1, 2, *filled, 6, 7, 8, 9])
    assert labels.history(sample, "tracks")[0][-1] == edit


def test_merge_with_a_limit_that_means_nothing_changes_nothing(labels: ModuleType, sample: Any) -> None:
    before = documents(sample)
    with pytest.raises(OptionError, match="max_gap_frames = 0: must be 1 or more"):
        labels.merge(sample, "tracks", 2, 4, anew=Painter(), max_gap_frames=0)
    assert documents(sample) == before


def test_merge_of_locked_tracks_asks_no_model(labels: ModuleType, sample: Any) -> None:
    labels.lock(sample, "tracks", [4])
    painter = Painter()
    with pytest.raises(EditError, match="is locked"):
        labels.merge(sample, "tracks", 2, 4, anew=painter)
    assert painter.gaps == []


def test_merge_in_an_image_sequence_round_trips(labels: ModuleType, sequences: Any, result: TrackingResult) -> None:
    (target, other) = labels.targets(sequences.group_by("scene", order_by="frame_number"))
    labels.write_tracks(target, "tracks", result)
    new = labels.split(target, "tracks", 2, 6).track_ids[1]
    before, elsewhere, summary = documents(target), documents(other), labels.read_summary(target, "tracks")
    labels.merge(target, "tracks", 2, new, anew=Painter())
    (track,) = [t for t in labels.read_tracks(target, "tracks") if t.track_id == 2]
    assert track.frame_indices.tolist() == list(range(10))
    there_and_back(labels, target, before, summary)
    assert documents(other) == elsewhere


def test_edit_cut_short_while_masks_are_put_in_is_whole_again_after_undo(
    labels: ModuleType, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fiftyone_plugin.labels import table

    before, exchange = documents(sample), table._exchange_items

    def die(*args: Any) -> None:
        exchange(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(table, "_exchange_items", die)
    with pytest.raises(KeyboardInterrupt):
        labels.merge(sample, "tracks", 2, 4, anew=Painter())
    monkeypatch.undo()
    assert documents(sample) != before
    labels.undo(sample, "tracks")
    assert documents(sample) == before


# --- swap ---------------------------------------------------------------------------------------------------------


def rechosen() -> Rechosen:
    """Sheep 4 gets new masks on 8 and on 10, where it had none; sheep 1 is hidden on 9."""
    new = squares(4, [8, 10], source=Source.REPAIRED)
    return Rechosen((new,), frozenset({(1, 9)}))


def test_swap_inside_an_encounter_chooses_masks_anew(labels: ModuleType, sample: Any) -> None:
    dataset = sample.dataset
    frame = dataset.first().frames[9]
    tagged = next(d for d in frame.tracks.detections if d.index == 1)
    tagged.tags.append("seen")
    frame.save()
    before, summary, ids = documents(sample), labels.read_summary(sample, "tracks"), by_label(sample)
    painter = Painter(rechosen=rechosen())
    edit = labels.swap(sample, "tracks", 1, 4, 8, anew=painter)
    assert painter.windows == [Window((1, 4), 8, 10)]
    # As they are called after the swap.
    assert painter.tracks[1] == list(range(10))
    assert painter.tracks[4] == [6, 7, 8, 9, 10, 11]
    assert edit.note == "Masks in frames 9 to 10 were chosen anew, and differ on 3 of them"
    found = {t.track_id: t for t in labels.read_tracks(sample, "tracks")}
    assert found[1].frame_indices.tolist() == list(range(9))
    assert found[4].frame_indices.tolist() == [6, 7, 8, 9, 10, 11]
    assert found[4].masks[2] == found[4].masks[4] == squares(4, [8]).masks[0]
    assert [str(s) for s in found[4].sources][2] == "repaired"
    # The new one stands where the old one stood, and keeps what a person had given it.
    now = documents(sample)[0]
    old_places = [d["index"] for d in before[0][9]["detections"]]
    new_places = [d["index"] for d in now[9]["detections"]]
    assert [{1: 4, 4: 1}.get(i, i) for i in old_places] == new_places
    assert next(d for d in now[9]["detections"] if d["index"] == 4)["tags"] == ["seen"]
    # Outside the frames that were named, only names have changed.
    after = by_label(sample)
    assert len(after.keys() - ids.keys()) == 2
    for i in ids.keys() & after.keys():
        assert {k: v for k, v in after[i].items() if k not in ("index", "label", "instance")} == {
            k: v for k, v in ids[i].items() if k not in ("index", "label", "instance")
        }
    sample.reload()
    there_and_back(labels, sample, before, summary)


@pytest.mark.parametrize(
    ("tracks", "frames"), [((1, 4), (7,)), ((1, 3), (8,)), ((1, 4), (10,))], ids=["before", "others", "after"]
)
def test_swap_outside_an_encounter_of_the_two_asks_no_model(
    labels: ModuleType, sample: Any, tracks: tuple[int, int], frames: tuple[int, ...]
) -> None:
    painter = Painter(rechosen=rechosen())
    edit = labels.swap(sample, "tracks", *tracks, *frames, anew=painter)
    assert (painter.windows, edit.note) == ([], "")


def test_swap_that_ends_inside_an_encounter_chooses_masks_there(labels: ModuleType, sample: Any) -> None:
    painter = Painter()
    edit = labels.swap(sample, "tracks", 1, 4, 6, 9, anew=painter)
    assert painter.windows == [Window((1, 4), 8, 10)]
    assert edit.note == "Masks in frames 9 to 10 were tracked anew and stay as they are"


def test_swap_is_made_without_models_too(labels: ModuleType, sample: Any) -> None:
    labels.swap(sample, "tracks", 1, 4, 8)
    plain = documents(sample)
    labels.undo(sample, "tracks")
    edit = labels.swap(sample, "tracks", 1, 4, 8, anew=Broken())
    assert edit.note == "Masks were not tracked anew: sam2:tiny is gone"
    assert documents(sample) == plain


# --- with repairs of the run --------------------------------------------------------------------------------------


@pytest.fixture
def joined(labels: ModuleType, dataset: Any, result: TrackingResult) -> Any:
    """A run that recognised a return: propagated track 3 goes on as track 1 from frame 8 on; 4 is the rest of 1."""
    first, second, third = result.tracks
    repair = Repair(1, RepairKind.SPLIT, 8, None, {1: None}, {1: 4}, 3.0, "another one", None)
    carried = (first, second, third)
    target = dataset.first()
    made = replace(
        result,
        tracks=apply_repairs(carried, [repair]),
        carried=carried,
        repairs=(repair,),
        encounters=(),
        decisions=(),
    )
    labels.write_tracks(target, "tracks", made)
    return target


def test_repair_can_be_taken_back_beside_a_filled_gap(labels: ModuleType, joined: Any) -> None:
    new = labels.split(joined, "tracks", 2, 6).track_ids[1]
    labels.merge(joined, "tracks", 2, new, anew=Painter())
    before = documents(joined)
    labels.undo_repair(joined, "tracks", 1)
    found = {t.track_id: t.frame_indices.tolist() for t in labels.read_tracks(joined, "tracks")}
    assert found[1] == list(range(12))
    assert found[2] == list(range(10))
    labels.undo(joined, "tracks")
    assert documents(joined) == before


def test_repair_whose_undo_would_double_a_filled_mask_says_so(labels: ModuleType, joined: Any) -> None:
    # The rest of the split track goes elsewhere, and its place is filled: undoing the split finds it taken.
    first = labels.split(joined, "tracks", 4, 10).track_ids[1]
    labels.relabel(joined, "tracks", first, "ram")
    middle = labels.split(joined, "tracks", 4, 9).track_ids[1]
    labels.merge(joined, "tracks", 1, first, anew=Painter(lambda gap: [8]))
    assert middle
    before = documents(joined)
    with pytest.raises(EditError, match="would put track 1 on frame 9 twice, because of edits made since"):
        labels.undo_repair(joined, "tracks", 1)
    assert documents(joined) == before


def test_repair_that_is_taken_back_leaves_masks_that_were_chosen_anew(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    exchange = Repair(1, RepairKind.EXCHANGE, 6, None, {1: (2, 2), 2: (1, 5)}, {1: 2, 2: 1}, 4.5, "swapped", 1)
    target = dataset.first()
    made = replace(result, tracks=apply_repairs(result.tracks, [exchange]), carried=result.tracks, repairs=(exchange,))
    labels.write_tracks(target, "tracks", made)
    new = squares(1, [8], source=Source.REPAIRED)
    labels.swap(target, "tracks", 1, 2, 8, anew=Painter(rechosen=Rechosen((new,))))
    before = documents(target)
    labels.undo_repair(target, "tracks", 1)
    found = {t.track_id: t for t in labels.read_tracks(target, "tracks")}
    assert found[1].frame_indices.tolist() == list(range(12))
    assert found[2].frame_indices.tolist() == [0, 1, 2, 6, 7, 8, 9]
    assert found[1].masks[8] == new.masks[0]
    plain = {t.track_id: t for t in result.tracks}
    assert found[1].masks[:8] == plain[1].masks[:8]
    assert found[2].masks == plain[2].masks
    labels.undo(target, "tracks")
    assert documents(target) == before


# --- with real models ---------------------------------------------------------------------------------------------


SETTINGS = {"prompt": "sheep. dog.", **TrackingOptions().as_dict()}


def rows_of(track: Track, keep: np.ndarray, track_id: int) -> Track:
    return take(track_id, [(track, np.flatnonzero(keep))])


@pytest.fixture
def write(fo: ModuleType, labels: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """Writes a synthetic clip into a dataset, with tracks as if the bundled models had made them."""
    made = fo.Dataset()

    def write(clip: Any, tracks: Sequence[Track], **more: Any) -> Any:
        path = clip.write_video(tmp_path / "clip.mp4")
        made.add_sample(fo.Sample(filepath=str(path)))
        info = replace(clip.source.info, source=str(path))
        ordered = tuple(sorted(tracks, key=lambda t: t.track_id))
        count = info.frame_count
        result = TrackingResult(
            info, ordered, carried=ordered, frames_processed=count, seconds=0.1 * count, settings=SETTINGS, **more
        )
        labels.write_tracks(made.first(), "tracks", result)
        return made.first()

    yield write
    made.delete()


def test_gap_is_filled_by_the_models_of_the_run_and_put_back_exactly(labels: ModuleType, write: Any) -> None:
    from fiftyone_plugin import repropagate
    from fiftyone_plugin.synthetic import scenes

    # Sheep 1 is missing on frames 16 to 23, and called 9 afterwards.
    clip = scenes.flock(102, frames=40)
    whole, *others = clip.ground_truth()
    frames = whole.frame_indices
    target = write(clip, [rows_of(whole, frames < 16, 1), rows_of(whole, frames >= 24, 9), *others])
    before, summary, ids = documents(target), labels.read_summary(target, "tracks"), by_label(target)
    offer = repropagate.offer_merge(summary, 1, 9)
    assert (offer.frames, offer.missing, offer.why_not) == (8, "", "")
    assert offer.seconds == pytest.approx(0.1 * 2 * (8 + 12))
    edit = labels.merge(target, "tracks", 1, 9, anew=repropagate.models_of_run(target, "tracks"))
    assert edit.note == "8 of the 8 frames between them were tracked anew"
    (track,) = [t for t in labels.read_tracks(target, "tracks") if t.track_id == 1]
    assert track.frame_indices.tolist() == frames.tolist()
    for frame in range(16, 24):
        assert rle_iou([track.masks[frame]], [whole.masks[frame]])[0, 0] > 0.7
    now = by_label(target)
    assert {i: d for i, d in now.items() if i in ids and ids[i]["index"] != 9} == {
        i: d for i, d in ids.items() if d["index"] != 9
    }
    there_and_back(labels, target, before, summary)


def test_swap_a_few_frames_too_late_is_put_right_by_the_models_of_the_run(labels: ModuleType, write: Any) -> None:
    from fiftyone_plugin import repropagate
    from fiftyone_plugin.synthetic import scenes

    # They pass each other in frames 24 to 37. Their tracks exchange them at 29; the person says 32.
    clip = scenes.crossing(frames=60)
    truth = {t.track_id: t for t in clip.ground_truth()}
    parts = {(i, late): rows_of(t, (t.frame_indices >= 29) == late, i) for i, t in truth.items() for late in (0, 1)}
    wrong = []
    for mine, other in ((1, 2), (2, 1)):
        first, rest = parts[mine, 0], parts[other, 1]
        columns = {
            name: np.concatenate([getattr(first, name), getattr(rest, name)])
            for name in ("frame_indices", "boxes_xyxy", "scores", "mask_scores", "identity_confidence")
        }
        wrong.append(replace(first, masks=first.masks + rest.masks, sources=first.sources + rest.sources, **columns))
    meeting = Encounter(1, EncounterKind.CROSSING, "sheep", 24, 38, (1, 2))
    doubt = Decision(meeting, Outcome.ABSTAIN, 0.2, 0.5)
    target = write(clip, wrong, encounters=(meeting,), decisions=(doubt,))
    before, summary, ids = documents(target), labels.read_summary(target, "tracks"), by_label(target)
    edit = labels.swap(target, "tracks", 1, 2, 32, anew=repropagate.models_of_run(target, "tracks"), encounter_id=1)
    assert "were chosen anew, and differ on 3 of them" in edit.note
    for track in labels.read_tracks(target, "tracks"):
        right = truth[track.track_id]
        assert track.frame_indices.tolist() == right.frame_indices.tolist()
        for frame, mask, true in zip(track.frame_indices.tolist(), track.masks, right.masks, strict=True):
            assert frame in (29, 30, 31) or mask == true
            assert rle_iou([mask], [true])[0, 0] > 0.7
    now = by_label(target)
    # Six labels have made room, all on the frames between the two words.
    gone = {n for n, frame in before[0].items() for d in frame["detections"] if str(d["_id"]) not in now}
    assert gone == {30, 31, 32}
    assert len(ids.keys() - now.keys()) == 6
    there_and_back(labels, target, before, summary)
