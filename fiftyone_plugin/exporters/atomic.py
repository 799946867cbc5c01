"""Writing results whole or not at all: into a temporary neighbour first, which then takes the place of the target.

Knows nothing of formats.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fiftyone_plugin.errors import OutputError

__all__ = ["check_writable", "write_atomically", "write_file", "write_folder", "write_text"]


@contextmanager
def write_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the target's folder; on success it replaces the target, on any error it is removed.

    Missing folders above the target are made.

    Raises:
        OutputError: No space, no permission, or the target is a folder.
    """
    target = Path(path)
    part: Path | None = None
    try:
        if target.is_dir():
            raise OutputError(f"{target}: is a folder: give the path of a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        # The suffix is kept: libraries choose a format by it.
        handle, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}-", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        part = Path(name)
        yield part
        part.chmod(0o666 & ~_umask())  # mkstemp makes files that nobody else may read
        part.replace(target)
    except OutputError:
        _remove(part)
        raise
    except OSError as error:
        _remove(part)
        raise OutputError(_message(target, error)) from None
    except BaseException:
        _remove(part)
        raise


def check_writable(path: str | Path) -> None:
    """Find out before the work whether a result could be written there.

    Raises:
        OutputError: The nearest folder above that exists may not be written to, or is a file.
    """
    folder = Path(path).expanduser().absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: {folder} is no folder that can be written to: give another path")


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a whole file; see `write_file`."""
    with write_file(path) as part:
        part.write_bytes(content)


def write_text(path: str | Path, lines: Iterable[str]) -> None:
    """Write lines of UTF-8 text, each with its own line end; see `write_file`."""
    with write_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)


@contextmanager
def write_folder(path: str | Path, *, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a temporary folder beside the target; on success it replaces the target, on any error it is removed.

    Args:
        path: The target. It may exist if it is empty or holds only files of an earlier run.
        is_ours: Tells the files of an earlier run from those of others, which are never deleted.

    Raises:
        OutputError: No space, no permission, or the target holds files of others.
    """
    target = Path(path)
    part: Path | None = None
    old: Path | None = None
    try:
        if target.exists():
            foreign = next((p for p in target.iterdir() if not is_ours(p)), None) if target.is_dir() else target
            if foreign is not None:
                raise OutputError(f"{target}: holds {foreign.name}, which is not ours: give a new or empty folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-", dir=target.parent))
        yield part
        part.chmod(0o777 & ~_umask())
        if target.exists():
            old = part.with_name(part.name + "-old")
            target.rename(old)
        part.rename(target)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        if old is not None and not target.exists():
            old.rename(target)
        _remove(part)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(_message(target, error)) from None
        raise


def _remove(part: Path | None) -> None:
    if part is None:
        return
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        with suppress(OSError):
            part.unlink()


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def _message(target: Path, error: OSError) -> str:
    return f"{target}: cannot be written ({error.strerror or error}): free space, or give another path"
