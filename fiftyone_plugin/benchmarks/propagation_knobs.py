"""What does each setting of `PropagationOptions` bring, and what does it cost?

The engine carries the animals of drawn clips, seeded with their true boxes on the first frame, once with every setting,
and is compared with the true masks of every later frame. Settings take turns clip by clip. `shepherd bench propagation
--knobs` prints the table. Knows nothing of other backends.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fiftyone_plugin.config import SPEED_PRESETS, PropagationOptions
from fiftyone_plugin.geometry import decode_mask
from fiftyone_plugin.interfaces import FeedableSession, Propagator
from fiftyone_plugin.registry import make_propagator
from fiftyone_plugin.synthetic.scenes import flock
from fiftyone_plugin.types import BoolArray, Frame, FrameMasks, Seed, Track

__all__ = ["SETTINGS", "KnobRow", "measure_knobs", "print_knobs"]

_DEFAULT = PropagationOptions()
SETTINGS: Mapping[str, PropagationOptions] = {
    "as SAM 2 is published": _DEFAULT,
    **{f"image_scale={x}": replace(_DEFAULT, image_scale=x) for x in (0.5, 0.75, 1.5)},
    **{f"frame_stride={x}": replace(_DEFAULT, frame_stride=x) for x in (2, 3, 4)},
    **{f"memory_frames={x}": replace(_DEFAULT, memory_frames=x) for x in (1, 3)},
    **{f"objects_per_batch={x}": replace(_DEFAULT, objects_per_batch=x) for x in (1, 2, 4)},
    **{f"--preset {name}": options for name, options in SPEED_PRESETS.items() if options != _DEFAULT},
}
"""What a CPU can tell apart: ``encode_batch_frames``, ``graphs`` and ``kernels`` matter on a GPU only."""


@dataclass(slots=True)
class KnobRow:
    """One setting over all clips."""

    setting: str
    seconds_per_frame: list[float] = field(default_factory=list)
    """By clip."""
    ious: list[float] = field(default_factory=list)
    """With the true mask, by object and frame, in [0, 1]; 1 where both are empty."""

    @property
    def milliseconds(self) -> float:
        """Median over the clips of the time of a frame."""
        return 1e3 * statistics.median(self.seconds_per_frame)

    @property
    def mean_iou(self) -> float:
        """Over all objects and frames."""
        return statistics.fmean(self.ious)


def measure_knobs(
    settings: Mapping[str, PropagationOptions], *, spec: str, device: str, clips: int, frames: int
) -> list[KnobRow]:
    """Carry the objects of so many drawn clips with every setting.

    Args:
        settings: By name.
        spec: The propagator, ``NAME:VARIANT``.
        device: Where.
        clips: How many; clip n is `flock` of seed n.
        frames: Frames of each.
    """
    rows = [KnobRow(name) for name in settings]
    # On a CPU, the time that this process got, so that other work of the machine hardly counts. With several threads
    # it is the sum of theirs: set OMP_NUM_THREADS=1.
    clock = time.process_time if device == "cpu" else time.perf_counter
    made = [make_propagator(spec, device=device, options=options) for options in settings.values()]
    for number in range(clips):
        clip = flock(number, frames=frames)
        truth = [track for track in clip.ground_truth() if track.frame_indices[0] == 0]
        drawn = list(clip.source.frames())
        for propagator, row in zip(made, rows, strict=True):
            _carry(propagator, drawn[: min(4, frames)], truth)  # the first calls of anything are slow
            began = clock()
            answers = _carry(propagator, drawn, truth)
            row.seconds_per_frame.append((clock() - began) / frames)
            row.ious += _ious(answers, truth)
    return rows


def print_knobs(*, spec: str, device: str, clips: int, frames: int) -> list[KnobRow]:
    """Measure all `SETTINGS` and print a Markdown table."""
    rows = measure_knobs(SETTINGS, spec=spec, device=device, clips=clips, frames=frames)
    print(f"\n| setting, clips: {clips}, frames: {frames} | ms a frame | times the first | IoU with the truth |")
    print("|---|---|---|---|")
    for row in rows:
        ratio = rows[0].milliseconds / row.milliseconds
        print(f"| `{row.setting}` | {row.milliseconds:.1f} | {ratio:.2f} | {row.mean_iou:.3f} |", flush=True)
    return rows


def _carry(propagator: Propagator, drawn: Sequence[Frame], truth: Sequence[Track]) -> list[FrameMasks]:
    session = propagator.open(height_px=drawn[0].height_px, width_px=drawn[0].width_px)
    frames: Iterator[Frame] = iter(drawn)
    if isinstance(session, FeedableSession):
        frames = session.feed(frames)
    answers: list[FrameMasks] = []
    for frame in frames:
        answers.append(session.advance(frame))
        if frame.index == 0:
            session.seed([Seed(track.track_id, box_xyxy=track.boxes_xyxy[0]) for track in truth])
    return answers[1:]


def _ious(answers: Sequence[FrameMasks], truth: Sequence[Track]) -> list[float]:
    values = []
    for track in truth:
        assert track.masks is not None
        true = dict(zip(track.frame_indices.tolist(), track.masks, strict=True))
        for answer in answers:
            found: BoolArray = answer.masks[answer.track_ids.tolist().index(track.track_id)]
            rle = true.get(answer.frame_index)
            wanted = np.zeros_like(found) if rle is None else decode_mask(rle)
            either = int((found | wanted).sum())
            values.append(1.0 if either == 0 else int((found & wanted).sum()) / either)
    return values
