"""The demo: the bundled clip, text to tracks, plain and repaired, scored against its ground truth, and shown.

Leaves in the output folder: a contact sheet, a side-by-side video, tracks in MOT format and the report. With a dataset
name, the clip is added to a persistent FiftyOne dataset with three fields: ground truth, plain, and repaired.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fiftyone_plugin import exporters, metrics, pipeline
from fiftyone_plugin.bundled.demo import DEMO_PROMPT, demo_ground_truth, demo_video_path
from fiftyone_plugin.config import IdentityOptions, TrackingOptions
from fiftyone_plugin.errors import Cancelled, OutputError
from fiftyone_plugin.exporters import overlay
from fiftyone_plugin.exporters.contact_sheet import contact_sheet
from fiftyone_plugin.pipeline import Progress
from fiftyone_plugin.report import decision_lines, summary, write_report
from fiftyone_plugin.types import TrackingResult
from fiftyone_plugin.video import open_source

__all__ = ["DemoOutcome", "run_demo"]

_SHOWN = ("HOTA", "AssA", "DetA", "IDF1", "MOTA", "IDSW", "Frag")


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What the demo found."""

    folder: Path
    dataset: str | None
    without_repair: dict[str, Any]
    """Scores of plain propagation."""
    with_repair: dict[str, Any]
    """Scores after repair."""
    plain: TrackingResult
    repaired: TrackingResult

    def as_dict(self) -> dict[str, Any]:
        """The command line's JSON contract."""
        return {
            "without_repair": self.without_repair,
            "with_repair": self.with_repair,
            **summary(self.repaired),
            "seconds": round(self.plain.seconds + self.repaired.seconds, 3),
            "output": str(self.folder),
            "dataset": self.dataset,
        }

    def lines(self) -> list[str]:
        """The same for people."""
        header = "".join(f"{name:>8}" for name in _SHOWN)
        lines = [f'"{DEMO_PROMPT}" in the bundled clip', "", f"{'':16}{header}"]
        for name, scores in (("without repair", self.without_repair), ("with repair", self.with_repair)):
            cells = (f"{scores[k]:8d}" if isinstance(scores[k], int) else f"{scores[k]:8.1f}" for k in _SHOWN)
            lines.append(f"{name:16}{''.join(cells)}")
        result = self.repaired
        lines += [
            "",
            f"tracked twice in {self.plain.seconds + result.seconds:.1f} s, at most {result.peak_memory_mb:.0f} MiB",
            *decision_lines(result),
            "",
            f"look at {self.folder / 'contact_sheet.png'} and {self.folder / 'side_by_side.mp4'}",
        ]
        if self.dataset is not None:
            lines.append(f"open it in FiftyOne: fiftyone app launch {self.dataset}")
        return lines


def run_demo(
    folder: Path,
    *,
    dataset: str | None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DemoOutcome:
    """Track the bundled clip twice and compare.

    Args:
        folder: Where pictures and tracks go; made if need be.
        dataset: Name of a persistent dataset, or None to leave FiftyOne alone. What an earlier demo wrote is replaced.
        on_progress: Called after every frame.
        should_stop: Asked before every frame.

    Raises:
        OutputError: The folder cannot be written.
        FieldConflictError: The dataset has fields of these names that are not ours.
        Cancelled: The user stopped it; half a demo says nothing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}): give another output folder") from None
    exporters.check_writable(folder / "contact_sheet.png")
    truth = demo_ground_truth()
    options = TrackingOptions()
    results = []
    for repair in (False, True):
        chosen = replace(options, identity=IdentityOptions(repair=repair))
        source = open_source(demo_video_path())
        results.append(pipeline.track(source, DEMO_PROMPT, chosen, on_progress=on_progress, should_stop=should_stop))
        if should_stop is not None and should_stop():
            raise Cancelled("the demo was stopped: nothing was written")
    plain, repaired = results
    scores = [metrics.evaluate(truth, r.tracks).as_dict() for r in results]
    _write(folder, plain, repaired, scores)
    if dataset is not None:
        _write_dataset(dataset, plain, repaired)
    shown = [{name: s[name] for name in _SHOWN} for s in scores]
    return DemoOutcome(folder, dataset, shown[0], shown[1], plain, repaired)


def _write(folder: Path, plain: TrackingResult, repaired: TrackingResult, scores: list[dict[str, Any]]) -> None:
    source = open_source(demo_video_path())
    notes = [f"HOTA {s['HOTA']:.0f} · IDF1 {s['IDF1']:.0f} · ID switches {s['IDSW']}" for s in scores]
    contact_sheet(
        source,
        plain.tracks,
        repaired.tracks,
        repaired.encounters,
        folder / "contact_sheet.png",
        title=f'"{DEMO_PROMPT}"',
        notes=(notes[0], notes[1]),
    )
    overlay.write_video(folder / "side_by_side.mp4", source, repaired.tracks, beside=plain.tracks)
    exporters.export_tracks(plain, None, folder / "without_repair.txt", "mot")
    exporters.export_tracks(repaired, None, folder / "with_repair.txt", "mot")
    exporters.export_tracks(demo_ground_truth(), repaired.video, folder / "ground_truth.txt", "mot")
    write_report(folder / "report.json", repaired)


def _write_dataset(name: str, plain: TrackingResult, repaired: TrackingResult) -> None:
    from fiftyone_plugin import labels

    target = labels.video_target(name, demo_video_path(), info=repaired.video)
    truth = replace(repaired, tracks=demo_ground_truth(), encounters=(), decisions=(), repairs=(), settings={})
    for field, result in (("ground_truth", truth), ("tracks_plain", plain), ("tracks", repaired)):
        labels.write_tracks(target, field, result, overwrite=True)
    labels.color_by_instance(labels.dataset_of(target))
