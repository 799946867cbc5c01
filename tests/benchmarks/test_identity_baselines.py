from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from fiftyone_plugin import metrics
from fiftyone_plugin.benchmarks.identity_baselines import GtaOptions, gta, oracle, oracle_of_links, rematch_by_overlap
from fiftyone_plugin.benchmarks.identity_cases import Case, no_repair, run
from fiftyone_plugin.benchmarks.identity_injection import KINDS, inject, take
from fiftyone_plugin.pipeline.settle import Evidence
from fiftyone_plugin.types import Gallery, Track

MakeTrack = Callable[..., Track]
MakeGallery = Callable[..., Gallery]
SMALL = GtaOptions(min_length_frames=24, max_cluster_distance=0.3, min_cluster_views=5, max_merge_distance=0.3)


def case(truth: Sequence[Track], tracks: Sequence[Track], galleries: Mapping[int, Gallery] | None = None) -> Case:
    return Case("a case", "a group", tuple(truth), Evidence(tuple(tracks), galleries or {}, {}))


def f1(truth: Sequence[Track], tracks: Sequence[Track]) -> float:
    return metrics.evaluate(truth, tracks).identity.f1


def test_rematching_joins_what_appears_where_another_was_last_seen(make_track: MakeTrack) -> None:
    parts = [make_track(1, range(40)), make_track(2, range(45, 80)), make_track(3, range(45, 80), y=100)]
    joined = rematch_by_overlap(case(parts, parts)).tracks
    assert {t.track_id: len(t) for t in joined} == {1: 75, 3: 35}


def test_rematching_does_not_reach_over_a_long_gap(make_track: MakeTrack) -> None:
    parts = [make_track(1, range(40)), make_track(2, range(60, 80))]
    assert len(rematch_by_overlap(case(parts, parts)).tracks) == 2


def test_gta_splits_a_swap_and_joins_the_halves(crossing: list[Track], make_gallery: MakeGallery) -> None:
    swapped = inject(crossing, "swap", 1)
    assert swapped is not None
    place = {(f, b.tobytes()): t.track_id for t in crossing for f, b in zip(t.frame_indices, t.boxes_xyxy, strict=True)}
    galleries = {
        t.track_id: make_gallery(
            t.track_id,
            t.frame_indices,
            [place[f, b.tobytes()] for f, b in zip(t.frame_indices, t.boxes_xyxy, strict=True)],
        )
        for t in swapped
    }
    assert f1(crossing, gta(case(crossing, swapped, galleries), SMALL).tracks) == pytest.approx(1.0, abs=0.03)


def test_gta_never_joins_what_is_seen_together(make_track: MakeTrack, make_gallery: MakeGallery) -> None:
    alike = [make_track(1, range(40)), make_track(2, range(20, 60), y=50), make_track(3, range(60, 90), y=90)]
    galleries = {t.track_id: make_gallery(t.track_id, t.frame_indices, [0] * len(t)) for t in alike}
    joined = gta(case(alike, alike, galleries), SMALL).tracks
    # 3 looks like both and is away from both: it goes with one of them
    assert sorted(len(t) for t in joined) in ([40, 70], [70, 40])
    assert all(len(set(t.frame_indices.tolist())) == len(t) for t in joined)


@pytest.mark.parametrize("kind", KINDS)
def test_oracle_is_the_ceiling(crossing: list[Track], kind: str) -> None:
    broken = inject(crossing, kind, 3)
    assert broken is not None
    reached = f1(crossing, oracle(case(crossing, broken)).tracks)
    # only frames that the failure took out are missing
    found = sum(map(len, broken)) / sum(map(len, crossing))
    assert reached == pytest.approx(2 * found / (1 + found), abs=1e-6)


def test_oracle_of_links_joins_what_is_cut_and_leaves_what_is_not(make_track: MakeTrack) -> None:
    """A gap cuts the first track, and it shows another object behind it; the second one moves over without a trace."""
    truth = [make_track(1, range(60)), make_track(2, range(60), y=100), make_track(3, range(60), y=200)]
    jumping = take(1, [(truth[0], np.arange(20)), (truth[1], np.arange(30, 60))])
    result = {t.track_id: t for t in oracle_of_links(case(truth, [jumping])).tracks}
    assert {i: t.frame_indices.tolist() for i, t in result.items()} == {1: [*range(20)], 2: [*range(30, 60)]}
    assert f1(truth, oracle_of_links(case(truth, truth)).tracks) == 1.0


def test_oracle_of_links_keeps_one_of_two_that_show_the_same(make_track: MakeTrack) -> None:
    truth = [make_track(1, range(60))]
    doubled = [make_track(1, range(40)), make_track(2, range(30, 60))]
    (track,) = oracle_of_links(case(truth, doubled)).tracks
    assert track.frame_indices.tolist() == [*range(60)]


def test_run_scores_every_method_and_no_repair_changes_nothing(crossing: list[Track]) -> None:
    swapped = inject(crossing, "swap", 1)
    assert swapped is not None
    plain, best = run(case(crossing, swapped), {"no repair": no_repair, "oracle": oracle})
    assert (plain.idf1_change, plain.mended.part, plain.mended.whole, plain.harm.part) == (0.0, 0, 2, 0)
    assert (best.mended.part, best.harm.part, best.swaps.part) == (2, 0, 0)
    assert plain.swaps.part == 1
    assert best.as_dict()["repair_recall"] == {"part": 2, "whole": 2, "share": 1.0}
