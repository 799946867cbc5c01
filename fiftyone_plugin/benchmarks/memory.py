"""Does memory grow with the length of a video? The whole pipeline on clips of the same flock, short and long.

``shepherd bench memory`` runs every length in a process of its own, because a process never forgets its peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from fiftyone_plugin import pipeline
from fiftyone_plugin.report import summary
from fiftyone_plugin.synthetic.scenes import flock

__all__ = ["main", "measure"]


def measure(frames: int, *, seed: int = 7) -> dict[str, Any]:
    """Track one flock of that many frames in this process: the numbers of `report.summary`."""
    return summary(pipeline.track(flock(seed, frames=frames).source, "sheep. dog."))


def main(argv: Sequence[str] | None = None) -> int:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="shepherd bench memory", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[300, 3000], help="lengths, shortest first")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    if a.one:
        print(json.dumps(measure(a.frames[0])))
        return 0
    print("| frames | tracks | peak memory, MiB | against the shortest | seconds |")
    print("|---|---|---|---|---|")
    first: float | None = None
    for frames in a.frames:
        command = [sys.executable, "-m", "fiftyone_plugin.benchmarks.memory", "--one", "--frames", str(frames)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peak = row["peak_memory_mb"]
        first = first or peak
        print(f"| {frames} | {row['tracks']} | {peak:.0f} | {peak / first:.3f} | {row['seconds']:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
