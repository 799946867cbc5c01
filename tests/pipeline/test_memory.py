"""The highest memory of a process is its own, in MiB, on every system."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin import pipeline
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.pipeline import memory
from fiftyone_plugin.pipeline.memory import peak_memory_mb, trim_memory, trimmed
from fiftyone_plugin.synthetic.fakes import ScriptedEmbedder
from fiftyone_plugin.types import Seed


@pytest.fixture
def getrusage(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 * 2**20, in whatever unit the system has."""
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3 * 2**20))


def test_peak_stays_when_memory_is_given_back() -> None:
    block = np.ones(2**28, np.uint8)
    size = block.nbytes / 2**20
    assert peak_memory_mb() > size
    del block
    assert peak_memory_mb() > size


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
def test_peak_of_a_process_is_not_that_of_the_one_that_started_it() -> None:
    block = np.ones(2**29, np.uint8)
    code = "from fiftyone_plugin.pipeline.memory import peak_memory_mb; print(peak_memory_mb())"
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert 0 < float(child.stdout) < block.nbytes / 2**20


@pytest.mark.usefixtures("getrusage")
@pytest.mark.parametrize(("platform", "expected"), [("darwin", 3.0), ("freebsd14", 3072.0)])
def test_peak_without_a_status_file_is_in_the_unit_of_the_system(
    platform: str, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes on macOS, KiB elsewhere."""
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_memory_mb() == expected


@pytest.mark.usefixtures("getrusage")
@pytest.mark.parametrize(
    ("status", "expected"),
    [("Name:\tpython\nVmHWM:\t    2048 kB\n", 2.0), ("Name:\tpython\n", 3072.0)],
    ids=["there", "left out"],
)
def test_peak_is_read_from_the_status_file_where_it_says(
    status: str, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some sandboxes leave the line out."""
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "status").write_text(status)
    assert peak_memory_mb() == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library's own way")
def test_what_was_freed_between_what_is_kept_is_given_back() -> None:
    """A process of its own: 100 MiB in pieces of 64 KiB, of which every second page-sized neighbour stays."""
    code = """
import numpy as np
from fiftyone_plugin.pipeline.memory import trim_memory

def resident_mb():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))

freed, kept = [], []
for _ in range(1600):
    freed.append(np.ones(2**16, np.uint8))
    kept.append(np.ones(2**12, np.uint8))
del freed
before = resident_mb()
print(int(trim_memory()), before - resident_mb())
"""
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    could, given_back_mb = child.stdout.split()
    assert not int(could) or float(given_back_mb) > 50


def test_memory_stays_as_it_is_where_the_system_cannot_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    memory._malloc_trim.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not trim_memory()
    memory._malloc_trim.cache_clear()


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry whenever memory is given back."""
    seen: list[int] = []
    monkeypatch.setattr(memory, "trim_memory", lambda: seen.append(1))
    return seen


def test_walks_give_back_after_every_ten_frames_and_hand_all_of_them_on(trims: list[int]) -> None:
    assert list(trimmed(range(35))) == list(range(35))
    assert len(trims) == 3


def test_tracking_an_audit_and_following_give_memory_back_while_they_walk(
    flock: Any, scripted_models: Any, trims: list[int]
) -> None:
    frames = flock.info.frame_count
    models = scripted_models(flock)
    seed = pipeline.ObjectPrompt(0, "sheep", Seed(1, box_xyxy=flock.truth()[0].boxes_xyxy[0]))
    options = TrackingOptions()
    walks: tuple[Callable[[], object], ...] = (
        lambda: pipeline.track(flock, "sheep.", backends=models),
        lambda: pipeline.repair(flock, flock.truth(), embedder=ScriptedEmbedder()),
        lambda: pipeline.follow(flock, [seed], options, propagator=models.propagator, embedder=models.embedder),
    )
    for walk in walks:
        trims.clear()
        walk()
        assert len(trims) >= frames // 10
