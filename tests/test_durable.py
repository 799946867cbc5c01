"""Whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fiftyone_plugin.durable import write_durably, write_new_durably


def test_content_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    for content in (b"a", b"", b"b" * 10_000):
        write_durably(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["job.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_leaves_the_old_content_and_no_part(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "job.json"
    write_durably(path, b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), refuse)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["job.json"]


def test_content_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power cut could leave the name with nothing behind it."""
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (order.append("replace"), replace(a, b))[1])
    write_durably(tmp_path / "job.json", b"new")
    assert order == ["fsync", "replace", "fsync"]


def test_several_files_at_once(tmp_path: Path) -> None:
    write_new_durably(tmp_path, {"a": b"1", "b": b"2"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}
