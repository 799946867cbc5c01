"""The state of a half-done walk on disk, so that another process goes on with it and ends with the very same result.

A checkpoint is a folder::

    checkpoint.json             the manifest: what run this is, where it is, and which files belong to it
    state-00000300.safetensors  the walk, the propagator's memory, and the short part of the records; the newest only
    rows-00000300.safetensors   masks, boxes, scores and looks since the last checkpoint; never written again
    views-7-00000300.…          the gallery of one propagated track, written again when it got new views

Files are written first, and the manifest then takes the place of the old one; so at any moment it names files that are
complete. The size on disk is that of what the run holds in memory. Arrays are safetensors, the rest is JSON.

Knows nothing of jobs, datasets and progress, nor of what is in the state of a walk or a propagator.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fiftyone_plugin import __version__, registry
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.durable import write_durably, write_new_durably
from fiftyone_plugin.errors import JobError, OptionError
from fiftyone_plugin.interfaces import FrameSource, PropagationSession, ResumableSession
from fiftyone_plugin.pipeline.packing import pack, unpack
from fiftyone_plugin.pipeline.record_packing import (
    LONG_COLUMNS,
    pack_rows,
    pack_views,
    unpack_rows,
    unpack_views,
    views_mark,
)
from fiftyone_plugin.pipeline.recorder import Record, Recorder
from fiftyone_plugin.pipeline.walk import STATE_CLASSES
from fiftyone_plugin.types import Source, VideoInfo

__all__ = ["CHECKPOINT_FRAMES", "Checkpointing", "Keeper", "Position", "Resumable", "fingerprint", "is_checkpoint"]

CHECKPOINT_FRAMES = 300
"""Frames between two checkpoints, unless told otherwise."""
_FORMAT = 1
_MANIFEST = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """Where a run keeps its state, how often, and whether it begins there."""

    folder: Path
    """Made when it is needed; nothing else should be in it."""
    resume: bool = False
    """Go on from what is there. False begins anew; the first checkpoint then takes the place of the old one."""
    is_strict: bool = True
    """A checkpoint that does not fit is an error; else the run begins anew, with a warning."""
    every_frames: int = CHECKPOINT_FRAMES
    """A checkpoint is due after so many frames, 1 or more,"""
    every_seconds: float = 60.0
    """or after so many seconds, whichever comes first."""

    def __post_init__(self) -> None:
        if self.every_frames < 1:
            raise OptionError(f"frames between two checkpoints = {self.every_frames}: must be 1 or more")


@dataclass(frozen=True, slots=True)
class Position:
    """Between which two frames a run is."""

    next_frame: int
    """0-based."""
    frames_done: int = 0
    seconds: float = 0.0
    """Work so far, over all processes."""
    is_walked: bool = False
    """There is no next frame: only identities are left to be settled."""
    video: VideoInfo | None = None
    """What the source knew here; a later process does not decode all of it again."""
    warnings: tuple[str, ...] = ()
    """Likewise, of the source."""
    is_backwards: bool = False
    """The walk has turned round: `next_frame` lies before the frames that it came from."""

    def same_place(self, other: Position) -> bool:
        """Whether nothing was tracked between the two."""
        return self.name == other.name

    @property
    def name(self) -> str:
        """Of the files that are made here: no two places of one run share it."""
        return f"{self.next_frame:08d}{'-back' * self.is_backwards}{'-end' * self.is_walked}"


class Resumable(Protocol):
    """What goes through the frames of a video, and can tell what it knows between two of them."""

    def state(self) -> dict[str, Any]:
        """All that the next frames depend on, besides the session and the recorder; as `packing` takes it."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another one was."""
        ...


def is_checkpoint(folder: Path) -> bool:
    """Whether a run left a checkpoint there; whether it fits is found out when it is read."""
    return (folder / _MANIFEST).is_file()


