"""Kill -9 at random moments: what is left goes on, and ends with the very result of a run that nobody touched.

Real processes, the bundled models, a real database. The moments are new ones in every run of the tests; a failure names
the seed, and ``SHEPHERD_KILL_SEED`` brings it back.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin import jobs
from fiftyone_plugin.bundled.demo import demo_ground_truth, demo_video_path

pytestmark = pytest.mark.fiftyone

KILLS = 5
FRAMES = 16
TRACK = ["--prompt", "sheep. dog.", "--device", "cpu", "--stop", str(FRAMES), "--checkpoint-every", "3"]


class Zygote:
    """Starts commands in processes of their own that begin at once; see `zygote`."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        self.home = folder / "home"
        command = [sys.executable, str(Path(__file__).with_name("zygote.py"))]
        environment = {**os.environ, "SHEPHERD_HOME": str(self.home)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._read() == {"ready": True}

    def start(self, *argv: object) -> int:
        """Begin a command; returns its process."""
        return int(self._ask({"argv": [str(a) for a in argv], "log": str(self.log)})["pid"])

    def call(self, function: str, *arguments: str, **settings: object) -> int:
        """Begin a function of `runner`; returns its process, whose log ends with the outcome."""
        return int(self._ask({"call": [function, arguments, settings], "log": str(self.log)})["pid"])

    def outcome(self) -> dict[str, Any]:
        """Of the function that ended last, without its times."""
        found = json.loads(self.log.read_text().splitlines()[-1])
        assert isinstance(found, dict)
        return without(found, "seconds", "peak_memory_mb", "job_id")

    def wait(self, pid: int) -> int:
        """The exit code of a command, or less than 0 for the signal that ended it."""
        return int(self._ask({"wait": pid})["status"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the zygote is gone"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer


@pytest.fixture(scope="module")
def zygote(fo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote(tmp_path_factory.mktemp("zygote"))
    yield made
    made.close()


@pytest.fixture
def moments() -> random.Random:
    seed = int(os.environ.get("SHEPHERD_KILL_SEED", time.time_ns() % 10**6))
    print(f"SHEPHERD_KILL_SEED={seed}")  # shown if the test fails
    return random.Random(seed)


def run(zygote: Zygote, *argv: object) -> float:
    """Run a command to its end; returns the seconds it took."""
    began = time.monotonic()
    assert zygote.wait(zygote.start(*argv)) == 0, zygote.log.read_text()
    return time.monotonic() - began


def run_with_kills(
    zygote: Zygote, moments: random.Random, seconds: float, start_over: Callable[[], None], *argv: object
) -> list[float]:
    """The same command again and again, killed `KILLS` times, then left alone; returns when it was killed.

    A run that ends before its moment has come makes room for a new one.
    """
    killed_after: list[float] = []
    while len(killed_after) < KILLS:
        pid = zygote.start(*argv)
        began = time.monotonic()
        time.sleep(moments.uniform(0.0, 0.4 * seconds))
        os.kill(pid, signal.SIGKILL)
        status = zygote.wait(pid)
        if status == -signal.SIGKILL:
            killed_after.append(time.monotonic() - began)
        else:
            assert status == 0, zygote.log.read_text()
            start_over()
    run(zygote, *argv)
    return killed_after


def without_times(report: Path) -> dict[str, Any]:
    found = json.loads(report.read_text())
    assert isinstance(found, dict)
    return without(found, "seconds", "peak_memory_mb")


def without(value: Any, *names: str) -> Any:
    """Nested mappings without some of their keys."""
    if isinstance(value, dict):
        return {k: without(v, *names) for k, v in value.items() if k not in names}
    return [without(v, *names) for v in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_file_killed_five_times_ends_as_uninterrupted(zygote: Zygote, moments: random.Random, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    track = ("track", demo_video_path(), *TRACK, "--resume", "--checkpoint", tmp_path / "job")

    def outputs(folder: Path) -> tuple[object, ...]:
        return ("--output", folder / "tracks.json", "--report", folder / "report.json")

    seconds = run(zygote, *track, *outputs(whole))
    run_with_kills(zygote, moments, seconds, lambda: shutil.rmtree(cut), *track, *outputs(cut))
    assert (cut / "tracks.json").read_bytes() == (whole / "tracks.json").read_bytes()
    assert without_times(cut / "report.json") == without_times(whole / "report.json")
    assert jobs.status(str(tmp_path / "job")).state is jobs.JobState.FINISHED
    assert not (tmp_path / "job" / "checkpoints").exists()


@pytest.mark.slow
def test_dataset_killed_five_times_ends_as_uninterrupted(
    zygote: Zygote, moments: random.Random, tmp_path: Path, fo: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHEPHERD_HOME", str(zygote.home))
    paths = [shutil.copy(demo_video_path(), tmp_path / name) for name in ("hill.mp4", "valley.mp4")]

    def make(name: str) -> Any:
        if fo.dataset_exists(name):
            fo.delete_dataset(name)
            for job in jobs.list_jobs(dataset=name):
                jobs.forget(job.job_id)  # it is of a dataset that is no more
        made = fo.Dataset(name, persistent=True)  # another process reads it
        made.add_samples([fo.Sample(filepath=str(path)) for path in paths])
        return made

    track = ("track", "--field", "flock", *TRACK)
    whole = make("whole")
    try:
        seconds = run(zygote, *track, "dataset:whole")
        make("cut")
        run_with_kills(zygote, moments, seconds, lambda: make("cut"), *track, "dataset:cut")
        whole.reload()
        cut = fo.load_dataset("cut")
        assert labels_of(cut) == labels_of(whole)
        assert sum(len(frame) for frame in labels_of(cut)["tracks"][0]) > FRAMES
        (job,) = jobs.list_jobs(dataset="cut")
        assert (job.state, job.failures) == (jobs.JobState.FINISHED, ())
    finally:
        for name in ("whole", "cut"):
            if fo.dataset_exists(name):
                fo.delete_dataset(name)


@pytest.fixture
def videos(fo: ModuleType, zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``videos(name, paths)`` makes a dataset that another process can read, without any job; all go in the end."""
    monkeypatch.setenv("SHEPHERD_HOME", str(zygote.home))
    names: list[str] = []

    def make(name: str, *files: str) -> Any:
        paths = [tmp_path / file for file in files]
        for path in paths:
            if not path.exists():
                shutil.copy(demo_video_path(), path)
        names.append(name)
        for job in jobs.list_jobs(dataset=name):
            jobs.forget(job.job_id)  # of a dataset of another test
        made = fo.Dataset(name, persistent=True)
        made.add_samples([fo.Sample(filepath=str(path)) for path in paths])
        return made

    yield make
    for name in names:
        fo.delete_dataset(name)
        for job in jobs.list_jobs(dataset=name):
            jobs.forget(job.job_id)


def kill_after_a_checkpoint(zygote: Zygote, moments: random.Random, pid: int, *, within: float) -> bool:
    """Kill a process at some moment after it has made a checkpoint; returns whether it still lived."""
    deadline = time.monotonic() + 120
    while not list(zygote.home.glob("jobs/*/checkpoints/*/*.json")):
        assert time.monotonic() < deadline, f"no checkpoint: {zygote.log.read_text()}"
        time.sleep(0.01)
    time.sleep(moments.uniform(0.0, within))
    os.kill(pid, signal.SIGKILL)
    status = zygote.wait(pid)
    assert status in (0, -signal.SIGKILL), zygote.log.read_text()
    return status != 0


def mark(fo: ModuleType, sample: Any, *, frames: tuple[int, ...]) -> None:
    """A box round another animal of the demo clip on each of these frames."""
    for number, frame in enumerate(frames):
        truth = demo_ground_truth()[number]
        box = in_parts(truth.boxes_xyxy[truth.frame_indices.tolist().index(frame)], sample)
        label = fo.Detection(label=truth.phrase, bounding_box=box)
        sample.frames[frame + 1]["marks"] = fo.Detections(detections=[label])
    sample.save()


def in_parts(box_xyxy: Any, sample: Any) -> list[float]:
    if sample.metadata is None:
        sample.compute_metadata()
    width, height = sample.metadata.frame_width, sample.metadata.frame_height
    x0, y0, x1, y1 = box_xyxy.tolist()
    return [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]


@pytest.mark.parametrize("kills", [1, pytest.param(KILLS, marks=pytest.mark.slow)])
def test_marked_objects_killed_end_as_uninterrupted(
    kills: int, zygote: Zygote, moments: random.Random, videos: Any, fo: ModuleType
) -> None:
    """The way back is part of it: one object is marked on the first frame, one in the middle."""
    settings = {"field": "flock", "every_frames": 2, "options": {"stop": 8}}
    for name in ("whole", "cut"):
        mark(fo, videos(name, "hill.mp4").first(), frames=(0, 5))
    began = time.monotonic()
    assert zygote.wait(zygote.call("prompt_dataset", "whole", "marks", **settings)) == 0, zygote.log.read_text()
    seconds, whole = time.monotonic() - began, zygote.outcome()
    for _ in range(kills):
        pid = zygote.call("prompt_dataset", "cut", "marks", **settings)
        if not kill_after_a_checkpoint(zygote, moments, pid, within=0.4 * seconds):
            break
    assert zygote.wait(zygote.call("prompt_dataset", "cut", "marks", **settings)) == 0, zygote.log.read_text()
    (video,) = zygote.outcome()["videos"]
    assert video["was_done"] or video == whole["videos"][0]
    assert labels_of(fo.load_dataset("cut")) == labels_of(fo.load_dataset("whole"))
    assert sum(len(frame) for frame in labels_of(fo.load_dataset("cut"))["tracks"][0]) == 2 * 8
    (job,) = jobs.list_jobs(dataset="cut")
    assert job.state is jobs.JobState.FINISHED
    assert not list(zygote.home.glob(f"jobs/{job.job_id}/checkpoints"))


def write_tracks_of_another_tool(fo: ModuleType, dataset: Any) -> None:
    """True tracks of frames 41 to 90, of which two exchange their objects at 61, as plain detections with an index."""
    called = {1: 2, 2: 1}
    for sample in dataset:
        found: dict[int, list[Any]] = {}
        for track in demo_ground_truth():
            for frame, box in zip(track.frame_indices.tolist(), track.boxes_xyxy, strict=True):
                if not 40 <= frame < 90:
                    continue
                index = called.get(track.track_id, track.track_id) if frame >= 60 else track.track_id
                label = fo.Detection(label=track.phrase, bounding_box=in_parts(box, sample), index=index)
                found.setdefault(frame + 1, []).append(label)
        for number, detections in found.items():
            sample.frames[number]["theirs"] = fo.Detections(detections=detections)
        sample.save()


@pytest.mark.parametrize("dry_run", [False, True], ids=["repair", "report"])
@pytest.mark.parametrize("kills", [1, pytest.param(KILLS, marks=pytest.mark.slow)])
def test_audit_killed_ends_as_uninterrupted(
    kills: int, dry_run: bool, zygote: Zygote, moments: random.Random, videos: Any, fo: ModuleType
) -> None:
    settings = {"field": "flock", "every_frames": 10, "dry_run": dry_run}
    for name in ("whole", "cut"):
        write_tracks_of_another_tool(fo, videos(name, "hill.mp4", "valley.mp4"))
    began = time.monotonic()
    assert zygote.wait(zygote.call("repair_dataset", "whole", "theirs", **settings)) == 0, zygote.log.read_text()
    seconds, whole = time.monotonic() - began, zygote.outcome()
    assert [len(video["findings"]) > 0 for video in whole["videos"]] == [True, True]
    was_killed = False
    for _ in range(kills):
        pid = zygote.call("repair_dataset", "cut", "theirs", **settings)
        if not kill_after_a_checkpoint(zygote, moments, pid, within=0.4 * seconds):
            break
        was_killed = True
    if was_killed:
        assert zygote.wait(zygote.call("repair_dataset", "cut", "theirs", **settings)) == 0, zygote.log.read_text()
    outcome = zygote.outcome()
    if dry_run:
        assert outcome["videos"] == whole["videos"]
        return
    for ours, theirs in zip(outcome["videos"], whole["videos"], strict=True):
        assert ours["was_done"] or ours == theirs
    assert labels_of(fo.load_dataset("cut")) == labels_of(fo.load_dataset("whole"))


def labels_of(dataset: Any) -> dict[str, Any]:
    """Everything that was written, by sample and frame, but the ids that the database gives to single labels."""
    dataset.reload()
    frames = dataset.values("frames.flock.detections")
    events = dataset.values("flock_events.detections")
    return {
        "tracks": [[[plain(label) for label in found or []] for found in sample] for sample in frames],
        "events": [[plain(label) for label in sample] for sample in events],
    }


def plain(label: Any) -> dict[str, Any]:
    found = {k: v for k, v in label.to_dict().items() if k != "_id"}
    assert "instance" not in found or found["instance"]["_id"]
    return found
