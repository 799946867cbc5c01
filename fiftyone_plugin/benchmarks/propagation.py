"""How fast are the propagators, and how much memory do they hold, by number of objects and length of the video?

Both backends carry the same objects through the same frames in one process, taking turns every few frames, so that
whatever else the machine does hits both alike. They share one set of weights. The video is drawn, so that nothing is
decoded; what is measured is `advance`, from the pixels of a frame to the masks of all objects at its full size.
Masks are compared on the way: a fast backend that answers something else would show.

Run it with ``shepherd bench propagation`` or ``python -m fiftyone_plugin.benchmarks.propagation``; ``--quick`` takes
less than two minutes on two CPU cores. transformers' ``Sam2Video`` is not among the contestants, since the package has
no converter for the weights of `sam2`.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fiftyone_plugin.interfaces import PropagationSession, Propagator
from fiftyone_plugin.registry import make_propagator
from fiftyone_plugin.types import BoolArray, Frame, Seed

__all__ = ["MemoryRow", "SpeedRow", "main", "measure_memory", "measure_speed", "moving_boxes"]

OFFICIAL = "sam2-reference"
OURS = "sam2"
_WARM_UP_FRAMES = 16
"""Until the memory of every object is full: the window of SAM 2 reaches back 15 frames."""
_TURN_FRAMES = 4


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """Time of one backend with one number of objects."""

    backend: str
    objects: int
    milliseconds: float
    """Median time of a frame."""
    agreement: float
    """Mean IoU of its masks and the official ones, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """Memory of one backend after one number of frames."""

    backend: str
    frames: int
    held_mib: float
    """All tensors that the walk holds, without the model."""


