from __future__ import annotations

import numpy as np

from fiftyone_plugin.identity.constraints import Anchor, Named
from fiftyone_plugin.pipeline.settle import Evidence, settle
from fiftyone_plugin.types import Source, Track


def standing(track_id: int, x: float) -> Track:
    return Track(
        track_id=track_id,
        phrase="sheep",
        frame_indices=np.arange(20),
        boxes_xyxy=np.tile(np.array([x, 0, x + 20, 20], np.float32), (20, 1)),
        masks=None,
        scores=np.ones(20, np.float32),
        mask_scores=np.ones(20, np.float32),
        identity_confidence=np.ones(20, np.float32),
        sources=(Source.PROPAGATED,) * 20,
    )


def test_class_that_a_person_gave_holds_for_the_object_at_the_box_only() -> None:
    evidence = Evidence((standing(1, 0), standing(2, 100)), {}, {})
    word = Named(Anchor(7, 5, (100.0, 0.0, 120.0, 20.0)), "goat")
    assert {t.track_id: t.phrase for t in settle(evidence, constraints=[word]).tracks} == {1: "sheep", 2: "goat"}
    assert {t.phrase for t in settle(evidence).tracks} == {"sheep"}


def test_class_for_a_box_that_nobody_shows_changes_nothing() -> None:
    evidence = Evidence((standing(1, 0),), {}, {})
    word = Named(Anchor(1, 5, (300.0, 0.0, 320.0, 20.0)), "goat")
    assert [t.phrase for t in settle(evidence, constraints=[word]).tracks] == ["sheep"]
