"""Unrelated images of different sizes, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

import fiftyone_plugin as shepherd
from fiftyone_plugin.cli import main
from fiftyone_plugin.synthetic.scenes import flock

SIZES = ((320, 256), (240, 192))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One frame each of two flocks, the second one smaller, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    for number, size in enumerate(SIZES):
        (frame,) = flock(201 + number, frames=1).source.frames()
        Image.fromarray(frame.image_rgb).resize(size).save(folder / f"photo{number}.png")
    (folder / "photo9.jpg").write_text("not an image")
    return folder


def test_images_of_different_sizes_are_segmented(photos: Path) -> None:
    failures: list[str] = []
    results = list(shepherd.segment(photos, "sheep. dog.", on_failure=failures.append))
    assert [(r.video.width_px, r.video.height_px) for r in results] == list(SIZES)
    assert all(r.tracks and r.encounters == () and r.warnings == () for r in results)
    assert all(t.frame_indices.tolist() == [0] for r in results for t in r.tracks)
    (line,) = failures
    assert "photo9.jpg" in line


def test_unreadable_image_is_an_error_unless_somebody_listens(photos: Path) -> None:
    with pytest.raises(shepherd.InputError, match=r"photo9\.jpg"):
        list(shepherd.segment([photos / "photo9.jpg"], "sheep."))


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(shepherd.InputError, match="holds no image"):
        list(shepherd.segment(tmp_path, "sheep."))


def test_command_writes_coco_instances(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "found.json"
    command = ["track", str(photos), "--images", "--prompt", "sheep. dog.", "--output", str(output), "--json"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert printed["images"] == 2
    assert printed["failures"] == 1
    assert "photo9.jpg" in err
    # pycocotools is the judge of the format.
    found = COCO(str(output))
    capsys.readouterr()
    assert len(found.anns) == printed["objects"] > 0
    for annotation in found.anns.values():
        image = found.imgs[annotation["image_id"]]
        assert annotation["segmentation"]["size"] == [image["height"], image["width"]]
        assert int(coco.area(annotation["segmentation"])) == annotation["area"] > 0


@pytest.mark.parametrize("extra", [["--dataset", "x"], ["--resume"], ["--stop", "3"]])
def test_what_does_not_go_with_images_is_refused(
    extra: list[str], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["track", str(photos), "--images", "--prompt", "sheep.", *extra]) == 2
    assert f"{extra[0]} does not go with --images" in capsys.readouterr().err
