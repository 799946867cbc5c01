"""A run that is cut anywhere, and goes on in new objects, ends as if nothing had happened; scripted models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fiftyone_plugin import durable, pipeline
from fiftyone_plugin.config import AssociationOptions, PropagationOptions, TrackingOptions
from fiftyone_plugin.errors import JobError
from fiftyone_plugin.pipeline import Backends, Checkpointing, Progress, checkpoint
from fiftyone_plugin.pipeline.record_packing import LONG_COLUMNS
from fiftyone_plugin.pipeline.recorder import MAX_VIEWS, Record, Recorder
from fiftyone_plugin.propagators.stride import StridedPropagator
from fiftyone_plugin.synthetic.fakes import Loss, ScriptedSession, Swap
from fiftyone_plugin.types import Source, TrackingResult

OFTEN = TrackingOptions(association=AssociationOptions(redetect_every_frames=8, release_after_frames=10))


class KilledError(Exception):
    """Stands for the end of the process: nothing behind it is run."""


def run(
    source: Any, models: Backends, where: Checkpointing | None, *, killed_at: int | None = None, stop_at: int = 10**6
) -> TrackingResult:
    def on_progress(progress: Progress) -> None:
        if progress.frame_index == killed_at:
            raise KilledError

    frames_asked = 0

    def should_stop() -> bool:
        nonlocal frames_asked
        frames_asked += 1
        return frames_asked > stop_at

    return pipeline.track(
        source, "sheep", OFTEN, on_progress=on_progress, should_stop=should_stop, backends=models, checkpointing=where
    )


def flat(value: Any) -> Any:
    """Anything in a result, comparable with ``==`` to the last bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if hasattr(value, "__dataclass_fields__"):
        return [(f.name, flat(getattr(value, f.name))) for f in fields(value)]
    if isinstance(value, tuple | list):
        return [flat(v) for v in value]
    return value


def same(a: TrackingResult, b: TrackingResult) -> bool:
    return flat(replace(a, seconds=0.0, peak_memory_mb=0.0)) == flat(replace(b, seconds=0.0, peak_memory_mb=0.0))


@pytest.fixture
def busy(world: Any, block: Any) -> Any:
    """Two sheep that cross, one that comes late, one that leaves, one that is lost by the propagator."""
    red, blue, green, white = (210, 40, 40), (40, 60, 220), (40, 190, 60), (250, 250, 250)
    return world(
        [
            block("sheep", red, 5, 40, 2.0),
            block("sheep", blue, 125, 40, -2.0),
            block("sheep", green, 20, 5, 0.5, start=14),
            block("sheep", white, 100, 70, 0.3, stop=31),
        ],
        60,
    )


@pytest.fixture
def models(busy: Any, scripted_models: Callable[..., Backends]) -> Callable[[], Backends]:
    """New models each time, as another process would make them."""
    return lambda: scripted_models(busy, Swap(30, (1, 2)), Loss(40, 3), jitter_px=0.5)


