"""How fast are the propagators, and how much memory do they hold, by number of objects and length of the video?

All contestants (`propagation_contestants`) carry the same objects through the same frames in one process, taking turns
every few frames, so that whatever else the machine does hits all alike. The video is drawn beforehand, so that nothing
is decoded; what is measured is from the pixels of a frame to the masks of all objects at its full size, on the CPU.
Masks are compared on the way: a fast backend that answers something else would show. Memory is measured in a process of
its own for every backend and length, because a process never forgets its peak.

    shepherd bench propagation --quick                               a CPU, some minutes
    shepherd bench propagation --device cuda --variant tiny --random --objects 1 4 8 16 32
    shepherd bench propagation --device cuda --variant large --random --objects 1 8
    shepherd bench propagation --only engine --objects 8 --lengths 300 1000 3000
    shepherd bench propagation --knobs                               what each setting brings and costs

Random weights serve where the published ones are out of reach: speed and memory do not depend on their values.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fiftyone_plugin.benchmarks.propagation_contestants import CONTESTANTS, make_contestant
from fiftyone_plugin.benchmarks.propagation_knobs import print_knobs
from fiftyone_plugin.config import PropagationOptions
from fiftyone_plugin.exporters import write_atomically
from fiftyone_plugin.interfaces import PropagationSession, Propagator
from fiftyone_plugin.pipeline.memory import peak_memory_mb
from fiftyone_plugin.types import BoolArray, Frame, Seed

__all__ = ["MemoryRow", "SpeedRow", "main", "measure_memory", "measure_speed", "moving_boxes"]

_WARM_UP_FRAMES = 16
"""Until the memory of every object is full: the window of SAM 2 reaches back 15 frames."""
_TURN_FRAMES = {"cpu": 4, "cuda": 16}
"""A GPU's turns hold whole batches of the image encoder."""
_DRAWN_FRAMES = 48


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """Time of one backend with one number of objects."""

    backend: str
    objects: int
    milliseconds: float
    """Median over the turns of the time of a frame."""
    processor_milliseconds: float
    """The same of the time that the processor spent on it, all threads together: other work hardly counts in it."""
    agreement: float
    """Mean IoU of its masks and those of the first backend, in [0, 1]."""
    visible: float
    """Part of its masks that are not empty, in [0, 1]."""
    gpu_mib: float
    """Most that lay on the GPU at once while this backend had its turn, models of all contestants included."""


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """Memory of one backend after one number of frames."""

    backend: str
    frames: int
    held_mib: float
    """All tensors that the walk holds, without the model."""
    gpu_mib: float
    """What lies on the GPU, model included; 0 without one."""
    gpu_peak_mib: float
    """Most that lay there at once."""
    host_mib: float
    """Resident memory of the process."""
    host_peak_mib: float
    """Its peak since the process began."""


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
    turn = _TURN_FRAMES["cuda" if torch.cuda.is_available() else "cpu"]
    drawn = list(itertools.islice(moving_boxes(objects, height_px=height_px, width_px=width_px), _DRAWN_FRAMES))
    contestants = [_Contestant(backend, drawn, height_px=height_px, width_px=width_px) for backend in backends]
    for contestant in contestants:
        contestant.take(_WARM_UP_FRAMES)
        contestant.milliseconds.clear()
        contestant.processor_milliseconds.clear()
    done = 0
    while done < frames:
        count = min(turn, frames - done)
        expected: list[BoolArray] = []
        for contestant in contestants:
            masks = contestant.take(count)
            expected = expected or masks
            contestant.agreement += [_mean_iou(a, b) for a, b in zip(masks, expected, strict=True)]
            contestant.visible += [float(m.any(axis=(1, 2)).mean()) for m in masks]
        done += count
    for contestant in contestants:
        contestant.close()
    return [
        SpeedRow(
            contestant.name,
            objects,
            statistics.median(contestant.milliseconds),
            statistics.median(contestant.processor_milliseconds),
            statistics.fmean(contestant.agreement),
            statistics.fmean(contestant.visible),
            contestant.gpu_mib,
        )
        for contestant in contestants
    ]


