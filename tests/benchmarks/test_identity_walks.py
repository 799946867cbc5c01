from __future__ import annotations

from collections.abc import Sequence

import pytest

from fiftyone_plugin import metrics
from fiftyone_plugin.benchmarks.identity_walks import rematching_walk, sam2mot_walk
from fiftyone_plugin.config import DetectionOptions
from fiftyone_plugin.detectors.prompted import PromptedDetector
from fiftyone_plugin.metrics.encounters import compare_identities
from fiftyone_plugin.synthetic.fakes import Failure, Loss, ScriptedDetector, ScriptedPropagator, Swap
from fiftyone_plugin.synthetic.scenes import SyntheticClip, leaving_and_returning
from fiftyone_plugin.types import Track

WALKS = [pytest.param(rematching_walk, id="rematching"), pytest.param(sam2mot_walk, id="sam2mot")]


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    """Two sheep, one of which leaves at frame 20 or so and is back after frame 34."""
    return leaving_and_returning(frames=64)


def walk(which: object, clip: SyntheticClip, failures: Sequence[Failure] = ()) -> tuple[Track, ...]:
    truth = clip.ground_truth()
    detector = PromptedDetector(ScriptedDetector(truth, clip.source), ("sheep",), DetectionOptions())
    assert callable(which)
    tracks: tuple[Track, ...] = which(clip.source, detector, ScriptedPropagator(truth, failures=failures))
    return tracks


@pytest.mark.parametrize("which", WALKS)
def test_walks_find_and_keep_who_stays(which: object, clip: SyntheticClip) -> None:
    tracks = walk(which, clip)
    scores = metrics.evaluate(clip.ground_truth(), tracks).as_dict()
    assert scores["DetRe"] > 85
    staying = max(clip.ground_truth(), key=len)
    # the one who stays is one track, whatever happens to the other
    assert metrics.evaluate([staying], tracks).clear.id_switches == 0


@pytest.mark.parametrize("which", WALKS)
def test_walks_make_an_exchange_permanent(which: object, clip: SyntheticClip) -> None:
    # The weakness that both have in common: masks lie perfectly on the wrong objects.
    swap = Swap(8, (1, 2))
    change = compare_identities(clip.ground_truth(), clip.ground_truth(), walk(which, clip, [swap]))
    assert {(b.object_id, b.frame) for b in change.remaining} >= {(1, 8), (2, 8)}


def test_rematching_gives_who_was_lost_a_new_id(clip: SyntheticClip) -> None:
    lost = walk(rematching_walk, clip, [Loss(4, 2)])
    of_two = [t for t in lost if metrics.evaluate([clip.ground_truth()[1]], [t]).clear.true_positives]
    assert len(of_two) == 2
    # it was missed until the detector looked again
    assert max(int(t.frame_indices[0]) for t in of_two) == 16


def test_sam2mot_ends_who_is_lost_for_long(clip: SyntheticClip) -> None:
    lost = walk(sam2mot_walk, clip, [Loss(4, 2)])
    first = next(t for t in lost if metrics.evaluate([clip.ground_truth()[1]], [t]).clear.true_positives)
    assert int(first.frame_indices[-1]) < 4
    # found again at the next look, as somebody new
    assert sorted({int(t.frame_indices[0]) for t in lost})[1] == 8
