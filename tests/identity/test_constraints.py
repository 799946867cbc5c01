"""What a person said survives being stored, and is found again in the tracks of another run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.identity.constraints import (
    Anchor,
    CannotLink,
    Constraint,
    Lock,
    MustLink,
    Named,
    Remove,
    SplitAt,
    as_dict,
    from_dict,
    locate,
)
from fiftyone_plugin.types import Source, Track

coordinates = st.floats(-1e4, 1e4, allow_nan=False)
anchors = st.builds(
    Anchor, st.integers(1, 99), st.integers(0, 10_000), st.tuples(coordinates, coordinates, coordinates, coordinates)
)
constraints = st.one_of(
    st.builds(MustLink, anchors, anchors),
    st.builds(CannotLink, anchors, anchors),
    st.builds(SplitAt, anchors, anchors),
    st.builds(Lock, st.lists(anchors, max_size=4).map(tuple)),
    st.builds(Remove, anchors, anchors),
    st.builds(Named, anchors, st.text(max_size=9)),
)


@given(constraints)
def test_from_dict_undoes_as_dict_through_json(constraint: Constraint) -> None:
    assert from_dict(json.loads(json.dumps(as_dict(constraint)))) == constraint


@pytest.mark.parametrize(
    ("plain", "message"),
    [({"kind": "wish"}, "must be one of must_link"), ({"kind": "named", "phrase": "dog"}, "'at' is missing")],
    ids=["unknown", "incomplete"],
)
def test_from_dict_of_something_else_says_so(plain: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        from_dict(plain)


def track(track_id: int, left: float, frames: list[int]) -> Track:
    ones = np.ones(len(frames), np.float32)
    boxes = np.array([[left, 0, left + 10, 10]] * len(frames), np.float32).reshape(-1, 4)
    return Track(track_id, "sheep", np.array(frames), boxes, None, ones, ones, ones, (Source.PROPAGATED,) * len(frames))


def test_locate_goes_by_the_box_and_not_by_the_id() -> None:
    tracks = [track(1, 100, [0, 1, 2]), track(2, 0, [0, 2])]
    assert locate(Anchor(1, 2, (1, 0, 11, 10)), tracks) == 2
    assert locate(Anchor(1, 1, (1, 0, 11, 10)), tracks) is None  # track 2 is not on frame 1
    assert locate(Anchor(1, 2, (50, 0, 60, 10)), tracks) is None
    assert locate(Anchor(1, 9, (0, 0, 10, 10)), tracks) is None


def test_locate_equal_boxes_are_told_apart_by_the_id() -> None:
    tracks = [track(3, 0, [0]), track(5, 0, [0])]
    assert locate(Anchor(5, 0, (0, 0, 10, 10)), tracks) == 5
    assert locate(Anchor(9, 0, (0, 0, 10, 10)), tracks) == 3