def fingerprint(
    source: FrameSource, prompt: str, options: TrackingOptions, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What must be equal for a checkpoint to fit: prompt, options, models, version, and the source's size and date.

    Args:
        source: The video.
        prompt: Of the run; empty where there is none.
        options: Of the run.
        given: What else the run was given, such as tracks or marks, as a few plain values that differ if it does.
    """
    info = source.info
    video = {"frame_count": info.frame_count, "width_px": info.width_px, "height_px": info.height_px}
    path = Path(info.source).expanduser()
    return {
        "shepherd": __version__,
        "prompt": prompt,
        "given": dict(given or {}),
        "options": {**options.as_dict(), "device": registry.resolve_device(options.device)},
        "source": {**video, **_date_of(path)},
        "weights": {
            spec: _date_of(Path(variant).expanduser())
            for spec in asdict(options.models).values()
            if (variant := spec.partition(":")[2]) and Path(variant).expanduser().is_dir()
        },
    }


def _date_of(path: Path) -> dict[str, int]:
    """Size and date of a file, or of all files in a folder together; nothing for a source that is no path."""
    with suppress(OSError):
        found = [p.stat() for p in sorted(path.iterdir()) if p.is_file()] if path.is_dir() else [path.stat()]
        return {
            "files": len(found),
            "bytes": sum(s.st_size for s in found),
            "modified_ns": max((s.st_mtime_ns for s in found), default=0),
        }
    return {}


class Keeper:
    """Keeps a walk: brings it back from a checkpoint, and makes new ones as it goes.

    Without a place to keep it, and with a propagator that cannot tell its state, it does nothing, and the walk begins
    at the first frame.

    Args:
        where: The place; None for none.
        source: The video.
        prompt: Of the run; empty where there is none.
        options: Of the run.
        walk: A new walk.
        session: Its session; None for one that propagates nothing.
        recorder: Its recorder.
        given: What else the run was given; see `fingerprint`.
        start: First frame of the walk, 0-based; that of the options by default.
    """

    def __init__(
        self,
        where: Checkpointing | None,
        source: FrameSource,
        prompt: str,
        options: TrackingOptions,
        *,
        walk: Resumable,
        session: PropagationSession | None,
        recorder: Recorder,
        given: Mapping[str, Any] | None = None,
        start: int | None = None,
    ) -> None:
        self._where = where if session is None or isinstance(session, ResumableSession) else None
        # Through JSON, so that it can be compared with what is read.
        run = {} if self._where is None else fingerprint(source, prompt, options, given)
        self._run = json.loads(json.dumps(run))
        self._walk = walk
        self._session = session
        self._recorder = recorder
        self._start = self._tried_at = options.start if start is None else start
        self._saved_at = time.monotonic()
        self._saved: Position | None = None
        self._rows_saved: dict[int, tuple[int, int]] = {}
        self._row_files: list[str] = []
        self._view_files: dict[int, str] = {}
        self._views_saved: dict[int, tuple[int, int]] = {}
        self.warnings: list[str] = []

    def restore(self) -> Position:
        """Bring walk, session and recorder to where the checkpoint is, if it should and there is one.

        Raises:
            JobError: It belongs to another run or is damaged, and the user asked for exactly this one.
        """
        if self._where is None or not self._where.resume or not is_checkpoint(self._where.folder):
            return Position(self._start)
        try:
            return self._load(self._where.folder)
        except JobError as error:
            if self._where.is_strict:
                raise
            self.warnings.append(f"{error}; began anew")
            return Position(self._start)

    def is_due(self, frame_index: int) -> bool:
        """Whether to `save` before this frame is taken."""
        if self._where is None:
            return False
        frames = abs(frame_index - self._tried_at)
        is_late = frames > 0 and time.monotonic() - self._saved_at >= self._where.every_seconds
        return (is_late or frames >= self._where.every_frames) and self._has_state()

    def save(self, at: Position) -> None:
        """Make a checkpoint, where the propagator can; where the disk cannot, the run goes on, with a warning."""
        if self._where is None or not self._has_state() or (self._saved is not None and self._saved.same_place(at)):
            return
        self._saved_at, self._tried_at = time.monotonic(), at.next_frame
        try:
            self._save(self._where.folder, at)
        except OSError as error:
            line = f"checkpoint {self._where.folder}: cannot be written ({error.strerror}); the run goes on without"
            if line not in self.warnings:
                self.warnings.append(line)

    def turn(self, session: PropagationSession, at: Position) -> None:
        """Go on with another session from another frame, and make a checkpoint there."""
        self._session = session
        self._tried_at = at.next_frame
        self.save(at)

    def _has_state(self) -> bool:
        return self._session is None or (isinstance(self._session, ResumableSession) and self._session.has_state)

    def _save(self, folder: Path, at: Position) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self._saved is None:
            # What an earlier run left must not name files that are about to be written.
            (folder / _MANIFEST).unlink(missing_ok=True)
        suffix = f"{at.name}.safetensors"
        records = self._recorder.records
        contents = {f"state-{suffix}": _to_bytes(*pack(self._state()))}
        rows = {t: r for t, r in records.items() if self._rows_saved.get(t) != (len(r.frames), len(r.look_frames))}
        row_files, view_files = list(self._row_files), dict(self._view_files)
        if rows:
            row_files.append(f"rows-{suffix}")
            contents[row_files[-1]] = _to_bytes(*pack_rows(rows, self._rows_saved))
        views = {t: views_mark(r) for t, r in records.items() if r.views}
        for track_id, mark in views.items():
            if self._views_saved.get(track_id) != mark:
                view_files[track_id] = f"views-{track_id}-{suffix}"
                contents[view_files[track_id]] = _to_bytes(*pack_views(records[track_id]))
        write_new_durably(folder, contents)
        manifest = {
            "format": _FORMAT,
            "run": self._run,
            "position": asdict(at),
            "state": f"state-{suffix}",
            "rows": row_files,
            "views": sorted(view_files.items()),
        }
        write_durably(folder / _MANIFEST, json.dumps(manifest).encode())
        # Only now is there a manifest that names them.
        self._saved = at
        self._row_files, self._view_files, self._views_saved = row_files, view_files, views
        self._rows_saved = {t: (len(r.frames), len(r.look_frames)) for t, r in records.items()}
        _remove_all_but(folder, {_MANIFEST, f"state-{suffix}", *row_files, *view_files.values()})

    def _state(self) -> dict[str, Any]:
        short = {
            track_id: {f.name: getattr(r, f.name) for f in fields(Record) if f.name not in LONG_COLUMNS}
            for track_id, r in self._recorder.records.items()
        }
        session = self._session.state() if isinstance(self._session, ResumableSession) else None
        return {"walk": self._walk.state(), "session": session, "records": short}

    def _load(self, folder: Path) -> Position:
        manifest = self._fitting_manifest(folder)
        # All is read before anything is changed, so that a damaged file leaves a walk that can begin anew.
        state = _read(folder / manifest["state"], classes=(*STATE_CLASSES, Source))
        rows = [_read(folder / name) for name in manifest["rows"]]
        views = {track_id: _read(folder / name) for track_id, name in manifest["views"]}
        if isinstance(self._session, ResumableSession):
            self._session.load_state(state["session"])
        self._walk.load_state(state["walk"])
        records = self._recorder.records
        records.update({track_id: Record(**short) for track_id, short in state["records"].items()})
        for found in rows:
            unpack_rows(found, records)
        for track_id, found in views.items():
            unpack_views(found, records[track_id])
        self._row_files, self._view_files = manifest["rows"], dict(manifest["views"])
        self._rows_saved = {t: (len(r.frames), len(r.look_frames)) for t, r in records.items()}
        self._views_saved = {t: views_mark(r) for t, r in records.items() if r.views}
        at = manifest["position"]
        video = None if at["video"] is None else VideoInfo(**at["video"])
        self._saved = Position(**{**at, "video": video, "warnings": tuple(at["warnings"])})
        self._tried_at = self._saved.next_frame
        return self._saved

    def _fitting_manifest(self, folder: Path) -> dict[str, Any]:
        """Raise `JobError` with one line that says what does not fit."""
        try:
            manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
            version, run = manifest["format"], manifest.get("run")
        except (OSError, ValueError, KeyError, TypeError):
            raise _refusal(folder, "is damaged") from None
        if version != _FORMAT:
            raise _refusal(folder, f"has format {version}, and this version of Shepherd reads {_FORMAT}")
        if run != self._run:
            raise _refusal(folder, f"belongs to another run ({_difference(run, self._run)})")
        return manifest


def _refusal(folder: Path, reason: str) -> JobError:
    return JobError(f"checkpoint {folder}: {reason}: start over without resuming, or resume with the same settings")


def _to_bytes(plain: Any, arrays: dict[str, NDArray[Any]]) -> bytes:
    return bytes(safetensors.numpy.save(arrays, metadata={"plain": json.dumps(plain)}))


def _read(path: Path, *, classes: Sequence[type] = ()) -> Any:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it is no mapping
            return unpack(json.loads(file.metadata()["plain"]), arrays, classes=tuple(classes))
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
        raise _refusal(path.parent, f"{path.name} is missing or damaged") from None


def _difference(there: Any, here: Any, name: str = "") -> str:
    """The first thing in which two runs differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            if there.get(key) != here.get(key):
                return _difference(there.get(key), here.get(key), f"{name}.{key}".lstrip("."))
    return f"{name}: {there!r} there, {here!r} here"


def _remove_all_but(folder: Path, names: set[str]) -> None:
    """Remove what no manifest names any more; other files in the folder are left alone."""
    for path in folder.glob("*.safetensors"):
        if path.name not in names and path.name.startswith(("state-", "rows-", "views-")):
            path.unlink(missing_ok=True)
