from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fiftyone_plugin.errors import EmbeddingMismatchError
from fiftyone_plugin.metrics.consistency import exchange_margins, forward_backward_agreement, gallery_purity
from fiftyone_plugin.types import Decision, Encounter, EncounterKind, Gallery, Outcome


def gallery(track_id: int, rows: list[list[float]], name: str = "made-up") -> Gallery:
    views = np.asarray(rows, np.float32)
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    return Gallery(track_id, np.arange(len(views)), views, np.ones(len(views), np.float32), name)


def test_runs_that_agree_but_for_names_agree_fully(make_scene):
    truth, _ = make_scene(1)
    renamed = [replace(t, track_id=t.track_id + 50) for t in truth]
    assert forward_backward_agreement(truth, renamed) == 1.0
    assert forward_backward_agreement([], []) == 1.0
    assert forward_backward_agreement(truth, []) == 0.0


def test_agreement_does_not_depend_on_direction(make_scene):
    truth, predicted = make_scene(2)
    there, back = forward_backward_agreement(truth, predicted), forward_backward_agreement(predicted, truth)
    assert there == pytest.approx(back)
    assert 0 < there < 1


def test_a_gallery_of_one_object_is_pure_and_one_of_two_is_not():
    red, green = [1.0, 0.05], [0.05, 1.0]
    pure = gallery_purity({1: gallery(1, [red] * 4), 2: gallery(2, [green] * 4)})
    assert pure == {1: 1.0, 2: 1.0}
    mixed = gallery_purity({1: gallery(1, [red] * 6 + [green] * 2), 2: gallery(2, [green] * 4)})
    assert mixed[1] == pytest.approx(6 / 8)


def test_purity_compares_galleries_of_one_phrase_only():
    same = [[1.0, 0.0]] * 3
    alone = gallery_purity({1: gallery(1, same), 2: gallery(2, same)}, {1: "sheep", 2: "dog"})
    assert alone == {1: 1.0, 2: 1.0}
    alike = gallery_purity({1: gallery(1, same), 2: gallery(2, same)}, {1: "sheep", 2: "sheep"})
    assert alike == {1: 0.0, 2: 0.0}


def test_purity_leaves_single_views_out_and_refuses_mixed_embedders():
    assert gallery_purity({1: gallery(1, [[1.0, 0.0]])}) == {}
    with pytest.raises(EmbeddingMismatchError, match="one embedder"):
        gallery_purity({1: gallery(1, [[1.0, 0.0]] * 2), 2: gallery(2, [[1.0, 0.0]] * 2, "other")})


def test_margins_sum_up_what_was_decided():
    encounter = Encounter(1, EncounterKind.CROSSING, "sheep", 3, 9, (1, 2))
    decisions = [
        Decision(encounter, Outcome.KEEP, 4.0, 0.9),
        Decision(encounter, Outcome.EXCHANGE, 2.0, 0.8),
        Decision(encounter, Outcome.ABSTAIN, 0.5, 0.4),
    ]
    margins = exchange_margins(decisions)
    assert (margins.decided, margins.abstained, margins.lowest, margins.median) == (2, 1, 2.0, 3.0)
    assert margins.expected_errors == pytest.approx(0.9)
    assert exchange_margins([]).lowest == 0.0
