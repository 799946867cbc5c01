from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fiftyone_plugin.identity import apply_repairs
from fiftyone_plugin.metrics.decisions import (
    ConfidenceSamples,
    abstention_rate,
    decision_samples,
    expected_calibration_error,
    identity_samples,
    judge_repairs,
    precision,
    reliability,
)
from fiftyone_plugin.metrics.encounters import Share
from fiftyone_plugin.types import Decision, Encounter, EncounterKind, Outcome, Repair, RepairKind, Source, Track


def build(track_id: int, places: Sequence[tuple[int, int]]) -> Track:
    """(frame, lane) for every frame; what is on lane n shows object n."""
    frames = np.array([f for f, _ in places], np.int64)
    y = 20.0 * np.array([lane for _, lane in places], np.float32)
    boxes = np.stack([np.zeros_like(y), y, np.full_like(y, 10), y + 10], axis=1).astype(np.float32)
    ones = np.ones(len(frames), np.float32)
    return Track(track_id, "sheep", frames, boxes, None, ones, ones, ones, (Source.SEED,) * len(frames))


def on(lane: int, start: int, stop: int) -> list[tuple[int, int]]:
    return [(f, lane) for f in range(start, stop)]


TRUTH = [build(1, on(1, 0, 40)), build(2, on(2, 0, 40))]
SWAPPED = [build(1, on(1, 0, 20) + on(2, 20, 40)), build(2, on(2, 0, 20) + on(1, 20, 40))]


def repair(
    kind: RepairKind, start: int, continues: dict[int, tuple[int, int] | None], stop: int | None = None
) -> Repair:
    return Repair(1, kind, start, stop, continues, {}, 3.0, "a test")


EXCHANGE = repair(RepairKind.EXCHANGE, 20, {1: (2, 19), 2: (1, 19)})


def judge(propagated: Sequence[Track], *repairs: Repair) -> list[bool | None]:
    return [j.is_right for j in judge_repairs(TRUTH, propagated, repairs, apply_repairs(propagated, repairs))]


def test_an_exchange_is_right_where_tracks_were_exchanged() -> None:
    assert judge(SWAPPED, EXCHANGE) == [True]
    assert judge(TRUTH, EXCHANGE) == [False]


def test_an_exchange_some_frames_late_is_still_right() -> None:
    late = repair(RepairKind.EXCHANGE, 23, {1: (2, 22), 2: (1, 22)})
    assert judge(SWAPPED, late) == [True]


def test_half_an_exchange_is_not_right() -> None:
    # track 2 did not take over from 1 but went on
    propagated = [build(1, on(1, 0, 20)), build(2, on(2, 0, 40)), build(3, on(1, 20, 40))]
    wrong = repair(RepairKind.EXCHANGE, 20, {2: (1, 19), 3: (2, 19)})
    right = repair(RepairKind.REASSIGN, 20, {3: (1, 19)})
    assert judge(propagated, wrong) == [False]
    assert judge(propagated, right) == [True]


def test_a_split_is_right_where_another_object_follows() -> None:
    split = repair(RepairKind.SPLIT, 20, {1: None})
    assert judge(SWAPPED, split) == [True]
    assert judge(TRUTH, split) == [False]


def test_a_claim_ends_where_the_next_edit_begins() -> None:
    # what track 1 shows from 30 on is another repair's business
    propagated = [build(1, on(1, 0, 20) + on(2, 20, 24) + on(1, 24, 40)), TRUTH[1]]
    first = repair(RepairKind.SPLIT, 20, {1: None})
    second = repair(RepairKind.REASSIGN, 24, {1: (1, 19)})
    assert judge(propagated, first, second) == [True, True]


def test_a_repair_of_what_shows_nothing_is_not_judged() -> None:
    nowhere = build(3, on(9, 0, 40))
    assert judge([*TRUTH, nowhere], repair(RepairKind.REASSIGN, 20, {3: (1, 19)})) == [None]
    assert precision(judge_repairs(TRUTH, [*TRUTH, nowhere], [repair(RepairKind.SPLIT, 20, {3: None})], [])) == Share(
        0, 0
    )


def test_a_trim_is_right_on_nothing_and_on_what_another_track_shows() -> None:
    nowhere, double = build(3, on(9, 0, 40)), build(4, on(1, 10, 40))
    assert judge([*TRUTH, nowhere], repair(RepairKind.TRIM, 0, {3: None}, 40)) == [True]
    assert judge([*TRUTH, double], repair(RepairKind.TRIM, 10, {4: None}, 40)) == [True]
    assert judge(TRUTH, repair(RepairKind.TRIM, 10, {1: None}, 40)) == [False]