def measure_memory(backend: Propagator, *, objects: int, frames: int, height_px: int, width_px: int) -> MemoryRow:
    """Look at what a walk holds after so many frames; for the peaks, in a process that has done nothing else."""
    before = _tensor_bytes()
    drawn = list(itertools.islice(moving_boxes(objects, height_px=height_px, width_px=width_px), _DRAWN_FRAMES))
    contestant = _Contestant(backend, drawn, height_px=height_px, width_px=width_px)
    _reset_gpu_peak()
    for _ in range(frames):
        contestant.take(1, is_timed=False)
    gpu = torch.cuda.memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    held = (_tensor_bytes() - before) / 2**20
    row = MemoryRow(backend.name, frames, held, gpu, _gpu_peak_mib(), _resident_mib(), peak_memory_mb())
    contestant.close()
    return row


class _Contestant:
    """A backend on its way through the video."""

    def __init__(
        self, backend: Propagator, drawn: Sequence[tuple[Frame, list[Seed]]], *, height_px: int, width_px: int
    ) -> None:
        self.name = backend.name
        self.milliseconds: list[float] = []
        self.processor_milliseconds: list[float] = []
        self.agreement: list[float] = []
        self.visible: list[float] = []
        self.gpu_mib = 0.0
        self._session: PropagationSession = backend.open(height_px=height_px, width_px=width_px)
        feed = getattr(self._session, "feed", None)
        frames: Iterable[Frame] = _again_and_again([frame for frame, _ in drawn])
        self._frames: Iterator[Frame] = iter(frames if feed is None else feed(frames))
        self._session.advance(next(self._frames))
        self._session.seed(drawn[0][1])

    def take(self, count: int, *, is_timed: bool = True) -> list[BoolArray]:
        """Go so many frames on; masks by frame, in the order of the track ids."""
        if is_timed:
            _reset_gpu_peak()
        _wait_for_gpu()
        began, processor_began = time.perf_counter(), time.process_time()
        answers = [self._session.advance(frame) for frame in itertools.islice(self._frames, count)]
        _wait_for_gpu()
        if is_timed:
            self.milliseconds.append(1e3 * (time.perf_counter() - began) / count)
            self.processor_milliseconds.append(1e3 * (time.process_time() - processor_began) / count)
            self.gpu_mib = max(self.gpu_mib, _gpu_peak_mib())
        return [np.asarray(a.masks[np.argsort(a.track_ids)]) for a in answers]

    def close(self) -> None:
        """Stop reading ahead."""
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print tables in Markdown; with ``--output`` write all numbers as JSON."""
    a = _parse(argv)
    if a.knobs:
        print(_about(a))
        knobs = print_knobs(spec=f"sam2:{a.variant}", device=a.device, clips=a.clips, frames=a.frames)
        if a.output is not None:
            write_atomically(a.output, json.dumps([asdict(row) for row in knobs]).encode())
        return 0
    if a.alone:
        print(json.dumps(asdict(_walk_alone(a))))
        return 0
    size = {"height_px": a.height, "width_px": a.width}
    backends = [_contestant(a, name) for name in a.only] if a.frames else []
    print(_about(a))
    found: dict[str, Any] = {"about": _about(a), "speed": [], "memory": []}
    if backends:
        print(
            "\n| objects | backend | ms a frame | frames/s | times first | CPU ms | times | IoU with first | GPU MiB |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
    for count in a.objects if backends else []:
        rows = measure_speed(backends, objects=count, frames=a.frames, **size)
        found["speed"] += [asdict(row) for row in rows]
        for row in rows:
            ratio = rows[0].milliseconds / row.milliseconds
            processor = row.processor_milliseconds
            print(
                f"| {count} | {row.backend} | {row.milliseconds:.1f} | {1e3 / row.milliseconds:.1f} | {ratio:.2f} | "
                f"{processor:.1f} | {rows[0].processor_milliseconds / processor:.2f} | "
                f"{row.agreement:.4f} | {row.gpu_mib:.0f} |",
                flush=True,
            )
    for backend in backends:
        warm_up = getattr(backend, "warm_up_seconds", 0.0)
        if warm_up:
            print(f"\n{backend.name} warmed up for {warm_up:.1f} s: {', '.join(getattr(backend, 'recorded', ()))}")
    # What the walks are measured in must not share a GPU with these.
    backends.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if a.lengths:
        print(f"\n| backend, {max(a.objects)} objects | frames | tensors held, MiB | GPU | GPU peak | process | peak |")
        print("|---|---|---|---|---|---|---|")
    for name, frames in itertools.product(a.only, a.lengths):
        held = _in_its_own_process(sys.argv[1:] if argv is None else argv, name, frames)
        found["memory"].append(asdict(held))
        print(
            f"| {held.backend} | {held.frames} | {held.held_mib:.1f} | {held.gpu_mib:.0f} | {held.gpu_peak_mib:.0f} | "
            f"{held.host_mib:.0f} | {held.host_peak_mib:.0f} |",
            flush=True,
        )
    if a.output is not None:
        write_atomically(a.output, json.dumps(found, indent=1).encode())
    return 0


def _contestant(a: argparse.Namespace, name: str) -> Propagator:
    options = PropagationOptions(
        objects_per_batch=a.objects_per_batch,
        graphs=not a.no_graphs,
        kernels=not a.no_kernels,
        image_scale=a.image_scale,
    )
    return make_contestant(name, a.variant, device=a.device, is_random=a.random, options=options)


def _in_its_own_process(argv: Sequence[str], name: str, frames: int) -> MemoryRow:
    alone = [*argv, "--only", name, "--lengths", str(frames), "--alone"]
    ran = subprocess.run([sys.executable, "-m", __spec__.name, *alone], check=True, stdout=subprocess.PIPE, text=True)
    return MemoryRow(**json.loads(ran.stdout))


def _walk_alone(a: argparse.Namespace) -> MemoryRow:
    (name,), (frames,) = a.only, a.lengths
    return measure_memory(
        _contestant(a, name), objects=max(a.objects), frames=frames, height_px=a.height, width_px=a.width
    )


def _about(a: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name() if a.device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    weights = "random weights" if a.random else "its weights"
    scale = "" if a.image_scale == 1 else f", image scale {a.image_scale:g}"
    return (
        f"SAM 2.1 {a.variant} with {weights}, {device}, torch {torch.__version__}, video {a.width} x {a.height}{scale}"
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="shepherd bench propagation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="bundled", help="bundled, tiny, small, base-plus, large or a directory")
    parser.add_argument("--random", action="store_true", help="random weights of a published architecture")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--only", nargs="+", choices=CONTESTANTS, help="contestants; the first is what others are held to"
    )
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--frames", type=int, default=40, help="timed frames for each number of objects; 0 for none")
    parser.add_argument("--lengths", type=int, nargs="*", default=[50, 100, 200], help="frames, for the memory")
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--objects-per-batch", type=int, default=PropagationOptions().objects_per_batch)
    parser.add_argument("--image-scale", type=float, default=1.0, help="of the picture that all of them see")
    parser.add_argument("--no-graphs", action="store_true", help="the engine without CUDA graphs")
    parser.add_argument("--no-kernels", action="store_true", help="the engine without its Triton kernels")
    parser.add_argument("--knobs", action="store_true", help="instead, every setting of the engine on drawn clips")
    parser.add_argument("--clips", type=int, default=3, help="drawn clips of --frames frames, with --knobs")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--quick", action="store_true", help="few frames")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    if a.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {a.device}: torch finds no GPU here; use --device cpu")
    if a.quick and not a.alone:
        a.frames, a.lengths = 12, [10, 20, 40]
    a.only = a.only or list(CONTESTANTS)
    return a


def _again_and_again(frames: Sequence[Frame]) -> Iterator[Frame]:
    """The frames forwards and backwards, numbered on, so that nothing jumps."""
    images = [frame.image_rgb for frame in frames]
    images += images[-2:0:-1]
    for index in itertools.count():
        yield Frame(index, index / 25, images[index % len(images)])


def _mean_iou(a: BoolArray, b: BoolArray) -> float:
    both, either = (a & b).sum(axis=(1, 2)), (a | b).sum(axis=(1, 2))
    return float(np.mean(np.where(either == 0, 1.0, both / np.maximum(either, 1))))


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _reset_gpu_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _gpu_peak_mib() -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0


def _tensor_bytes() -> int:
    gc.collect()
    storages = {}
    for candidate in gc.get_objects():
        if type(candidate) is torch.Tensor:
            storage = candidate.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _resident_mib() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # not Linux
        return peak_memory_mb()
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    sys.exit(main())
