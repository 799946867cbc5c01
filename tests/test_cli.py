"""The command line: exit codes, one-line errors, JSON keys, and what goes to which stream.

Everything between the command line and the models is real; the models are scripted, and know the test video.
"""

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from fiftyone_plugin import __version__, api, cli, exporters, jobs, pipeline
from fiftyone_plugin.config import PRESETS, SPEED_PRESETS, PropagationOptions
from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.pipeline import Backends, Progress
from fiftyone_plugin.synthetic.fakes import ScriptedDetector, ScriptedEmbedder, ScriptedPropagator
from fiftyone_plugin.types import Source, Track
from fiftyone_plugin.video import open_source

FRAMES = 12
SCORES = {"HOTA", "AssA", "DetA", "IDF1", "MOTA", "IDSW", "Frag"}
TRACK_KEYS = {"frames", "tracks", "encounters", "repairs", "needs_review", "seconds", "peak_memory_mb"}
REPAIR_KEYS = {"tracks_before", "tracks_after", "encounters", "repairs", "needs_review"}


def true_sheep(frames: int = FRAMES) -> Track:
    """The bright square of the test video."""
    masks = np.zeros((frames, 48, 64), np.bool_)
    for index in range(frames):
        masks[index, 10:20, 5 + index : 15 + index] = True
    ones = np.ones(frames, np.float32)
    return Track(
        track_id=1,
        phrase="sheep",
        frame_indices=np.arange(frames),
        boxes_xyxy=np.array([[5 + i, 10, 15 + i, 20] for i in range(frames)], np.float32),
        masks=tuple(encode_mask(m) for m in masks),
        scores=ones,
        mask_scores=ones,
        identity_confidence=ones,
        sources=(Source.SEED, *[Source.PROPAGATED] * (frames - 1)),
    )


class Shell:
    """Runs a command in this process, and keeps what it printed."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: object) -> int:
        self._capfd.readouterr()
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        self.out, self.err = self._capfd.readouterr()
        return code

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object and nothing else."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def complaint(self) -> str:
        """Standard error, which must be one line."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("shepherd: ")
        return lines[0]


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capfd)


