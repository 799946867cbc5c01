from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fiftyone_plugin.benchmarks.identity_injection import KINDS, inject, take
from fiftyone_plugin.metrics.encounters import compare_identities
from fiftyone_plugin.types import Track


def boxes_of(tracks: Sequence[Track]) -> set[tuple[int, bytes]]:
    return {(f, b.tobytes()) for t in tracks for f, b in zip(t.frame_indices.tolist(), t.boxes_xyxy, strict=True)}


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 200))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_inject_changes_ids_only_and_repeats_itself(crossing: list[Track], kind: str, seed: int) -> None:
    broken = inject(crossing, kind, seed)
    assert broken is not None
    # no box is invented or moved, and none is shown by two tracks
    assert boxes_of(broken) <= boxes_of(crossing)
    assert sum(map(len, broken)) == len(boxes_of(broken))
    again = inject(crossing, kind, seed)
    assert again is not None
    for one, other in zip(broken, again, strict=True):
        assert one.track_id == other.track_id
        np.testing.assert_array_equal(one.frame_indices, other.frame_indices)


@pytest.mark.parametrize(("kind", "breaks"), [("swap", 2), ("merge", 2), ("drop", 0)])
@pytest.mark.parametrize("seed", range(4))
def test_inject_breaks_as_many_links_as_its_kind_says(crossing: list[Track], kind: str, breaks: int, seed: int) -> None:
    broken = inject(crossing, kind, seed)
    assert broken is not None
    assert len(compare_identities(crossing, crossing, broken).harmed) == breaks


@pytest.mark.parametrize("kind", ["fragment", "blank"])
def test_inject_renames_every_object_once(crossing: list[Track], kind: str) -> None:
    broken = inject(crossing, kind, 1)
    assert broken is not None
    change = compare_identities(crossing, crossing, broken)
    assert sorted(b.object_id for b in change.harmed) == [1, 2, 3]
    assert all(b.new_id > 3 for b in change.harmed)


def test_inject_swap_without_contact_has_no_place(crossing: list[Track]) -> None:
    assert inject([crossing[0], crossing[2]], "swap", 1) is None


def test_take_joins_rows_in_order_of_time(crossing: list[Track]) -> None:
    joined = take(9, [(crossing[0], np.arange(10, 20)), (crossing[2], np.arange(5))])
    assert joined.track_id == 9
    assert joined.frame_indices.tolist() == [*range(5), *range(10, 20)]
    assert joined.boxes_xyxy[0, 1] == 200
