from __future__ import annotations

from typing import Any

from fiftyone_plugin.identity import apply_repairs, resolve
from fiftyone_plugin.identity.candidates import LinkOptions
from fiftyone_plugin.types import EncounterKind, Outcome, RepairKind


def test_exchange_is_one_repair_that_names_both_tracks(crossing: Any) -> None:
    result = resolve(*crossing(is_exchanged=True))
    (repair,) = result.repairs
    assert (repair.kind, repair.start, repair.stop) == (RepairKind.EXCHANGE, 40, None)
    assert dict(repair.continues) == {1: (2, 39), 2: (1, 39)}
    assert dict(repair.relabels) == {1: 2, 2: 1}
    (decision,) = [d for d in result.decisions if d.encounter.encounter_id == repair.encounter_id]
    assert decision.outcome is Outcome.EXCHANGE
    assert (decision.encounter.kind, decision.encounter.track_ids) == (EncounterKind.CROSSING, (1, 2))
    assert decision.margin == repair.margin > 1
    assert decision.confidence > 0.9


def test_crossing_without_exchange_is_kept_and_told(crossing: Any) -> None:
    result = resolve(*crossing(is_exchanged=False))
    assert result.repairs == ()
    (decision,) = result.decisions
    assert decision.outcome is Outcome.KEEP
    assert decision.confidence > 0.9
    assert set(decision.terms) == {"prior", "appearance", "motion"}


def test_return_is_a_reassignment_to_the_track_that_left(returning: Any) -> None:
    result = resolve(*returning(), link_options=LinkOptions())
    (repair,) = result.repairs
    assert (repair.kind, repair.start) == (RepairKind.REASSIGN, 60)
    assert dict(repair.continues) == {4: (1, 39)}
    assert dict(repair.relabels) == {4: 1}
    (decision,) = result.decisions
    assert (decision.outcome, decision.encounter.kind) == (Outcome.REASSIGN, EncounterKind.RETURN)
    assert (decision.encounter.start, decision.encounter.stop) == (39, 61)


def test_two_that_were_away_at_once_are_one_encounter(make_track: Any, make_gallery: Any) -> None:
    back = {1: 55, 2: 65}
    tracks = [make_track(i, [*range(30), *range(back[i], 90)], start_xy=(50, 100 * i)) for i in (1, 2)]
    tracks.append(make_track(3, range(90), start_xy=(50, 300)))
    galleries = {t.track_id: make_gallery(t.track_id, t.frame_indices.tolist(), t.track_id) for t in tracks}
    result = resolve(tracks, galleries)
    (decision,) = result.decisions
    assert (decision.outcome, decision.encounter.kind) == (Outcome.KEEP, EncounterKind.RETURN)
    assert decision.encounter.track_ids == (1, 2)
    assert (decision.encounter.start, decision.encounter.stop) == (29, 66)


def test_track_seen_twice_is_trimmed_once(make_track: Any, make_gallery: Any) -> None:
    tracks = (make_track(1, range(60)), make_track(2, range(20, 40)), make_track(3, range(60), start_xy=(0, 90)))
    galleries = {t.track_id: make_gallery(t.track_id, t.frame_indices.tolist(), min(2, t.track_id)) for t in tracks}
    (repair,) = resolve(tracks, galleries).repairs
    assert (repair.kind, repair.start, repair.stop) == (RepairKind.TRIM, 20, 40)
    assert dict(repair.relabels) == {2: None}
    assert "track 1" in repair.reason


def test_relabels_tell_the_ids_that_the_tracks_really_get(chaos: Any) -> None:
    """What a person reads in the repair log must be what is in the dataset."""
    told = 0
    for seed in range(150):
        tracks, galleries = chaos(seed)
        repairs = resolve(tracks, galleries).repairs
        result = apply_repairs(tracks, repairs)
        owner = {
            (f, tuple(b)): t.track_id
            for t in result
            for f, b in zip(t.frame_indices.tolist(), t.boxes_xyxy.tolist(), strict=True)
        }
        for repair in repairs:
            for track_id, new_id in repair.relabels.items():
                (track,) = (t for t in tracks if t.track_id == track_id)
                frames = track.frame_indices
                stop = repair.start + 1 if repair.stop is None else repair.stop
                rows = [k for k in range(len(track)) if repair.start <= frames[k] < stop]
                found = {owner.get((int(frames[k]), tuple(track.boxes_xyxy[k].tolist()))) for k in rows}
                assert found <= {new_id, None}, f"seed {seed}: {repair}"
                told += 1
    assert told > 50


def test_every_encounter_has_one_decision_and_repairs_name_encounters_that_exist(chaos: Any) -> None:
    for seed in range(150):
        result = resolve(*chaos(seed))
        encounters = {e.encounter_id: e for e in result.encounters}
        assert len(encounters) == len(result.encounters)
        assert sorted(d.encounter.encounter_id for d in result.decisions) == sorted(encounters)
        assert [r.repair_id for r in result.repairs] == list(range(1, len(result.repairs) + 1))
        assert [r.start for r in result.repairs] == sorted(r.start for r in result.repairs)
        for repair in result.repairs:
            if repair.kind is RepairKind.TRIM:
                assert repair.encounter_id is None
                continue
            encounter = encounters[repair.encounter_id]
            assert set(repair.continues) <= set(encounter.track_ids)
            assert encounter.start <= repair.start


def test_confidences_are_probabilities_of_every_stretch(chaos: Any) -> None:
    for seed in range(40):
        tracks, galleries = chaos(seed)
        result = resolve(tracks, galleries)
        for track_id, start, stop, value in result.confidences:
            assert 0 <= value <= 1
            assert start < stop
            assert any(t.track_id == track_id for t in tracks)
