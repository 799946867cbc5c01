from __future__ import annotations

import numpy as np
import pytest

from fiftyone_plugin.benchmarks.propagation import main, measure_memory, measure_speed, moving_boxes
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
    assert all(row.milliseconds > 0 for row in rows)
    assert rows[1].agreement > 0.99
    official, ours = (
        measure_memory(backend, objects=1, lengths=[2, 6], height_px=64, width_px=64) for backend in backends
    )
    assert official[1].held_mib > official[0].held_mib
    assert ours[1].held_mib == pytest.approx(ours[0].held_mib)


def test_benchmark_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--objects 1 --frames 1 --lengths 1 2 --height 64 --width 64"
    assert main(arguments.split()) == 0
    out = capsys.readouterr().out
    assert "| 1 | sam2:bundled |" in out
    assert "| sam2-reference:bundled | " in out
