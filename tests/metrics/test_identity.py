import json

import numpy as np
import pytest

from fiftyone_plugin.metrics import evaluate, identity_report
from fiftyone_plugin.types import Track

LENGTH = 40


def moving(make_track, track_id, start_x, speed, *, frames=range(LENGTH), phrase="sheep"):
    boxes = [[start_x + speed * t, 10, start_x + speed * t + 10, 20] for t in frames]
    return make_track(track_id, list(frames), np.array(boxes), phrase=phrase)


def exchanged(first: Track, second: Track, at: int) -> list[Track]:
    """The two tracks as they look when they exchange objects at a frame."""

    def join(a: Track, b: Track) -> Track:
        boxes = np.concatenate([a.boxes_xyxy[a.frame_indices < at], b.boxes_xyxy[b.frame_indices >= at]])
        frames = np.concatenate([a.frame_indices[a.frame_indices < at], b.frame_indices[b.frame_indices >= at]])
        ones = np.ones(len(frames), np.float32)
        return Track(a.track_id, a.phrase, frames, boxes, None, ones, ones, ones, (a.sources[0],) * len(frames))

    return [join(first, second), join(second, first)]


@pytest.fixture
def crossing(make_track):
    """Two sheep that pass through each other about frame 20."""
    return [moving(make_track, 1, 0, 2), moving(make_track, 2, 80, -2)]


def test_a_swap_that_was_repaired(crossing):
    report = identity_report(crossing, exchanged(*crossing, at=20), crossing)
    assert (report.id_switches_before, report.id_switches_after) == (2, 0)
    assert (report.repaired, report.harmed, report.still_wrong) == (2, 0, 0)
    assert (report.encounters, report.encounters_judged_before, report.encounters_judged_after) == (1, 1, 1)
    assert (report.swaps_before, report.swaps_after) == (1, 0)
    assert (report.swaps_per_encounter_before, report.swaps_per_encounter_after) == (1.0, 0.0)
    assert (report.repair_recall, report.repair_precision) == (1.0, 1.0)


def test_a_repair_of_what_was_right_is_harm(crossing):
    report = identity_report(crossing, crossing, exchanged(*crossing, at=30))
    assert (report.repaired, report.harmed) == (0, 2)
    assert report.repair_precision == 0.0
    assert report.repair_recall is None


def test_a_repair_in_the_wrong_place_repairs_nothing_and_harms(crossing):
    before = exchanged(*crossing, at=20)
    after = exchanged(*before, at=30)
    report = identity_report(crossing, before, after)
    assert (report.repaired, report.harmed, report.still_wrong) == (0, 2, 2)
    assert (report.id_switches_before, report.id_switches_after) == (2, 4)


def test_nothing_changed_is_neither_repair_nor_harm(crossing):
    before = exchanged(*crossing, at=20)
    report = identity_report(crossing, before, before)
    assert (report.repaired, report.harmed, report.still_wrong) == (0, 0, 2)
    assert report.links == 2 * (LENGTH - 1)


def test_ids_may_be_renamed_without_harm(crossing):
    renamed = [
        Track(t.track_id + 7, t.phrase, t.frame_indices, t.boxes_xyxy, None, t.scores, t.scores, t.scores, t.sources)
        for t in crossing
    ]
    report = identity_report(crossing, crossing, renamed)
    assert (report.repaired, report.harmed) == (0, 0)


def test_id_switches_are_those_of_clear(make_scene):
    for seed in range(5):
        truth, predicted = make_scene(seed)
        report = identity_report(truth, predicted, truth)
        assert report.id_switches_before == evaluate(truth, predicted).as_dict()["IDSW"]
        assert report.harmed == 0


def test_encounters_of_different_phrases_do_not_count(make_track):
    pair = [moving(make_track, 1, 0, 2), moving(make_track, 2, 80, -2, phrase="dog")]
    assert identity_report(pair, pair, pair).encounters == 0


def test_short_interruptions_do_not_end_an_encounter(make_track):
    near, far = [12, 10, 22, 20], [60, 10, 70, 20]
    still = make_track(1, range(30), np.tile([10, 10, 20, 20], (30, 1)))
    places = [near if 5 <= t < 8 or 11 <= t < 14 or 24 <= t < 26 else far for t in range(30)]
    other = make_track(2, range(30), np.array(places))
    truth = [still, other]
    assert identity_report(truth, truth, truth).encounters == 2
    assert identity_report(truth, truth, truth, max_interruption_frames=0).encounters == 3
    assert identity_report(truth, truth, truth, max_interruption_frames=10).encounters == 1


def test_an_encounter_that_never_ends_is_not_judged(make_track):
    truth = [moving(make_track, 1, 0, 0), moving(make_track, 2, 5, 0)]
    report = identity_report(truth, truth, truth)
    assert (report.encounters, report.encounters_judged_before) == (1, 0)
    assert report.swaps_per_encounter_before is None


@pytest.mark.parametrize(("gap", "returns"), [(9, 0), (10, 1), (20, 1)])
def test_returns_are_absences_that_are_long_enough(lane, gap, returns):
    frames = [*range(10), *range(10 + gap, 40)]
    whole = lane(1, frames, at=0)
    parts = [lane(1, range(10), at=0), lane(2, range(10 + gap, 40), at=0)]
    report = identity_report([whole], parts, [whole])
    assert report.returns == returns
    assert (report.recalled_before, report.recalled_after) == (0, returns)
    assert report.reentry_recall_after == (1.0 if returns else None)


def test_a_return_that_is_not_found_again_is_not_recalled(lane):
    whole = lane(1, [*range(10), *range(25, 40)], at=0)
    report = identity_report([whole], [lane(1, range(10), at=0)], [lane(1, range(30, 40), at=0)])
    assert (report.returns_judged_before, report.recalled_before) == (1, 0)
    assert (report.returns_judged_after, report.recalled_after) == (0, 0)  # never seen before it left


def test_each_return_looks_only_as_far_as_the_next(lane):
    whole = lane(1, [*range(5), *range(20, 25), *range(40, 45)], at=0)
    seen = lane(1, [*range(5), *range(40, 45)], at=0)
    report = identity_report([whole], [seen], [whole])
    assert (report.returns, report.recalled_before, report.recalled_after) == (2, 1, 2)


def test_the_report_is_ready_for_json(crossing):
    report = identity_report(crossing, crossing, crossing)
    assert json.loads(json.dumps(report.as_dict()))["encounters"] == 1
    assert report.as_dict()["reentry_recall_before"] is None


def test_a_long_video_is_fast(make_scene):
    truth, predicted = make_scene(0, objects=8, length=1500)
    assert identity_report(truth, predicted, truth).harmed == 0