@pytest.fixture
def models(video_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripted models in place of those that a run would load."""
    truth = (true_sheep(),)
    made = Backends(ScriptedDetector(truth, open_source(video_path)), ScriptedPropagator(truth), ScriptedEmbedder())
    monkeypatch.setattr(Backends, "load", lambda _: made)


@pytest.fixture
def tracks_path(tmp_path: Path, video_path: Path) -> Path:
    """The true track as a MOT file."""
    path = tmp_path / "given.txt"
    exporters.export_tracks((true_sheep(),), open_source(video_path).info, path, "mot")
    return path


# What works


@pytest.mark.usefixtures("models")
def test_track_prints_the_keys_of_the_contract(shell: Shell, video_path: Path) -> None:
    assert shell("track", video_path, "--prompt", "sheep. dog.", "--json") == 0
    assert set(shell.json) == TRACK_KEYS
    assert (shell.json["frames"], shell.json["tracks"]) == (FRAMES, 1)
    assert shell.json["seconds"] > 0
    assert shell.json["peak_memory_mb"] > 0


@pytest.mark.usefixtures("models")
def test_track_tells_people_what_it_found(shell: Shell, video_path: Path) -> None:
    assert shell("track", video_path, "--prompt", "sheep") == 0
    assert shell.out.startswith("1 tracks in 12 frames")
    assert "sheep 1: 12 frames, 0 to 11" in shell.out
    assert shell.err == ""


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("repair", [True, False], ids=["repair", "no repair"])
def test_track_writes_tracks_and_report(shell: Shell, video_path: Path, tmp_path: Path, repair: bool) -> None:
    out, report = tmp_path / "new" / "tracks.txt", tmp_path / "report.json"
    flags = [] if repair else ["--no-repair"]
    assert shell("track", video_path, "--prompt", "sheep", "--output", out, "--report", report, *flags) == 0
    first = out.read_text().splitlines()[0].split(",")
    # Frame and id from 1, then left, top, width, height in pixels from 0.
    assert [float(v) for v in first[:6]] == [1, 1, 5, 10, 10, 10]
    written = json.loads(report.read_text())
    assert set(written) >= TRACK_KEYS | {"video", "settings", "warnings", "track_list", "decision_list", "repair_list"}
    assert written["settings"]["identity"]["repair"] is repair
    assert str(out) in shell.out


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", ["tracks.txt", "tracks.json", "tracks.xml", "masks", "drawn.mp4"])
def test_track_writes_every_format_by_the_name_of_the_file(
    shell: Shell, video_path: Path, tmp_path: Path, name: str
) -> None:
    flags = ["--format", "davis"] if name == "masks" else []
    assert shell("track", video_path, "--prompt", "sheep", "--output", tmp_path / name, *flags) == 0
    assert (tmp_path / name).exists()
    if name.endswith(".mp4"):
        with av.open(str(tmp_path / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == FRAMES
    else:
        (track,) = exporters.import_tracks(tmp_path / name)
        assert len(track) == FRAMES


@pytest.mark.usefixtures("models")
def test_track_frame_range_is_half_open_and_zero_based(shell: Shell, video_path: Path) -> None:
    assert shell("track", video_path, "--prompt", "sheep", "--start", 3, "--stop", 7) == 0
    assert "sheep 1: 4 frames, 3 to 6" in shell.out


@pytest.mark.usefixtures("models")
def test_prompt_that_finds_nothing_is_no_error_and_said(shell: Shell, video_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "tracks.txt"
    assert shell("track", video_path, "--prompt", "unicorn", "--json", "--output", out) == 0
    assert shell.json["tracks"] == 0
    assert shell.complaint == "shepherd: nothing found for 'unicorn': zero tracks"
    assert out.read_text() == ""


def test_options_reach_the_pipeline(
    shell: Shell, video_path: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (
        "--models fast --detector groundingdino-py:tiny --embedder colour+reid --redetect-every 8 --box-threshold 0.4 "
        "--text-threshold 0.1 --max-tracks 3 --start 2 --stop 9 --device cpu"
    )
    assert shell("track", video_path, "--prompt", "sheep", *arguments.split()) == 0
    ((prompt, options),) = scripted.calls
    assert prompt == "sheep"
    assert options.models == replace(PRESETS["fast"], detector="groundingdino-py:tiny", embedder="colour+reid")
    assert (options.detection.box_threshold, options.detection.text_threshold) == (0.4, 0.1)
    assert (options.association.redetect_every_frames, options.association.max_tracks) == (8, 3)
    assert (options.start, options.stop, options.device) == (2, 9, "cpu")
    assert options.identity.repair is True


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", PropagationOptions()),
        ("--preset speed", SPEED_PRESETS["speed"]),
        ("--preset speed --frame-stride 3", replace(SPEED_PRESETS["speed"], frame_stride=3)),
        ("--preset balanced --image-scale 0.5", replace(SPEED_PRESETS["balanced"], image_scale=0.5)),
        (
            "--memory-frames 2 --objects-per-batch 4 --encode-batch 2 --no-graphs --no-kernels",
            PropagationOptions(
                memory_frames=2, objects_per_batch=4, encode_batch_frames=2, graphs=False, kernels=False
            ),
        ),
    ],
    ids=["published", "preset", "preset and stride", "preset and scale", "all others"],
)
def test_settings_of_the_propagation_reach_the_pipeline(
    arguments: str, expected: PropagationOptions, shell: Shell, video_path: Path, scripted: Any
) -> None:
    assert shell("track", video_path, "--prompt", "sheep", *arguments.split()) == 0
    ((_, options),) = scripted.calls
    assert options.propagation == expected


def test_known_counts_and_mending_reach_the_pipeline(shell: Shell, video_path: Path, scripted: Any) -> None:
    words = ["--count", "Sheep=3", "--count", "border collie=1", "--mend-masks"]
    assert shell("track", video_path, "--prompt", "sheep. border collie.", *words) == 0
    ((_, options),) = scripted.calls
    assert options.identity.counts == {"sheep": 3, "border collie": 1}
    assert options.identity.mend_masks is True


@pytest.mark.parametrize("count", ["sheep", "sheep=", "sheep=0", "=3", "sheep=few"])
def test_count_that_is_none_is_one_clear_line(count: str, shell: Shell, video_path: Path) -> None:
    assert shell("track", video_path, "--prompt", "sheep", "--count", count) == 2
    assert count in shell.complaint
    assert "must be CLASS=N" in shell.complaint


def test_repair_prints_the_keys_of_the_contract(
    shell: Shell, video_path: Path, tracks_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "repaired.txt"
    assert shell("repair", video_path, "--tracks", tracks_path, "--output", out, "--json") == 0
    assert set(shell.json) >= REPAIR_KEYS
    assert (shell.json["tracks_before"], shell.json["tracks_after"], shell.json["repairs"]) == (1, 1, 0)
    assert len(out.read_text().splitlines()) == FRAMES


def test_repair_dry_run_writes_the_report_only(
    shell: Shell, video_path: Path, tracks_path: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "repaired.txt", tmp_path / "report.json"
    code = shell("repair", video_path, "--tracks", tracks_path, "--output", out, "--report", report, "--dry-run")
    assert code == 0
    assert not out.exists()
    assert json.loads(report.read_text())["tracks"] == 1


@pytest.fixture
def audited(video_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options that `pipeline.repair` was asked for."""
    asked: list[Any] = []
    repair = pipeline.repair

    def remembering(source: Any, tracks: Any, options: Any, **more: Any) -> Any:
        asked.append(options)
        return repair(source, tracks, options, embedder=ScriptedEmbedder(), **more)

    monkeypatch.setattr(pipeline, "repair", remembering)
    return asked


def test_repair_takes_known_counts_of_classes_as_the_tracks_name_them(
    shell: Shell, video_path: Path, tmp_path: Path, audited: list[Any]
) -> None:
    theirs = tmp_path / "theirs.txt"
    tracks = (replace(true_sheep(), phrase="Sheep"), replace(true_sheep(), track_id=2, phrase="Border Collie"))
    exporters.export_tracks(tracks, open_source(video_path).info, theirs, "mot")
    counts = ["--count", "sheep=1", "--count", "border collie=2"]
    assert shell("repair", video_path, "--tracks", theirs, *counts) == 0
    assert audited[0].identity.counts == {"Sheep": 1, "Border Collie": 2}
    assert shell("repair", video_path, "--tracks", theirs, "--count", "dog=1") == 2
    assert shell.complaint == "shepherd: count of 'dog': must be of one of the classes sheep, border collie"
    assert shell("repair", video_path, "--tracks", theirs, "--count", "sheep=few") == 2
    assert "must be CLASS=N" in shell.complaint


def test_evaluate_prints_scores_at_the_top_level(shell: Shell, tracks_path: Path) -> None:
    assert shell("evaluate", "--ground-truth", tracks_path, "--predictions", tracks_path, "--json") == 0
    scores = shell.json
    assert set(scores) >= SCORES
    # Percentages and counts.
    assert {k: scores[k] for k in ("HOTA", "IDF1", "MOTA")} == pytest.approx({"HOTA": 100, "IDF1": 100, "MOTA": 100})
    assert (scores["IDSW"], scores["Frag"]) == (0, 0)
    assert shell("evaluate", "--ground-truth", tracks_path, "--predictions", tracks_path) == 0
    assert "HOTA     100.00" in shell.out


def test_demo_prints_scores_under_both_names(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo itself, with the bundled models, is tested elsewhere; here is its contract with the shell."""
    demo = importlib.import_module("fiftyone_plugin.demo")
    scores = dict.fromkeys(sorted(SCORES), 50.0)
    seen: dict[str, Any] = {}

    def run_demo(folder: Path, *, dataset: str | None, **callbacks: Any) -> Any:
        seen.update(folder=folder, dataset=dataset)
        result = pipeline.repair(open_source(demo.demo_video_path()), ())
        return demo.DemoOutcome(folder, dataset, scores, scores, result, result)

    monkeypatch.setattr(demo, "run_demo", run_demo)
    assert shell("demo", "--no-dataset", "--output", tmp_path / "shown", "--json") == 0
    assert seen == {"folder": tmp_path / "shown", "dataset": None}
    assert set(shell.json) >= {"without_repair", "with_repair"}
    assert set(shell.json["without_repair"]) == set(shell.json["with_repair"]) == SCORES
    assert shell("demo") == 0
    assert seen == {"folder": Path("demo-output"), "dataset": "shepherd-demo"}
    assert "fiftyone app launch shepherd-demo" in shell.out


def test_models_lists_backends_and_presets(shell: Shell) -> None:
    assert shell("models", "--json") == 0
    assert set(shell.json["presets"]) == set(PRESETS)
    states = {row["name"]: row["state"] for row in shell.json["models"]}
    assert states["sam2:bundled"] == "bundled"
    assert shell("models") == 0
    assert "presets (--models)" in shell.out
    assert "grounding-dino:bundled" in shell.out


def test_version_and_help_are_no_errors(shell: Shell) -> None:
    assert shell("--version") == 0
    assert shell.out == f"shepherd {__version__}\n"
    for command in ("demo", "track", "repair", "evaluate", "models", "bench"):
        assert shell(command, "--help") == 0
        assert "usage: shepherd" in shell.out


def test_bench_without_a_name_lists_them(shell: Shell) -> None:
    assert shell("bench") == 0
    assert "propagation" in shell.out.split()


@pytest.mark.usefixtures("models")
def test_progress_goes_to_stderr_and_leaves_json_alone(
    shell: Shell, video_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert shell("track", video_path, "--prompt", "sheep", "--json") == 0
    assert set(shell.json) == TRACK_KEYS
    assert "frames" in shell.err
    assert "objects" in shell.err


@pytest.fixture
def logging_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that logs."""

    def run(*_: object) -> None:
        log = logging.getLogger("fiftyone_plugin.propagators.warm_up")
        log.debug("of no interest")
        log.info("warming up: %s", "kernels")
        log.warning("graphs are off")

    monkeypatch.setattr(importlib.import_module("fiftyone_plugin.benchmarks"), "run", run)
    monkeypatch.setattr(api, "models", lambda: [run(), {"kind": "", "name": "", "state": "", "about": ""}][1:])


@pytest.mark.usefixtures("logging_bench")
def test_log_is_shown_on_stderr_once_however_often_a_command_ran(shell: Shell) -> None:
    """Also where somebody else set up the root logger."""
    log = logging.getLogger("fiftyone_plugin")
    before = (log.level, log.propagate, list(log.handlers))
    root = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(root)
    try:
        for _ in range(2):
            assert shell("bench", "any") == 0
            assert shell.err == "shepherd: warming up: kernels\nshepherd: graphs are off\n"
            assert shell.out == ""
    finally:
        logging.getLogger().removeHandler(root)
    assert (log.level, log.propagate, log.handlers) == before


@pytest.mark.usefixtures("logging_bench")
def test_log_beside_json_is_warnings_only(shell: Shell) -> None:
    assert shell("models", "--json") == 0
    assert shell.err == "shepherd: graphs are off\n"
    assert "presets" in shell.json


# What is refused, with one line and exit code 2


def refuse_network(*_: object, **__: object) -> None:
    raise OSError("no network here")


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of the hub, and nobody to ask."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.getaddrinfo", refuse_network)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(["track", "{tmp}/none.mp4", "--prompt", "a"], "none.mp4.*no such file or folder", id="no file"),
        pytest.param(["track", "{tmp}/text.mp4", "--prompt", "a"], "text.mp4", id="no video"),
        pytest.param(["track", "{tmp}/empty", "--prompt", "a"], "empty", id="empty folder"),
        pytest.param(["track", "{video}", "--prompt", " . , "], "names no class.*sheep. dog.", id="empty prompt"),
        pytest.param(
            ["track", "{video}", "--prompt", "a", "--detector", "yolo"],
            "detector 'yolo': must be one of .*grounding-dino",
            id="unknown detector",
        ),
        pytest.param(
            ["track", "{video}", "--prompt", "a", "--propagator", "sam2:huge"], "sam2:huge.*large", id="variant"
        ),
        pytest.param(
            ["repair", "{video}", "--tracks", "{mot}", "--embedder", "nose"], "embedder 'nose'", id="unknown embedder"
        ),
        pytest.param(
            ["track", "{video}", "--prompt", "a", "--start", "12"], "start = 12 .*12 frames", id="start at the end"
        ),
        pytest.param(["track", "{video}", "--prompt", "a", "--stop", "99"], "stop = 99 .*12 frames", id="stop"),
        pytest.param(
            ["track", "{video}", "--prompt", "a", "--start", "5", "--stop", "5"], "stop = 5 .*must", id="no frame"
        ),
        pytest.param(["track", "{video}", "--prompt", "a", "--box-threshold", "2"], "box_threshold = 2", id="range"),
        pytest.param(["track", "{video}", "--prompt", "a", "--max-tracks", "0"], "max_tracks = 0", id="max tracks"),
        pytest.param(
            ["track", "{video}", "--prompt", "a", "--output", "{tmp}/x.txt", "--format", "avi"],
            "format = 'avi': must be one of mot",
            id="format",
        ),
        pytest.param(
            ["track", "{video}", "--prompt", "a", "--output", "{tmp}/text.mp4/x.txt"], "text.mp4", id="output in a file"
        ),
        pytest.param(
            ["track", "dataset:none", "--prompt", "a", "--output", "{tmp}/x.txt"],
            "--output goes with a video",
            id="both",
        ),
        pytest.param(["repair", "{video}", "--tracks", "{tmp}/none.txt"], "none.txt", id="no tracks"),
        pytest.param(
            ["repair", "dataset:none", "--tracks", "theirs", "--checkpoint", "{tmp}/state"],
            "--checkpoint goes with a video.*SHEPHERD_HOME",
            id="checkpoint of a dataset",
        ),
        pytest.param(
            ["repair", "dataset:none", "--tracks", "theirs", "--output", "{tmp}/x.txt"],
            "--output goes with a video",
            id="output of a dataset",
        ),
        pytest.param(["repair", "{video}", "--tracks", "{tmp}/text.mp4"], "text.mp4", id="no track file"),
        pytest.param(["repair", "{tmp}/none.mp4", "--tracks", "{mot}"], "none.mp4", id="tracks without a video"),
        pytest.param(
            ["evaluate", "--ground-truth", "{tmp}/none.txt", "--predictions", "{mot}"], "none.txt", id="no truth"
        ),
        pytest.param(["bench", "weather"], "benchmark 'weather': must be one of", id="benchmark"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    shell: Shell, tmp_path: Path, video_path: Path, tracks_path: Path, arguments: Sequence[str], complaint: str
) -> None:
    (tmp_path / "text.mp4").write_text("this is no video, and no track file")
    (tmp_path / "empty").mkdir()
    filled = [a.format(tmp=tmp_path, video=video_path, mot=tracks_path) for a in arguments]
    assert shell(*filled) == 2
    assert shell.out == ""
    assert "Traceback" not in shell.err
    assert re.search(complaint, shell.complaint)


@pytest.mark.usefixtures("no_network")
def test_hub_model_without_network_names_what_to_do(shell: Shell, video_path: Path) -> None:
    assert shell("track", video_path, "--prompt", "sheep", "--models", "fast") == 2
    assert "neither cached nor reachable" in shell.complaint
    assert "use the bundled models" in shell.complaint
    assert shell.out == ""


@pytest.mark.parametrize(
    "arguments",
    [[], ["trak"], ["track"], ["track", "x.mp4"], ["track", "x.mp4", "--prompt", "a", "--models", "huge"]],
    ids=["nothing", "unknown command", "no source", "no prompt", "unknown preset"],
)
def test_misused_command_is_explained_with_exit_code_2(shell: Shell, arguments: Sequence[str]) -> None:
    assert shell(*arguments) == 2
    assert "usage: shepherd" in shell.err
    assert shell.out == ""


@pytest.mark.usefixtures("models")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("flag", ["--output", "--report"])
def test_full_disk_while_writing_is_one_line_and_loses_no_earlier_file(
    shell: Shell, video_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    target = tmp_path / "result.json"
    target.write_text("of an earlier run")

    def mkstemp(*, prefix: str, suffix: str, dir: Path) -> tuple[int, str]:
        path = Path(dir) / f"{prefix}full{suffix}"
        path.symlink_to("/dev/full")
        return os.open(os.devnull, os.O_RDONLY), str(path)

    monkeypatch.setattr("tempfile.mkstemp", mkstemp)
    assert shell("track", video_path, "--prompt", "sheep", flag, target) == 2
    assert os.strerror(errno.ENOSPC) in shell.complaint
    assert "result.json" in shell.complaint
    assert target.read_text() == "of an earlier run"
    assert list(tmp_path.iterdir()) == [target]


def test_output_in_a_read_only_folder_is_refused_before_the_work(
    shell: Shell, video_path: Path, tmp_path: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asked for, not made: root, who runs many a test, may write into read-only folders.
    monkeypatch.setattr("os.access", lambda *_: False)
    assert shell("track", video_path, "--prompt", "sheep", "--output", tmp_path / "x.txt") == 2
    assert "no folder that can be written to" in shell.complaint
    assert scripted.calls == []


def test_error_of_our_own_making_keeps_its_traceback(
    shell: Shell, video_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the user can mend is one line; a bug must not hide."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "track", fail)
    with pytest.raises(ZeroDivisionError):
        shell("track", video_path, "--prompt", "sheep")


# Interrupted, and read by somebody who goes away


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Press Ctrl-C when so many frames are done."""
    bar = cli._Bar.__call__

    def arm(frames: int, *, stage: str = "track") -> None:
        def press(self: Any, progress: Any) -> None:
            bar(self, progress)
            if progress.stage == stage and progress.frames_done == frames:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(cli._Bar, "__call__", press)

    return arm


def test_bar_on_a_terminal_names_the_stage_and_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.sys.stderr, "isatty", lambda: True, raising=False)
    shown: list[str] = []
    with cli._Bar() as bar:
        monkeypatch.setattr(bar._bar, "set_description", shown.append)
        for stage, step in (("track", 0), ("fill", 0), ("fill", 0), ("fill", 1)):
            bar(Progress(9, 10, 10, 3, stage, 1.0, step, 2 if stage == "fill" else 0))
    assert shown == ["track", "fill 1/2", "fill 2/2"]


@pytest.mark.usefixtures("models")
def test_interrupted_run_writes_what_was_finished(
    shell: Shell, video_path: Path, tmp_path: Path, interrupt_at: Callable[..., None]
) -> None:
    interrupt_at(5)
    out = tmp_path / "tracks.txt"
    handler = signal.getsignal(signal.SIGINT)
    assert shell("track", video_path, "--prompt", "sheep", "--output", out, "--json") == 130
    assert shell.json["frames"] == 5
    assert len(out.read_text().splitlines()) == 5
    assert "stopped before frame 5" in shell.err
    assert signal.getsignal(signal.SIGINT) is handler


def test_first_signal_ends_a_benchmark_at_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmarks = importlib.import_module("fiftyone_plugin.benchmarks")

    def run(name: str, arguments: list[str]) -> None:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")

    monkeypatch.setattr(benchmarks, "run", run)
    assert shell("bench", "flocks") == 130
    assert shell.err.splitlines() == ["shepherd: interrupted"]


@pytest.mark.usefixtures("models")
def test_second_interrupt_ends_at_once(
    shell: Shell, video_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_twice(self: Any, progress: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cli._Bar, "__call__", press_twice)
    out = tmp_path / "tracks.txt"
    assert shell("track", video_path, "--prompt", "sheep", "--output", out) == 130
    assert shell.err.splitlines()[-1] == "shepherd: interrupted"
    assert not out.exists()


# Jobs: stopped, cancelled, resumed


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("checkpoint", [[], ["--checkpoint", "state"]], ids=["home", "folder"])
def test_interrupted_run_goes_on_with_resume_and_ends_as_uninterrupted(
    shell: Shell,
    video_path: Path,
    tmp_path: Path,
    interrupt_at: Callable[..., None],
    checkpoint: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    track = ["track", video_path, "--prompt", "sheep", *checkpoint]
    assert shell("track", video_path, "--prompt", "sheep", "--output", "whole.json") == 0
    interrupt_at(5)
    assert shell(*track, "--output", "cut.json") == 130
    assert "--resume goes on from there" in shell.err
    assert Path("cut.json").read_bytes() != Path("whole.json").read_bytes()
    interrupt_at(0)
    assert shell(*track, "--output", "cut.json", "--resume", "--json") == 0
    assert shell.err == ""
    assert shell.json["frames"] == FRAMES
    assert Path("cut.json").read_bytes() == Path("whole.json").read_bytes()


@pytest.mark.usefixtures("audited")
@pytest.mark.parametrize("checkpoint", [[], ["--checkpoint", "state"]], ids=["home", "folder"])
def test_interrupted_audit_goes_on_with_resume_and_ends_as_uninterrupted(
    shell: Shell,
    video_path: Path,
    tracks_path: Path,
    tmp_path: Path,
    interrupt_at: Callable[..., None],
    checkpoint: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    repair = ["repair", video_path, "--tracks", tracks_path, *checkpoint]
    assert shell("repair", video_path, "--tracks", tracks_path, "--output", "whole.json") == 0
    interrupt_at(5, stage="audit")
    assert shell(*repair, "--dry-run", "--json") == 130
    assert shell.json["frames"] == 5
    assert "--resume goes on from there" in shell.err
    assert shell("jobs") == 0
    assert "Audit 1 tracks of" in shell.out
    interrupt_at(0)
    told: list[int] = []
    monkeypatch.setattr(cli._Bar, "__call__", lambda _, progress: told.append(progress.frames_done))
    assert shell(*repair, "--output", "cut.json", "--resume", "--json") == 0
    assert shell.err == ""
    assert told == list(range(6, FRAMES + 1))
    assert Path("cut.json").read_bytes() == Path("whole.json").read_bytes()


@pytest.mark.usefixtures("audited")
def test_audit_without_resume_or_of_other_tracks_begins_and_says_so(
    shell: Shell, video_path: Path, tracks_path: Path, interrupt_at: Callable[..., None]
) -> None:
    repair = ["repair", video_path, "--tracks", tracks_path]
    interrupt_at(5, stage="audit")
    assert shell(*repair) == 130
    interrupt_at(0)
    assert shell(*repair, "--count", "sheep=1", "--resume") == 0
    assert shell.complaint == "shepherd: no checkpoint of this run (same source, tracks and settings): begins anew"
    assert shell(*repair) == 0
    assert "--resume would go on" in shell.complaint


@pytest.mark.usefixtures("models")
def test_sigterm_is_taken_like_an_interrupt(shell: Shell, video_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a scheduler or a container sends it before it kills."""

    def terminate(self: Any, progress: Any) -> None:
        if progress.stage == "track" and progress.frames_done == 5:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(cli._Bar, "__call__", terminate)
    assert shell("track", video_path, "--prompt", "sheep", "--json") == 130
    assert shell.json["frames"] == 5


@pytest.mark.usefixtures("models")
def test_resume_without_a_checkpoint_says_so_and_begins(shell: Shell, video_path: Path) -> None:
    assert shell("track", video_path, "--prompt", "sheep", "--resume", "--json") == 0
    assert "begins anew" in shell.complaint
    assert shell.json["frames"] == FRAMES


@pytest.mark.usefixtures("models")
def test_checkpoint_of_other_settings_is_refused(
    shell: Shell, video_path: Path, tmp_path: Path, interrupt_at: Callable[..., None]
) -> None:
    track = ["track", video_path, "--checkpoint", tmp_path / "state"]
    interrupt_at(5)
    assert shell(*track, "--prompt", "sheep") == 130
    interrupt_at(0)
    assert shell(*track, "--prompt", "dog", "--resume") == 2
    assert re.search("prompt: 'sheep' there, 'dog' here", shell.complaint)
    assert shell(*track, "--prompt", "dog") == 0
    assert "--resume would go on" in shell.err


@pytest.mark.usefixtures("models")
def test_job_is_listed_cancelled_and_forgotten(shell: Shell, video_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancel(self: Any, progress: Any) -> None:
        if progress.frames_done == 5:
            (job,) = jobs.list_jobs()
            assert job.state is jobs.JobState.RUNNING
            jobs.cancel(job.job_id)

    monkeypatch.setattr(cli._Bar, "__call__", cancel)
    assert shell("track", video_path, "--prompt", "sheep", "--json") == 130
    assert shell.json["frames"] == 5
    assert shell("jobs", "--json") == 0
    (job,) = shell.json["jobs"]
    assert (job["state"], job["is_resumable"], job["progress"]["frames_done"]) == ("cancelled", True, 5)
    assert shell("jobs") == 0
    assert shell.out.startswith(f"{job['job_id']}\n  Track 'sheep' in ")
    assert shell("jobs", "--cancel", job["job_id"]) == 2
    assert "nothing to cancel" in shell.complaint
    assert shell("jobs", "--forget", job["job_id"]) == 0
    assert shell("jobs") == 0
    assert shell.out == "no jobs\n"
    assert shell("jobs", "--forget", job["job_id"]) == 2


@pytest.mark.usefixtures("models")
def test_progress_without_a_terminal_is_a_line_now_and_then(
    shell: Shell, video_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_TELL_SECONDS", 0.0)
    assert shell("track", video_path, "--prompt", "sheep", "--json") == 0
    assert re.match(r"shepherd: frame 1 of 12, 1 objects", shell.err.splitlines()[0])
    assert len(shell.err.splitlines()) == FRAMES + 1


def shepherd(*arguments: object, **streams: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fiftyone_plugin.cli", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **streams)


def test_reader_that_goes_away_is_no_error(tracks_path: Path) -> None:
    """As in `shepherd evaluate ... | true`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = ("evaluate", "--ground-truth", tracks_path, "--predictions", tracks_path)
    with shepherd(*command, stdout=write_end) as process:
        os.close(write_end)
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_standard_output_on_a_full_disk_is_one_line(tracks_path: Path) -> None:
    command = ("evaluate", "--ground-truth", tracks_path, "--predictions", tracks_path, "--json")
    with Path("/dev/full").open("w") as full, shepherd(*command, stdout=full) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.splitlines() == [f"shepherd: cannot write the result to standard output: {os.strerror(errno.ENOSPC)}"]
