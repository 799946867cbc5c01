import errno
import os
import stat
from pathlib import Path

import pytest

from fiftyone_plugin.errors import OutputError
from fiftyone_plugin.exporters.atomic import write_file, write_folder, write_text


def is_ours(path: Path) -> bool:
    return path.suffix == ".png"


def test_a_file_replaces_the_one_before(tmp_path):
    target = tmp_path / "new" / "a.txt"
    write_text(target, ["one\n"])
    write_text(target, ["two\n"])
    assert target.read_text() == "two\n"
    assert list(target.parent.iterdir()) == [target]


def test_a_file_has_the_permissions_of_a_plain_one(tmp_path):
    write_text(tmp_path / "a.txt", [])
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), PermissionError(13, "Permission denied")]
)
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("before")

    def lines():
        yield "half of it"
        raise error

    with pytest.raises(OutputError, match=rf"a\.txt: cannot be written \({error.strerror}\)") as caught:
        write_text(target, lines())
    assert "\n" not in str(caught.value)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    def fill():
        with write_file(tmp_path / "a.txt") as part:
            part.unlink()
            part.symlink_to("/dev/full")
            part.write_text("x" * 100_000)

    with pytest.raises(OutputError, match="No space left on device"):
        fill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_text(tmp_path / "a.txt", [])


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), write_file(tmp_path / "a.txt"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "masks"
    for names in (["1.png", "2.png"], ["3.png"]):
        with write_folder(target, is_ours=is_ours) as part:
            for name in names:
                (part / name).touch()
        assert sorted(p.name for p in target.iterdir()) == names
    assert list(tmp_path.iterdir()) == [target]


def test_files_of_others_are_never_deleted(tmp_path):
    target = tmp_path / "masks"
    target.mkdir()
    (target / "thesis.docx").touch()
    with (
        pytest.raises(OutputError, match=r"holds thesis\.docx, which is not ours"),
        write_folder(target, is_ours=is_ours),
    ):
        pass
    assert (target / "thesis.docx").exists()


def test_a_folder_that_failed_leaves_the_one_before(tmp_path):
    target = tmp_path / "masks"
    target.mkdir()
    (target / "1.png").touch()

    def fail():
        with write_folder(target, is_ours=is_ours) as part:
            (part / "2.png").touch()
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="No space"):
        fail()
    assert [p.name for p in target.iterdir()] == ["1.png"]
    assert list(tmp_path.iterdir()) == [target]
