from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.identity import apply_repairs, resolve
from fiftyone_plugin.identity.links import Link, Links
from fiftyone_plugin.identity.orphans import _insert
from fiftyone_plugin.types import Outcome, RepairKind, Support, Track


def lanes(make_track: Any, make_gallery: Any, boxes: np.ndarray | None = None) -> tuple[tuple[Track, ...], dict]:
    """Track 1 looks like somebody unknown from frame 60 on; 2 and 3 walk far from it."""
    tracks = (
        make_track(1, range(120), start_xy=(20, 20), step_xy=(1, 0), boxes=boxes),
        make_track(2, range(120), start_xy=(20, 120), step_xy=(1, 0)),
        make_track(3, range(120), start_xy=(20, 220), step_xy=(1, 0)),
    )
    galleries = {i: make_gallery(i, range(120), i) for i in (2, 3)}
    galleries[1] = make_gallery(1, range(120), [1] * 60 + [9] * 60)
    return tracks, galleries


def test_other_look_alone_makes_no_new_identity(make_track: Any, make_gallery: Any) -> None:
    tracks, galleries = lanes(make_track, make_gallery)
    result = resolve(tracks, galleries)
    assert result.repairs == ()
    doubtful = [d for d in result.decisions if d.outcome is Outcome.ABSTAIN]
    assert [(d.encounter.track_ids, d.margin) for d in doubtful] == [((1,), 0.0)]
    assert 0.5 < doubtful[0].confidence < 0.75  # tracks of others are mostly right
    assert abs(doubtful[0].encounter.start - 60) <= 5


def test_other_look_at_another_place_is_a_new_identity(make_track: Any, make_gallery: Any) -> None:
    boxes = np.tile([10.0, 10, 30, 30], (120, 1))
    boxes[60:] += [400, 0, 400, 0]
    tracks, galleries = lanes(make_track, make_gallery, boxes)
    result = resolve(tracks, galleries)
    (repair,) = result.repairs
    assert (repair.kind, repair.start, dict(repair.relabels)) == (RepairKind.SPLIT, 60, {1: 4})


def test_short_stretch_with_another_look_is_not_taken_out_without_a_detector(
    make_track: Any, make_gallery: Any
) -> None:
    tracks, galleries = lanes(make_track, make_gallery)
    galleries[1] = make_gallery(1, range(120), [1] * 108 + [9] * 12)
    assert resolve(tracks, galleries).repairs == ()


@pytest.mark.parametrize("is_found", [True, False], ids=["found", "never-found"])
def test_track_that_the_detector_never_finds_is_taken_out(make_track: Any, make_gallery: Any, is_found: bool) -> None:
    tracks, galleries = lanes(make_track, make_gallery)
    galleries[1] = make_gallery(1, range(120), 1)
    looks = np.arange(8, 120, 16)

    def support(track_id: int, matched: bool) -> Support:
        return Support(track_id, looks, np.full(len(looks), matched), ("sheep" if matched else "",) * len(looks))

    supports = {1: support(1, is_found), 2: support(2, True), 3: support(3, True)}
    result = resolve(tracks, galleries, supports)
    assert [r.kind for r in result.repairs] == ([] if is_found else [RepairKind.TRIM])
    assert len(apply_repairs(tracks, result.repairs)) == (3 if is_found else 2)


def test_stretch_put_between_two_leaves_the_doubt_where_it_was() -> None:
    """What spoke for the link speaks for what lies behind it; the stretch itself is as doubtful as the link was."""
    links = Links({0: 2}, {(0, 2): Link(5.0, 1.0, 2.0, 2.0, True)}, {(0, 2): 3.0}, {(0, 2): 4.0}, {2: 6.0})
    _insert(links, 0, [1], 2)
    assert links.successor == {0: 1, 1: 2}
    assert links.behind == {(1, 2): 4.0}
    assert links.alone == {1: 3.0, 2: 6.0}


@pytest.mark.parametrize(("gap", "step", "low", "high"), [(5, 0, 0.9, 0.99), (25, 0, 0.55, 0.65), (5, 100, 0.0, 0.1)])
def test_end_of_a_track_too_short_to_tell_is_as_sure_as_its_cut(
    make_track: Any, gap: int, step: int, low: float, high: float
) -> None:
    """Nothing was seen of it, so only how long it was away, and how far it went meanwhile, say who it is."""
    frames = [*range(40), *range(40 + gap, 45 + gap)]
    boxes = np.array([[10 + f, 10, 30 + f, 30] for f in frames], np.float64)
    boxes[40:] += [step, 0, step, 0]
    (track,) = resolve([make_track(1, frames, boxes=boxes)], {}).with_confidence([make_track(1, frames, boxes=boxes)])
    assert track.identity_confidence[39] == 1.0
    assert np.all((track.identity_confidence[40:] > low) & (track.identity_confidence[40:] < high))
