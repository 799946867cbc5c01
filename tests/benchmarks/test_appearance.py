from __future__ import annotations

import numpy as np
import pytest

from fiftyone_plugin.benchmarks.appearance import cost_of_log_odds, log_odds_of_pairs, main
from fiftyone_plugin.synthetic.scenes import flock
from fiftyone_plugin.types import Gallery, Track


def galleries(tracks: tuple[Track, ...], *, spread: float) -> dict[int, Gallery]:
    """Views around a place for each individual; `spread` is how far they lie from it."""
    rng = np.random.default_rng(0)
    made = {}
    for track in tracks:
        count = len(track)
        views = rng.standard_normal(8) + spread * rng.standard_normal((count, 8))
        views = (views / np.linalg.norm(views, axis=1, keepdims=True)).astype(np.float32)
        made[track.track_id] = Gallery(track.track_id, track.frame_indices, views, np.ones(count, np.float32), "made")
    return made


def test_individuals_that_differ_are_told_apart_and_others_are_not() -> None:
    tracks = flock(501, frames=120).ground_truth()
    one, two = log_odds_of_pairs(tracks, galleries(tracks, spread=0.05))
    assert len(one) > 5
    assert len(two) > 10
    assert one.min() > 0 > two.max()
    assert cost_of_log_odds(one, two) < 0.1
    blurred = log_odds_of_pairs(tracks, galleries(tracks, spread=20.0))
    assert cost_of_log_odds(*blurred) > 0.6


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        pytest.param([0.0], [0.0, 0.0], 1.0, id="nothing said"),
        pytest.param([50.0], [-50.0], 0.0, id="certain and right"),
        # Two to one for what is not so.
        pytest.param([-np.log(2)], [np.log(2)], np.log2(3), id="wrong"),
    ],
)
def test_cost_is_in_bits(one: list[float], two: list[float], expected: float) -> None:
    cost = cost_of_log_odds(np.array(one, np.float32), np.array(two, np.float32))
    assert cost == pytest.approx(expected, abs=1e-5)


def test_prints_a_row_for_each_condition(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["--embedder", "colour", "colour:relative", "--conditions", "usual", "--clips", "1", "--frames", "72"])
        == 0
    )
    head, rule, row = capsys.readouterr().out.splitlines()
    assert head == "| AUC, cost in bits | pairs | colour | colour:relative |"
    assert rule.count("---") == row.count("|") - 1 == 4
    assert row.startswith("| usual | ")
