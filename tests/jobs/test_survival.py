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
from fiftyone_plugin.bundled.demo import demo_video_path

pytestmark = [pytest.mark.slow, pytest.mark.fiftyone]

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
    return {k: v for k, v in found.items() if k not in ("seconds", "peak_memory_mb")}


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
