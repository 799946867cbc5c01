from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fiftyone_plugin.benchmarks.propagation import main, measure_memory, measure_speed, moving_boxes
from fiftyone_plugin.benchmarks.propagation_contestants import CONTESTANTS, make_contestant
from fiftyone_plugin.benchmarks.propagation_knobs import measure_knobs
from fiftyone_plugin.config import PropagationOptions
from fiftyone_plugin.registry import make_propagator


def test_drawn_video_shows_each_box_where_its_seed_is() -> None:
    video = moving_boxes(2, height_px=60, width_px=80)
    for index in range(100):
        frame, seeds = next(video)
        assert frame.index == index
        for seed in seeds[-1:]:
            x0, y0, x1, y1 = seed.box_xyxy.astype(int)
            assert 0 <= x0 < x1 <= 80
            assert 0 <= y0 < y1 <= 60
            inside = frame.image_rgb[y0:y1, x0:x1]
            assert np.all(inside == inside[0, 0])


def test_backends_agree_and_only_the_official_one_grows() -> None:
    backends = [make_propagator(name, device="cpu") for name in ("sam2-reference:bundled", "sam2:bundled")]
    rows = measure_speed(backends, objects=1, frames=2, height_px=64, width_px=64)
    assert [row.backend for row in rows] == [backend.name for backend in backends]
    assert all(min(row.milliseconds, row.processor_milliseconds) > 0 for row in rows)
    assert rows[1].agreement > 0.99
    official, ours = (
        [measure_memory(backend, objects=1, frames=frames, height_px=64, width_px=64) for frames in (2, 6)]
        for backend in backends
    )
    assert official[1].held_mib > official[0].held_mib
    assert ours[1].held_mib == pytest.approx(ours[0].held_mib)
    for row in (*official, *ours):
        assert 0 < row.host_mib <= row.host_peak_mib


@pytest.mark.parametrize("name", ["transformers", "plain-batch", "engine"])
def test_contestants_give_the_masks_of_the_official_predictor(name: str) -> None:
    """At full size, several objects: proves that all have the same weights, and that none is quick by a fault."""
    backends = [make_contestant(n, "bundled", device="cpu", is_random=False) for n in ("official", name)]
    rows = measure_speed(backends, objects=2, frames=2, height_px=180, width_px=320)
    assert rows[1].agreement > 0.99
    assert rows[1].visible > 0.4


def test_benchmark_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--objects 1 --frames 1 --lengths --height 64 --width 64"
    assert main(arguments.split()) == 0
    out = capsys.readouterr().out
    for name in CONTESTANTS:
        assert f"| 1 | {name} |" in out
    assert "tensors held" not in out


def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What this process holds, and once held, must not count."""
    here = np.ones(2**28, np.uint8)
    output = tmp_path / "memory.json"
    arguments = "--only engine --objects 1 --frames 0 --lengths 2 --height 64 --width 64 --output"
    assert main([*arguments.split(), str(output)]) == 0
    out = capsys.readouterr().out
    assert "frames/s" not in out
    (row,) = json.loads(output.read_text())["memory"]
    (own,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    assert "| engine | 2 |" in out
    assert 0 < row["host_peak_mib"] < int(own.split()[1]) / 2**10
    assert here.any()


def test_knobs_are_measured_on_speed_and_on_quality() -> None:
    settings = {"as it is": PropagationOptions(), "coarse": PropagationOptions(image_scale=0.5, frame_stride=2)}
    rows = measure_knobs(settings, spec="sam2:bundled", device="cpu", clips=1, frames=5)
    assert [row.setting for row in rows] == list(settings)
    assert rows[1].milliseconds < rows[0].milliseconds
    assert 0.5 < rows[1].mean_iou < rows[0].mean_iou