@given(cuts=st.lists(st.integers(0, 59), min_size=1, max_size=3), every=st.integers(1, 25))
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_killed_anywhere_ends_as_uninterrupted(
    cuts: list[int], every: int, busy: Any, models: Callable[[], Backends], tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = run(busy, models(), None)
    assert len(whole.tracks) >= 3
    where = Checkpointing(tmp_path_factory.mktemp("run"), resume=True, every_frames=every)
    for cut in sorted(cuts):
        try:
            run(busy, models(), where, killed_at=cut)
        except KilledError:
            continue
    assert same(run(busy, models(), where), whole)


@pytest.mark.parametrize("every", [1, 4, 20])
@pytest.mark.parametrize("cut", [5, 23, 41, 58])
def test_killed_run_with_a_stride_ends_as_uninterrupted(
    cut: int, every: int, busy: Any, models: Callable[[], Backends], tmp_path: Path
) -> None:
    """Between two key frames objects are ahead of the frame, so a checkpoint waits for the next one."""

    def go(where: Checkpointing | None, killed_at: int | None = None) -> TrackingResult:
        made = models()
        strided = replace(made, propagator=StridedPropagator(made.propagator, stride=3))

        def die(progress: Progress) -> None:
            if progress.frame_index == killed_at:
                raise KilledError

        options = replace(OFTEN, propagation=PropagationOptions(frame_stride=3))
        return pipeline.track(busy, "sheep", options, on_progress=die, backends=strided, checkpointing=where)

    where = Checkpointing(tmp_path / "run", resume=True, every_frames=every)
    with pytest.raises(KilledError):
        go(where, cut)
    if cut >= every + 3:
        assert pipeline.is_checkpoint(where.folder)
    assert same(go(where), go(None))


@pytest.mark.parametrize("stop_at", [0, 1, 29, 59])
def test_stopped_run_goes_on_where_it_stopped(
    stop_at: int, busy: Any, models: Callable[[], Backends], tmp_path: Path
) -> None:
    """Stopping makes a checkpoint of its own, though the next one would be due only after frame 300."""
    where = Checkpointing(tmp_path / "run", resume=True)
    half = run(busy, models(), where, stop_at=stop_at)
    assert half.was_stopped
    assert half.frames_processed == stop_at
    seen: list[int] = []
    whole = pipeline.track(
        busy, "sheep", OFTEN, on_progress=lambda p: seen.append(p.frame_index), backends=models(), checkpointing=where
    )
    assert seen[0] == stop_at
    assert not whole.was_stopped
    assert same(whole, run(busy, models(), None))


def test_killed_while_identities_are_settled_does_not_walk_again(
    busy: Any, models: Callable[[], Backends], tmp_path: Path
) -> None:
    where = Checkpointing(tmp_path / "run", resume=True)

    def die_late(progress: Progress) -> None:
        if progress.stage == "repair":
            raise KilledError

    with pytest.raises(KilledError):
        pipeline.track(busy, "sheep", OFTEN, on_progress=die_late, backends=models(), checkpointing=where)
    stages: list[str] = []
    whole = pipeline.track(
        busy, "sheep", OFTEN, on_progress=lambda p: stages.append(p.stage), backends=models(), checkpointing=where
    )
    assert set(stages) == {"trace", "repair"}
    assert same(whole, run(busy, models(), None))


@pytest.mark.parametrize("fatal_step", [*range(1, 12), 20, 33, 47, 60])
def test_killed_in_the_middle_of_a_checkpoint_ends_as_uninterrupted(
    fatal_step: int, busy: Any, models: Callable[[], Backends], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever file was being written, half of it is there and nothing after it."""
    steps = 0
    write, replace_path, unlink = durable._write, Path.replace, Path.unlink

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == fatal_step:
            raise KilledError

    def half_write(path: Path, content: bytes) -> None:
        try:
            step()
        except KilledError:
            path.write_bytes(content[: len(content) // 2])
            raise
        write(path, content)

    where = Checkpointing(tmp_path / "run", resume=True, every_frames=9)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "_write", half_write)
        patch.setattr(Path, "replace", lambda a, b: (step(), replace_path(a, b))[1])
        patch.setattr(Path, "unlink", lambda a, missing_ok=False: (step(), unlink(a, missing_ok))[1])
        with pytest.raises(KilledError):
            run(busy, models(), where)
    assert same(run(busy, models(), where), run(busy, models(), None))


def test_time_goes_on_too(busy: Any, models: Callable[[], Backends], tmp_path: Path) -> None:
    where = Checkpointing(tmp_path / "run", resume=True)
    run(busy, models(), where, stop_at=30)
    manifest = tmp_path / "run" / "checkpoint.json"
    known = json.loads(manifest.read_text())
    known["position"]["seconds"] = 1000.0
    manifest.write_text(json.dumps(known))
    assert 1000 < run(busy, models(), where).seconds < 1060


def test_without_resume_begins_anew(busy: Any, models: Callable[[], Backends], tmp_path: Path) -> None:
    run(busy, models(), Checkpointing(tmp_path / "run"), stop_at=30)
    seen: list[int] = []
    pipeline.track(
        busy,
        "sheep",
        OFTEN,
        on_progress=lambda p: seen.append(p.frame_index),
        backends=models(),
        checkpointing=Checkpointing(tmp_path / "run"),
    )
    assert seen[0] == 0


def test_propagator_without_state_starts_over(
    busy: Any, models: Callable[[], Backends], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ScriptedSession, "state")
    where = Checkpointing(tmp_path / "run", resume=True)
    run(busy, models(), where, stop_at=30)
    assert not (tmp_path / "run").exists()
    assert same(run(busy, models(), where), run(busy, models(), None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"prompt": "sheep. dog"}, r"prompt: 'sheep' there, 'sheep\. dog' here", id="prompt"),
        pytest.param(
            {"options": replace(OFTEN, association=AssociationOptions(redetect_every_frames=9))},
            r"options\.association\.redetect_every_frames: 8 there, 9 here",
            id="options",
        ),
        pytest.param({"frame_count": 59}, r"source\.frame_count: 60 there, 59 here", id="source"),
    ],
)
def test_checkpoint_of_another_run_is_refused(
    change: dict[str, Any], message: str, busy: Any, models: Callable[[], Backends], tmp_path: Path
) -> None:
    where = Checkpointing(tmp_path / "run", resume=True)
    run(busy, models(), where, stop_at=30)
    if "frame_count" in change:
        busy.info = replace(busy.info, frame_count=change.pop("frame_count"))
    again = {"prompt": "sheep", "options": OFTEN, **change}
    with pytest.raises(JobError, match=message) as raised:
        pipeline.track(busy, again["prompt"], again["options"], backends=models(), checkpointing=where)
    assert "\n" not in str(raised.value)
    lenient = replace(where, is_strict=False)
    result = pipeline.track(busy, again["prompt"], again["options"], backends=models(), checkpointing=lenient)
    assert result.frames_processed == busy.info.frame_count
    assert any("began anew" in line for line in result.warnings)


def test_fingerprint_of_a_file_knows_its_size_and_date(video_path: Path, tmp_path: Path) -> None:
    from fiftyone_plugin.video import open_source

    copy = tmp_path / "flock.mp4"
    copy.write_bytes(video_path.read_bytes())
    before = checkpoint.fingerprint(open_source(copy), "sheep", OFTEN)
    copy.touch()
    after = checkpoint.fingerprint(open_source(copy), "sheep", OFTEN)
    assert before != after
    assert before["source"]["bytes"] == copy.stat().st_size


@pytest.mark.parametrize("what", ["checkpoint.json", "state-", "rows-", "views-"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_damaged_checkpoint_is_refused_or_left(
    what: str, how: str, busy: Any, models: Callable[[], Backends], tmp_path: Path
) -> None:
    where = Checkpointing(tmp_path / "run", resume=True, every_frames=10)
    run(busy, models(), where, stop_at=30)
    victim = next(p for p in sorted((tmp_path / "run").iterdir()) if p.name.startswith(what))
    if how == "cut":
        victim.write_bytes(victim.read_bytes()[:-20])
    else:
        victim.unlink()
    if (what, how) != ("checkpoint.json", "gone"):  # then there is none
        with pytest.raises(JobError, match="damaged"):
            run(busy, models(), where)
    assert same(replace(run(busy, models(), replace(where, is_strict=False)), warnings=()), run(busy, models(), None))


def test_checkpoint_size_follows_the_run_not_the_number_of_checkpoints(
    busy: Any, models: Callable[[], Backends], tmp_path: Path
) -> None:
    for every in (1, 30):
        run(busy, models(), Checkpointing(tmp_path / str(every), every_frames=every), stop_at=50)
    once, often = (list((tmp_path / str(every)).iterdir()) for every in (30, 1))
    assert sum(p.name.startswith("state-") for p in often) == 1
    assert len([p for p in often if p.name.startswith("views-")]) <= 8  # one for each propagated track
    rows = [sum(p.stat().st_size for p in found if p.name.startswith("views-")) for found in (once, often)]
    assert rows[0] == rows[1]


def test_disk_that_is_full_does_not_end_the_run(
    busy: Any, models: Callable[[], Backends], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_new_durably", refuse)
    result = run(busy, models(), Checkpointing(tmp_path / "run", every_frames=10))
    assert result.frames_processed == 60
    (line,) = [w for w in result.warnings if "checkpoint" in w]
    assert "No space left on device" in line


def test_long_columns_are_those_of_a_record() -> None:
    """A column that is added to `Record` is kept as a short one by itself; a renamed one must be renamed here too."""
    assert {f.name for f in fields(Record)} >= LONG_COLUMNS


def test_gallery_that_was_thinned_comes_back_as_it_is(tmp_path: Path) -> None:
    from fiftyone_plugin.pipeline import packing, record_packing

    recorder = Recorder("scripted")
    recorder.open(1, "sheep")
    for frame in range(MAX_VIEWS + 10):
        recorder.add_view(1, frame, np.full(4, frame, np.float32), 0.1 * frame)
    copy = Record("sheep")
    plain, arrays = record_packing.pack_views(recorder.records[1])
    record_packing.unpack_views(packing.unpack(json.loads(json.dumps(plain)), arrays), copy)
    assert copy.view_frames == recorder.records[1].view_frames
    assert copy.view_weights == recorder.records[1].view_weights
    assert np.array_equal(np.stack(copy.views), np.stack(recorder.records[1].views))
    assert copy.sources == [] == recorder.records[1].sources
    assert Source.SEED in tuple(Source)