def test_new_masks_are_right_on_the_object_they_are_claimed_to_show() -> None:
    # track 1 has a gap of ten frames; a new track fills it
    propagated = [build(1, on(1, 0, 15) + on(1, 25, 40)), TRUTH[1]]
    right, wrong = build(3, on(1, 15, 25)), build(3, on(2, 15, 25))
    claim = repair(RepairKind.RESEED, 15, {3: (1, 14)}, 25)
    result = TRUTH
    assert [j.is_right for j in judge_repairs(TRUTH, [*propagated, right], [claim], result)] == [True]
    (judged,) = judge_repairs(TRUTH, [*propagated, wrong], [claim], result)
    assert judged.is_right is False
    assert precision([judged]) == Share(0, 0)


def test_precision_leaves_trims_out() -> None:
    trim = repair(RepairKind.TRIM, 10, {1: None}, 40)
    judged = judge_repairs(TRUTH, SWAPPED, [EXCHANGE, trim], apply_repairs(SWAPPED, [EXCHANGE, trim]))
    assert precision(judged) == Share(1, 1)


def decision(outcome: Outcome, confidence: float, start: int = 18, stop: int = 22) -> Decision:
    encounter = Encounter(1, EncounterKind.CROSSING, "sheep", start, stop, (1, 2))
    return Decision(encounter, outcome, 2.0, confidence)


def test_abstention_rate_counts_abstentions() -> None:
    decisions = [decision(Outcome.ABSTAIN, 0.5), decision(Outcome.KEEP, 0.9), decision(Outcome.EXCHANGE, 0.9)]
    assert abstention_rate(decisions) == Share(1, 3)


def test_decision_samples_ask_whether_ids_are_the_same_on_both_sides() -> None:
    wrong = decision_samples(TRUTH, SWAPPED, SWAPPED, [decision(Outcome.KEEP, 0.7)])
    assert (wrong.confidences.tolist(), wrong.outcomes.tolist()) == ([pytest.approx(0.7)], [False])
    repaired = apply_repairs(SWAPPED, [EXCHANGE])
    right = decision_samples(TRUTH, repaired, SWAPPED, [decision(Outcome.EXCHANGE, 0.9)])
    assert right.outcomes.tolist() == [True]
    nobody = decision_samples(TRUTH, [], [], [decision(Outcome.KEEP, 0.9)])
    assert len(nobody.outcomes) == 0


def test_identity_samples_compare_with_the_object_a_track_began_with() -> None:
    doubtful = replace(SWAPPED[0], identity_confidence=np.where(np.arange(40) < 20, 1.0, 0.4).astype(np.float32))
    samples = identity_samples(TRUTH, [doubtful])
    assert samples.outcomes.tolist() == [True] * 20 + [False] * 20
    assert samples.confidences[-1] == np.float32(0.4)


def samples(confidences: Sequence[float], outcomes: Sequence[bool]) -> ConfidenceSamples:
    return ConfidenceSamples(np.asarray(confidences, np.float32), np.asarray(outcomes, np.bool_))


def test_calibration_error_of_known_cases() -> None:
    assert expected_calibration_error(ConfidenceSamples.empty()) is None
    assert expected_calibration_error(samples([1.0] * 4, [True] * 4)) == 0.0
    assert expected_calibration_error(samples([1.0] * 4, [True, True, True, False])) == pytest.approx(0.25)
    # two bins: 0.2 is right in half of the cases, 0.8 in all
    mixed = samples([0.2] * 10 + [0.8] * 10, [True, False] * 5 + [True] * 10)
    assert expected_calibration_error(mixed, bins=2) == pytest.approx((0.3 + 0.2) / 2)


def test_equal_confidences_stay_in_one_bin() -> None:
    table = reliability(samples([0.9] * 30 + [0.5] * 3, [True] * 33), bins=10)
    assert [(b.count, b.low, b.high) for b in table] == [
        (3, pytest.approx(0.5), pytest.approx(0.5)),
        (30, pytest.approx(0.9), pytest.approx(0.9)),
    ]


@given(
    confidences=hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(0, 1, width=16)),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_calibration_error_is_bounded_and_does_not_depend_on_order(confidences: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcomes = rng.random(len(confidences)) < 0.5
    value = expected_calibration_error(ConfidenceSamples(confidences, outcomes))
    order = rng.permutation(len(confidences))
    again = expected_calibration_error(ConfidenceSamples(confidences[order], outcomes[order]))
    assert value is not None
    assert 0 <= value <= 1
    assert again == pytest.approx(value)
    assert sum(b.count for b in reliability(ConfidenceSamples(confidences, outcomes))) == len(confidences)
