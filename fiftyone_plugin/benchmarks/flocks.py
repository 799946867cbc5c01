"""Does repair help, end to end? Random flocks from the procedural world, the bundled models, with and without repair.

``shepherd bench flocks --first 201 --clips 20`` prints a row per clip and the sums. The clips are drawn from the seed,
so that anybody gets the same ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fiftyone_plugin import metrics, pipeline
from fiftyone_plugin.config import PropagationOptions, TrackingOptions
from fiftyone_plugin.exporters import write_atomically
from fiftyone_plugin.synthetic.scenes import flock

__all__ = ["main", "measure_clip"]

_PROMPT = "sheep. dog."


def measure_clip(
    seed: int, *, frames: int = 120, options: TrackingOptions | None = None, **scene: Any
) -> dict[str, Any]:
    """Track one flock twice and score both results against the truth.

    Args:
        seed: Of the flock.
        frames: Length of the clip.
        options: Of both runs, but for `identity.repair`.
        **scene: Further settings of `synthetic.scenes.flock`.

    Returns:
        ``seed``, ``seconds``, and under ``plain`` and ``repaired`` the scores.
    """
    options = options or TrackingOptions()
    clip = flock(seed, frames=frames, **scene)
    truth = clip.ground_truth()
    results = []
    for repair in (False, True):
        chosen = replace(options, identity=replace(options.identity, repair=repair))
        results.append(pipeline.track(clip.source, _PROMPT, chosen))
    plain, repaired = results
    row = {
        "seed": seed,
        "seconds": plain.seconds + repaired.seconds,
        "needs_review": len(repaired.needs_review),
        "report": metrics.identity_report(truth, plain.tracks, repaired.tracks).as_dict(),
    }
    for name, result in (("plain", plain), ("repaired", repaired)):
        row[name] = {**metrics.evaluate(truth, result.tracks).as_dict(), "tracks": len(result.tracks)}
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Print a Markdown table; with ``--output`` also write every number as JSON."""
    parser = argparse.ArgumentParser(prog="shepherd bench flocks", description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=201, help="seed of the first clip")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--look-alike", type=float, default=0.3)
    parser.add_argument("--light", type=float, default=0.0)
    parser.add_argument("--pose", type=float, default=0.0)
    parser.add_argument("--camera", type=float, default=0.0)
    parser.add_argument("--embedder", default=TrackingOptions().models.embedder)
    parser.add_argument("--max-memory-overlap", type=float, default=PropagationOptions().max_memory_overlap)
    parser.add_argument("--output", type=Path)
    a = parser.parse_args(argv)
    models = replace(TrackingOptions().models, embedder=a.embedder)
    propagation = PropagationOptions(max_memory_overlap=a.max_memory_overlap)
    options = TrackingOptions(models=models, propagation=propagation)
    scene = {"look_alike": a.look_alike, "light": a.light, "pose": a.pose, "camera": a.camera}
    print("| seed | HOTA plain | repaired | IDF1 plain | repaired | IDSW plain | repaired | tracks | to review |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for seed in range(a.first, a.first + a.clips):
        row = measure_clip(seed, frames=a.frames, options=options, **scene)
        rows.append(row)
        print(_line(str(seed), row["plain"], row["repaired"], row["needs_review"]), flush=True)
    print(_line("mean / sum", _total(rows, "plain"), _total(rows, "repaired"), sum(r["needs_review"] for r in rows)))
    if a.output is not None:
        write_atomically(a.output, json.dumps(rows, indent=1).encode())
    return 0


def _line(name: str, plain: dict[str, Any], repaired: dict[str, Any], needs_review: int) -> str:
    cells = [name]
    for key in ("HOTA", "IDF1"):
        cells += [f"{plain[key]:.1f}", f"{repaired[key]:.1f}"]
    cells += [str(plain["IDSW"]), str(repaired["IDSW"]), f"{repaired['tracks']:.0f}", str(needs_review)]
    return f"| {' | '.join(cells)} |"


def _total(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    mean = {key: float(np.mean([r[name][key] for r in rows])) for key in ("HOTA", "IDF1", "tracks")}
    return {**mean, "IDSW": sum(r[name]["IDSW"] for r in rows)}


if __name__ == "__main__":
    raise SystemExit(main())
