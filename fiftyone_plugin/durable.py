"""Files that are there whole or not at all, even if the process is killed or the power fails while they are made.

Knows nothing of what is in them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_durably", "write_new_durably"]


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that a reader at any later moment finds the old content or the new one.

    The content is on the disk when this returns, and so is the name. Two processes must not write one path at once.

    Args:
        path: In a folder that exists.
        content: All of it.

    Raises:
        OSError: No space or no permission; the old file is as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        _write(part, content)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    _settle(path.parent)


def write_new_durably(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write several files that nobody looks for yet; all are on the disk when this returns.

    Args:
        folder: Exists.
        contents: Content by file name.

    Raises:
        OSError: No space or no permission; some of the files may be there.
    """
    for name, content in contents.items():
        _write(folder / name, content)
    _settle(folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
