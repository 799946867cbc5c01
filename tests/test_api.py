"""What the front door adds to what is behind it: presets, paths, and where a state is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fiftyone_plugin as shepherd
from fiftyone_plugin import ObjectPrompt, Seed, pipeline
from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.pipeline import Checkpointing

MARK = ObjectPrompt(3, "square", Seed(1, box_xyxy=np.float32([8, 10, 18, 20])))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What `pipeline.follow` and `pipeline.repair` were asked for: positional arguments, and settings."""
    calls: list[tuple[Any, Any]] = []
    for name in ("follow", "repair"):
        monkeypatch.setattr(pipeline, name, lambda *given, **settings: calls.append((given, settings)))
    return calls


@pytest.mark.parametrize("name", ["follow", "repair"])
def test_state_is_kept_only_where_somebody_says(
    name: str, asked: list[tuple[Any, Any]], video_path: Path, tmp_path: Path
) -> None:
    call = getattr(shepherd, name)
    call(video_path, [], models="fast")
    call(str(video_path), [], checkpoint=tmp_path / "state", checkpoint_every=7, resume=True)
    (given, plain), (_, kept) = asked
    assert given[0].info.frame_count == 12
    assert given[2].models.propagator == "sam2:tiny"
    assert plain["checkpointing"] is None
    assert kept["checkpointing"] == Checkpointing(tmp_path / "state", resume=True, every_frames=7)
    with pytest.raises(OptionError, match="resume=True: say where the checkpoint is"):
        call(video_path, [], resume=True)


@pytest.mark.slow
def test_follow_killed_goes_on_with_the_real_engine(video_path: Path, tmp_path: Path) -> None:
    """The bundled model, stopped on the way back: the same masks to the last bit."""
    frames: list[int] = []

    def stop() -> bool:
        return len(frames) == 11  # nine forwards, two backwards

    state = tmp_path / "state"
    half = shepherd.follow(
        video_path, [MARK], checkpoint=state, on_progress=lambda p: frames.append(p.frame_index), should_stop=stop
    )
    assert half.was_stopped
    rest: list[int] = []
    whole = shepherd.follow(
        video_path, [MARK], checkpoint=state, resume=True, on_progress=lambda p: rest.append(p.frame_index)
    )
    assert rest == [1, 0]
    plain = shepherd.follow(video_path, [MARK])
    assert [t.masks for t in whole.tracks] == [t.masks for t in plain.tracks]
    assert [t.scores.tobytes() for t in whole.tracks] == [t.scores.tobytes() for t in plain.tracks]
