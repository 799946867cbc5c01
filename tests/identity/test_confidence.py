from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.config import IdentityOptions
from fiftyone_plugin.identity import resolve
from fiftyone_plugin.identity.appearance import Calibration, Pooled
from fiftyone_plugin.identity.chains import Chains
from fiftyone_plugin.identity.confidence import doubt, frame_confidences, probability, with_joint_confidence
from fiftyone_plugin.identity.links import Links
from fiftyone_plugin.types import Decision, Encounter, EncounterKind, Outcome

CALIBRATION = Calibration(np.zeros(2), np.eye(2), np.array([9.0, 9.0]))


class Piece:
    """As much of a tracklet as confidence looks at."""

    def __init__(self, index: int, track_id: int, start: int) -> None:
        self.index, self.track_id, self.start, self.stop = index, track_id, start, start + 10


def test_doubtful_stretch_leaves_what_follows_certain() -> None:
    """Nodes 0, 1, 2 of one track and 3, 4, 5 of another; only 1 and 4 were not seen, and could be exchanged."""
    left, right, unseen = [8.0, 0.0], [-8.0, 0.0], [0.0, 0.0]
    views = Pooled(np.array([1.0, 0, 1, 1, 0, 1]), np.array([left, unseen, left, right, unseen, right]))
    own = {(0, 1): 2.0, (1, 2): 2.0, (3, 4): 2.0, (4, 5): 2.0}
    crossed = {(0, 4): 1.5, (4, 2): 1.5, (3, 1): 1.5, (1, 5): 1.5}
    chains = Chains(own | crossed, views, CALIBRATION)
    chains.begin(dict(own.keys()))
    chains.improve()
    assert chains.successor == dict(own.keys())
    margins = chains.margins()
    links = Links(chains.successor, {}, margins.links, margins.behind, margins.alone)
    pieces: list[Any] = [Piece(n, 1 + n // 3, 10 * (n % 3)) for n in range(6)]
    sure = {t.index: value for t, (*_, value) in zip(pieces, frame_confidences(pieces, links), strict=True)}
    assert sure[1] < 0.9
    assert sure[4] < 0.9
    assert sure[2] > 0.99
    assert sure[5] > 0.99


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_link_is_no_surer_than_what_lies_behind_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 7
    links = {(i, j): float(rng.normal(1, 2)) for i in range(count) for j in range(i + 1, count) if rng.random() < 0.6}
    chains = Chains(links, Pooled(rng.integers(0, 2, count).astype(float), rng.normal(0, 4, (count, 2))), CALIBRATION)
    chains.improve()
    margins = chains.margins()
    assert set(margins.links) == set(margins.behind) == set(chains.successor.items())
    assert set(margins.alone) == set(range(count))
    assert all(margins.links[pair] <= margins.behind[pair] for pair in margins.links)


def test_what_was_doubted_counts_against_what_was_left() -> None:
    links = Links({0: 1, 1: 2}, {}, {}, {(0, 1): 5.0, (1, 2): 5.0}, {1: 3.0})
    doubt(links, {1: 0.6})
    assert links.alone == {1: -0.6}
    pieces: list[Any] = [Piece(n, 1, 10 * n) for n in range(3)]
    values = [value for *_, value in frame_confidences(pieces, links)]
    assert values == pytest.approx([1.0, probability(5) * probability(-0.6), probability(5) ** 2])


def test_exchange_left_to_a_person_leaves_low_confidence(crossing: Any) -> None:
    tracks, galleries = crossing(is_exchanged=True)
    sure = resolve(tracks, galleries).with_confidence(tracks)
    unsure = resolve(tracks, galleries, options=IdentityOptions(min_margin=1000.0)).with_confidence(tracks)
    assert min(t.identity_confidence[-1] for t in sure) > 0.8
    assert min(t.identity_confidence[-1] for t in unsure) < 0.2


@pytest.mark.parametrize("looks", [0, 3], ids=["tracks of others", "ours"])
def test_what_nothing_tells_is_mostly_right(looks: int) -> None:
    """Two in three and more, as on the clips it was fitted to; and nothing is beyond doubt in masks of our own."""
    pieces: list[Any] = [Piece(0, 1, 0), Piece(1, 1, 10)]
    for piece in pieces:
        piece.looks = looks
    met = Decision(Encounter(1, EncounterKind.CROSSING, "sheep", 8, 12, (1, 2)), Outcome.KEEP, 5.0, 0.99, {})

    def confidence(margin: float) -> float:
        links = Links({0: 1}, {}, {}, {(0, 1): margin}, {})
        (decision,) = with_joint_confidence((met,), pieces, links, reach_frames=6)
        return decision.confidence

    assert 0.65 < confidence(0.0) < 0.8
    assert confidence(40.0) == pytest.approx(0.967 if looks else 1.0, abs=1e-6)


def test_margins_tell_less_where_all_look_alike() -> None:
    pieces: list[Any] = [Piece(0, 1, 0), Piece(1, 1, 10)]
    for piece in pieces:
        piece.looks = 3
    met = Decision(Encounter(1, EncounterKind.CROSSING, "sheep", 8, 12, (1, 2)), Outcome.KEEP, 5.0, 0.99, {})

    def confidence(alikeness: float) -> float:
        links = Links({0: 1}, {}, {}, {(0, 1): 3.0}, {})
        (decision,) = with_joint_confidence((met,), pieces, links, reach_frames=6, alikeness=alikeness)
        return decision.confidence

    assert confidence(0.0) > 0.85
    assert confidence(0.3) < confidence(0.0)
    assert 0.3 < confidence(0.9) < 0.6  # half of them are wrong then, whatever looks say


@pytest.mark.parametrize("looks", [0, 3], ids=["tracks of others", "ours"])
def test_decision_is_no_surer_than_its_least_certain_track(looks: int) -> None:
    """Two tracks, both cut at frame 10; whichever of four margins falls, the decision falls with it."""
    pieces: list[Any] = [Piece(0, 1, 0), Piece(1, 1, 10), Piece(2, 2, 0), Piece(3, 2, 10)]
    for piece in pieces:
        piece.looks = looks
    met = Encounter(1, EncounterKind.CROSSING, "sheep", 8, 12, (1, 2))
    kept = Decision(met, Outcome.KEEP, 5.0, 0.99, {})

    def confidence(**margins: float) -> float:
        behind = {(0, 1): margins.get("first", 5.0), (2, 3): margins.get("second", 5.0)}
        alone = {1: margins.get("first_alone", 5.0), 3: margins.get("second_alone", 5.0)}
        (decision,) = with_joint_confidence((kept,), pieces, Links({0: 1, 2: 3}, {}, {}, behind, alone), reach_frames=6)
        return decision.confidence

    sure = confidence()
    doubtful = {confidence(**{name: 1.0}) for name in ("first", "second", "first_alone", "second_alone")}
    assert len(doubtful) == 1
    assert max(doubtful) < sure - 0.1
    # Elsewhere in the video nothing of this counts.
    far = replace(kept, encounter=replace(met, start=100, stop=110))
    (left,) = with_joint_confidence((far,), pieces, Links({0: 1}, {}, {}, {(0, 1): 0.1}, {}), reach_frames=6)
    assert left.confidence >= 0.99
