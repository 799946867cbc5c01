"""How well embedders tell individuals apart, heard as the identity layer hears them.

    shepherd bench appearance --embedder colour reid sam2-features

Views are cut out of drawn flocks by their true masks, so that neither propagation nor repair plays a part. Each clip is
calibrated by itself, from its true tracks, as every video is (`identity.appearance`). Then pairs of stretches of two
objects of one phrase, far apart in time, are asked: one individual, or two?
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fiftyone_plugin.benchmarks.identity_synthetic import CONDITIONS
from fiftyone_plugin.benchmarks.identity_views import ViewTable
from fiftyone_plugin.bundled.training.evaluate_embedder import roc_auc
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.identity.appearance import calibrate, views_between
from fiftyone_plugin.types import FloatArray, Gallery, Track

__all__ = ["cost_of_log_odds", "log_odds_of_pairs", "main"]

_SPAN_FRAMES = 24
"""Length of a stretch."""
_APART_FRAMES = 48
"""From the beginning of one stretch to that of the other: between neighbours, hardly anything changes."""
_MIN_VIEWS = 3
"""A stretch with fewer clean views is not asked about."""


def log_odds_of_pairs(tracks: Sequence[Track], galleries: Mapping[int, Gallery]) -> tuple[FloatArray, FloatArray]:
    """What appearance says of pairs of stretches: log-odds (nats) of "one individual", where it is one and where not.

    Args:
        tracks: True ones.
        galleries: Their clean views, by track id.
    """
    calibration = calibrate(tracks, galleries, is_same_object={})
    last = max(int(t.frame_indices[-1]) for t in tracks)
    stretches = [
        (t, start, found)
        for t in tracks
        for start in range(0, last + 1, _SPAN_FRAMES)
        if len(found := views_between(galleries[t.track_id], start, start + _SPAN_FRAMES)) >= _MIN_VIEWS
    ]
    asked = [views for _, _, views in stretches]
    sets = calibration.pooled(asked)
    table = calibration.log_odds_table(sets, sets)
    one: list[float] = []
    two: list[float] = []
    for (i, (a, start_a, _)), (j, (b, start_b, _)) in combinations(enumerate(stretches), 2):
        if a.phrase == b.phrase and abs(start_a - start_b) >= _APART_FRAMES:
            (one if a.track_id == b.track_id else two).append(float(table[i, j]))
    return np.array(one, np.float32), np.array(two, np.float32)


def cost_of_log_odds(one: FloatArray, two: FloatArray) -> float:
    """What is left to guess after the log-odds (nats) are known, in bits: 0 is perfect, 1 is nothing learnt.

    Reference:
        Brummer and Du Preez, "Application-independent evaluation of speaker detection", Computer Speech & Language 20,
        2006: their C_llr.
    """
    missed, mistaken = np.logaddexp(0, -one.astype(np.float64)), np.logaddexp(0, two.astype(np.float64))
    return float((missed.mean() + mistaken.mean()) / 2 / np.log(2))


def main(argv: Sequence[str] | None = None) -> int:
    """Print a Markdown table: ROC-AUC and cost of the log-odds, by condition and embedder."""
    parser = argparse.ArgumentParser(prog="shepherd bench appearance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--embedder", nargs="+", default=[TrackingOptions().models.embedder])
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=["usual", "alike", "light"])
    parser.add_argument("--first", type=int, default=501, help="seed of the first clip")
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--frames", type=int, default=120)
    a = parser.parse_args(argv)
    print(f"| AUC, cost in bits | pairs | {' | '.join(a.embedder)} |")
    print("|---" * (2 + len(a.embedder)) + "|")
    for name in a.conditions:
        cells = []
        pairs = 0
        for embedder in a.embedder:
            found = [_measure(name, seed, a.frames, embedder) for seed in range(a.first, a.first + a.clips)]
            one, two = (np.concatenate(each) for each in zip(*found, strict=True))
            pairs = len(one) + len(two)
            cells.append(f"{roc_auc(one, two):.3f}, {cost_of_log_odds(one, two):.2f}")
        print(f"| {name} | {pairs} | {' | '.join(cells)} |", flush=True)
    return 0


def _measure(condition: str, seed: int, frames: int, embedder: str) -> tuple[FloatArray, FloatArray]:
    clip = CONDITIONS[condition].clip(seed, frames)
    tracks = clip.ground_truth()
    with TemporaryDirectory() as cache:
        table = ViewTable.make("clip", clip.source, [tracks], embedder, Path(cache))
    return log_odds_of_pairs(tracks, table.galleries(tracks))


if __name__ == "__main__":
    raise SystemExit(main())
