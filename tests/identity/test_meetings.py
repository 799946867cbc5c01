from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.identity.encounters import find_contacts
from fiftyone_plugin.identity.meetings import JointAbsence, find_approaches, find_joint_absences


def approaches(tracks: Any, **settings: Any) -> Any:
    return find_approaches(tracks, find_contacts(tracks), **settings)


def passing(make_track: Any, *, speed: float, apart: float) -> Any:
    """Two squares of 20 pixels that pass each other `apart` pixels beside, half-way between frames 20 and 21."""
    return (
        make_track(1, range(40), start_xy=(200 - 20.5 * speed, 50), step_xy=(speed, 0)),
        make_track(2, range(40), start_xy=(200 + 20.5 * speed, 50 + apart), step_xy=(-speed, 0)),
    )


@pytest.mark.parametrize("is_exchanged", [False, True], ids=["passing", "turning-round"])
def test_fast_objects_that_come_together_between_two_frames_meet(
    make_track: Any, exchanged: Any, is_exchanged: bool
) -> None:
    """At 40 pixels a frame the boxes never overlap, whether they pass or, exchanged, seem to turn round."""
    tracks = passing(make_track, speed=40, apart=0)
    tracks = exchanged(tracks, 1, 2, 21) if is_exchanged else tracks
    assert find_contacts(tracks) == []
    (meeting,) = approaches(tracks)
    assert meeting.track_ids == (1, 2)
    assert meeting.start <= 21 <= meeting.stop
    assert meeting.max_iou == 0.0


def test_objects_that_pass_far_apart_do_not_meet(make_track: Any) -> None:
    assert approaches(passing(make_track, speed=40, apart=60)) == []


def test_objects_that_touch_have_no_second_encounter(make_track: Any) -> None:
    tracks = passing(make_track, speed=4, apart=0)
    assert len(find_contacts(tracks)) == 1
    assert approaches(tracks) == []


@pytest.mark.parametrize(("closing", "expected"), [(0.0, 0), (1.0, 1)], ids=["side-by-side", "coming-nearer"])
def test_only_an_approach_is_an_encounter(make_track: Any, closing: float, expected: int) -> None:
    """Tall boxes side by side: near by their size, yet without contact."""
    frames = np.arange(40)
    made = []
    for track_id, sign in ((1, -1), (2, 1)):
        x = 200 + sign * (5.5 + closing * np.maximum(20 - frames, 0))
        boxes = np.stack([x - 5, 0 * x, x + 5, 0 * x + 60], axis=1)
        made.append(make_track(track_id, frames, boxes=boxes))
    assert find_contacts(made) == []
    assert len(approaches(made)) == expected


def test_tracks_of_different_times_do_not_meet(make_track: Any) -> None:
    assert approaches([make_track(1, range(20)), make_track(2, range(20, 40)), make_track(3, [5])]) == []


def away(make_track: Any, track_id: int, start: int, stop: int, **settings: Any) -> Any:
    return make_track(track_id, [*range(start), *range(stop, 60)], start_xy=(0, 60 * track_id), **settings)


def test_two_that_are_away_at_once_are_a_joint_absence(make_track: Any) -> None:
    tracks = [away(make_track, 1, 20, 40), away(make_track, 2, 15, 30), make_track(3, range(60))]
    assert find_joint_absences(tracks) == [JointAbsence((2, 1), (15, 20), (30, 40))]


def test_absences_one_after_the_other_are_none(make_track: Any) -> None:
    assert find_joint_absences([away(make_track, 1, 10, 20), away(make_track, 2, 20, 30)]) == []


def test_flickers_and_other_classes_are_no_joint_absence(make_track: Any) -> None:
    assert find_joint_absences([away(make_track, 1, 20, 22), away(make_track, 2, 15, 30)]) == []
    dog = replace(away(make_track, 2, 15, 30), phrase="dog")
    assert find_joint_absences([away(make_track, 1, 20, 40), dog]) == []


def test_one_track_has_no_joint_absence_with_itself(make_track: Any) -> None:
    assert find_joint_absences([make_track(1, [*range(10), *range(20, 30), *range(40, 50)])]) == []