def moving_boxes(objects: int, *, height_px: int, width_px: int, start: int = 0) -> Iterator[tuple[Frame, list[Seed]]]:
    """An endless drawn video of coloured boxes that move over noise, with the seeds of each frame's boxes."""
    rng = np.random.default_rng(0)
    background = rng.integers(60, 120, (height_px, width_px, 3), np.uint8)
    colours = rng.integers(130, 255, (objects, 3), np.uint8)
    side = max(min(height_px, width_px) // 6, 4)
    corners = rng.uniform(0, 1, (objects, 2)) * (width_px - side, height_px - side)
    speeds = rng.uniform(-3, 3, (objects, 2))
    index = start
    while True:
        # Boxes bounce off the borders.
        room = np.array([width_px - side, height_px - side])
        travelled = (corners + index * speeds) % (2 * room)
        places = np.where(travelled > room, 2 * room - travelled, travelled).astype(int)
        image = background.copy()
        seeds = []
        for number, (x, y) in enumerate(places.tolist()):
            image[y : y + side, x : x + side] = colours[number]
            seeds.append(Seed(number + 1, box_xyxy=np.array([x, y, x + side, y + side], np.float32)))
        yield Frame(index, index / 25, image), seeds
        index += 1


def measure_speed(
    backends: Sequence[Propagator], *, objects: int, frames: int, height_px: int, width_px: int
) -> list[SpeedRow]:
    """Let backends carry the same objects in turns.

    Args:
        backends: The first one is what the others are compared with.
        objects: Objects, all seeded on the first frame.
        frames: Frames that are timed, after a warm-up.
        height_px: Height of the video.
        width_px: Width of the video.
    """
    video = moving_boxes(objects, height_px=height_px, width_px=width_px)
    sessions = [backend.open(height_px=height_px, width_px=width_px) for backend in backends]
    frame, seeds = next(video)
    for session in sessions:
        session.advance(frame)
        session.seed(seeds)
    for frame, _ in _take(video, _WARM_UP_FRAMES):
        for session in sessions:
            session.advance(frame)
    times: list[list[float]] = [[] for _ in backends]
    agreement: list[list[float]] = [[] for _ in backends]
    while len(times[0]) < frames:
        turn = [frame for frame, _ in _take(video, min(_TURN_FRAMES, frames - len(times[0])))]
        expected: list[BoolArray] = []
        for number, session in enumerate(sessions):
            masks = [_timed_advance(session, frame, times[number]) for frame in turn]
            expected = expected or masks
            agreement[number] += [_mean_iou(a, b) for a, b in zip(masks, expected, strict=True)]
    return [
        SpeedRow(backend.name, objects, 1e3 * float(np.median(times[i])), float(np.mean(agreement[i])))
        for i, backend in enumerate(backends)
    ]


def measure_memory(
    backend: Propagator, *, objects: int, lengths: Sequence[int], height_px: int, width_px: int
) -> list[MemoryRow]:
    """Count what a walk holds after so many frames: `lengths`, increasing."""
    before = _tensor_bytes()
    video = moving_boxes(objects, height_px=height_px, width_px=width_px)
    session = backend.open(height_px=height_px, width_px=width_px)
    frame, seeds = next(video)
    session.advance(frame)
    session.seed(seeds)
    rows = []
    for done, length in zip([0, *lengths], lengths, strict=False):
        for frame, _ in _take(video, length - done):
            session.advance(frame)
        rows.append(MemoryRow(backend.name, length, (_tensor_bytes() - before) / 2**20))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print two tables in Markdown."""
    options = _parse(argv)
    size = {"height_px": options.height, "width_px": options.width}
    backends = [make_propagator(f"{name}:{options.variant}", device=options.device) for name in (OFFICIAL, OURS)]
    print(
        f"SAM 2.1 {options.variant} on {options.device}, {torch.get_num_threads()} CPU threads, torch "
        f"{torch.__version__}, video {options.width} x {options.height}"
    )
    print("\n| objects | backend | ms a frame | frames/s | times official | IoU with official |")
    print("|---|---|---|---|---|---|")
    for objects in options.objects:
        rows = measure_speed(backends, objects=objects, frames=options.frames, **size)
        for row in rows:
            ratio = rows[0].milliseconds / row.milliseconds
            print(
                f"| {objects} | {row.backend} | {row.milliseconds:.1f} | {1e3 / row.milliseconds:.1f} | {ratio:.2f} | "
                f"{row.agreement:.4f} |",
                flush=True,
            )
    objects = max(options.objects)
    print(f"\n| backend, {objects} objects | " + " | ".join(f"{length} frames" for length in options.lengths) + " |")
    print("|---|" + "---|" * len(options.lengths))
    for backend in backends:
        held = measure_memory(backend, objects=objects, lengths=options.lengths, **size)
        print(f"| {backend.name} | " + " | ".join(f"{row.held_mib:.1f} MiB" for row in held) + " |", flush=True)
    print(f"\nPeak memory of the whole process: {_peak_mib():.0f} MiB")
    if options.device.startswith("cuda"):
        print(f"Peak memory of the GPU: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shepherd bench propagation", description=__doc__)
    parser.add_argument("--variant", default="bundled", help="bundled, tiny, small, base-plus, large or a directory")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--frames", type=int, default=40, help="timed frames for each number of objects")
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 100, 200], help="frames, for the memory")
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--quick", action="store_true", help="few frames: a look, not a measurement")
    options = parser.parse_args(argv)
    if options.quick:
        options.frames, options.lengths = min(options.frames, 12), [10, 20, 40]
    return options


def _take(video: Iterator[tuple[Frame, list[Seed]]], count: int) -> list[tuple[Frame, list[Seed]]]:
    return [next(video) for _ in range(count)]


def _timed_advance(session: PropagationSession, frame: Frame, times: list[float]) -> BoolArray:
    """The masks of a frame in the order of the track ids; the answer lies on the host, so the GPU is done with it."""
    start = time.perf_counter()
    answer = session.advance(frame)
    times.append(time.perf_counter() - start)
    return np.asarray(answer.masks[np.argsort(answer.track_ids)])


def _mean_iou(a: BoolArray, b: BoolArray) -> float:
    both, either = (a & b).sum(axis=(1, 2)), (a | b).sum(axis=(1, 2))
    return float(np.mean(np.where(either == 0, 1.0, both / np.maximum(either, 1))))


def _tensor_bytes() -> int:
    gc.collect()
    storages = {}
    for candidate in gc.get_objects():
        if type(candidate) is torch.Tensor:
            storage = candidate.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    sys.exit(main())
