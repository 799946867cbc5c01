"""CVAT's XML for videos, version 1.1: one ``<track>`` with a ``<box>`` or ``<mask>`` for every frame.

Every frame is a key frame, so that CVAT has nothing to interpolate; the frame after a track ends, or pauses, says
``outside="1"``. Frames are 0-based. CVAT's mask RLE runs row by row inside the box, beginning with background. Masks
come with their tightest box and empty ones are left out; the score is an attribute, sources are not kept.

The files of others are not trusted: a document type, and with it every entity, is refused.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.errors import TrackFileError
from fiftyone_plugin.exporters.atomic import write_atomically
from fiftyone_plugin.geometry import decode_mask, encode_mask, mask_boxes
from fiftyone_plugin.types import BoolArray, FloatArray, Rle, Source, Track, VideoInfo

__all__ = ["read_cvat", "write_cvat"]

_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_HULL = ("left", "top", "width", "height")


def write_cvat(path: str | Path, tracks: Sequence[Track], video: VideoInfo) -> None:
    """Write the tracks of one video.

    Raises:
        OutputError: The file cannot be written; nothing of it is left behind.
    """
    filled = sorted((t for t in tracks if len(t)), key=lambda t: t.track_id)
    length = max([video.frame_count, *(int(t.frame_indices[-1]) + 1 for t in filled)])
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    root.append(_meta(filled, video, length))
    for track in filled:
        shapes = list(_shapes(track, length))
        if shapes:
            node = ET.SubElement(root, "track", id=str(track.track_id), label=track.phrase, source="auto")
            node.extend(shapes)
    ET.indent(root)
    write_atomically(path, ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _meta(tracks: Sequence[Track], video: VideoInfo, length: int) -> ET.Element:
    meta = ET.Element("meta")
    task = ET.SubElement(meta, "task")
    for name, value in (
        ("name", video.source),
        ("size", length),
        ("mode", "interpolation"),
        ("start_frame", 0),
        ("stop_frame", max(0, length - 1)),
    ):
        ET.SubElement(task, name).text = str(value)
    labels = ET.SubElement(task, "labels")
    for phrase in sorted({t.phrase for t in tracks}):
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = phrase
        attribute = ET.SubElement(ET.SubElement(label, "attributes"), "attribute")
        for name, value in (("name", "score"), ("mutable", "True"), ("input_type", "text"), ("default_value", "1")):
            ET.SubElement(attribute, name).text = value
    size = ET.SubElement(task, "original_size")
    ET.SubElement(size, "width").text = str(video.width_px)
    ET.SubElement(size, "height").text = str(video.height_px)
    return meta


def _shapes(track: Track, length: int) -> Iterator[ET.Element]:
    pause: tuple[int, dict[str, str], str] | None = None
    for row, frame in enumerate(track.frame_indices.tolist()):
        if track.masks is not None:
            shape = _mask_shape(decode_mask(track.masks[row]))
            kind = "mask"
        else:
            shape = dict(zip(_CORNERS, map(_decimal, track.boxes_xyxy[row]), strict=True))
            kind = "box"
        if shape is None:
            continue
        if pause is not None and pause[0] < frame:
            yield _element(pause[2], pause[0], pause[1], is_outside=True)
        node = _element(kind, frame, shape, is_outside=False)
        ET.SubElement(node, "attribute", name="score").text = _decimal(track.scores[row])
        yield node
        pause = frame + 1, shape, kind
    if pause is not None and pause[0] < length:
        yield _element(pause[2], pause[0], pause[1], is_outside=True)


def _element(kind: str, frame: int, shape: dict[str, str], *, is_outside: bool) -> ET.Element:
    flags = {"frame": str(frame), "outside": str(int(is_outside)), "occluded": "0", "keyframe": "1"}
    return ET.Element(kind, {**flags, **shape, "z_order": "0"})


def _decimal(value: Any) -> str:
    """The shortest decimal that is the same float32 again."""
    return np.format_float_positional(np.float32(value), unique=True, trim="0")


def _mask_shape(mask: BoolArray) -> dict[str, str] | None:
    left, top, right, bottom = (int(v) for v in mask_boxes(mask[None])[0])
    if right == left:
        return None
    inside = mask[top:bottom, left:right].ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside]).astype(np.int8)))
    runs = np.diff(np.concatenate([[0], edges, [inside.size]])).tolist()
    values = (left, top, right - left, bottom - top)
    return {"rle": ", ".join(map(str, runs)), **dict(zip(_HULL, map(str, values), strict=True))}


class _Builder(ET.TreeBuilder):
    """Refuses what could make a parser read other files, or grow without end."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise TrackFileError(f"it declares a document type ({name}), which is not safe to read: remove the DOCTYPE")


def read_cvat(path: str | Path, *, height_px: int | None = None, width_px: int | None = None) -> tuple[Track, ...]:
    """Read the tracks of a file, sorted by id; shapes that are outside are left out, and so are annotations of images.

    Args:
        path: The file.
        height_px: Frame height, where the file holds masks but not the ``original_size`` of the video.
        width_px: Frame width, as above.

    Returns:
        Tracks with masks where all shapes of a track are masks, else with boxes. If the smallest id is 0, as CVAT
        numbers them, all are raised by 1.

    Raises:
        TrackFileError: The file cannot be used; the message names the track.
    """
    root = _parse(Path(path))
    size = _frame_size(root, height_px, width_px)
    nodes = root.findall("track")
    lift = int(any(node.get("id") == "0" for node in nodes))
    tracks: dict[int, Track] = {}
    for node in nodes:
        name = node.get("id")
        try:
            track_id = int(node.attrib["id"]) + lift
            if track_id in tracks or track_id < 1:
                raise ValueError("ids must be 0 or more, and unique")
            track = _track(node, track_id, size)
        except (KeyError, ValueError) as error:
            lacks = "lacks " if isinstance(error, KeyError) else ""
            raise TrackFileError(f"{path}: track {name}: {lacks}{error}") from None
        if track is not None:
            tracks[track_id] = track
    return tuple(tracks[k] for k in sorted(tracks))


def _parse(path: Path) -> ET.Element:
    try:
        parser = ET.XMLParser(target=_Builder())
        parser.feed(path.read_bytes())
        root: ET.Element = parser.close()
    except OSError as error:
        raise TrackFileError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ET.ParseError as error:
        raise TrackFileError(f"{path}: is not XML ({error})") from None
    except TrackFileError as error:
        raise TrackFileError(f"{path}: {error}") from None
    if root.tag != "annotations":
        raise TrackFileError(f"{path}: the root is <{root.tag}>: must be <annotations> (CVAT for video 1.1)")
    return root


def _frame_size(root: ET.Element, height_px: int | None, width_px: int | None) -> tuple[int, int] | None:
    if height_px is not None and width_px is not None:
        return height_px, width_px
    node = root.find("meta//original_size")
    if node is None:
        return None
    try:
        return int(node.findtext("height", "")), int(node.findtext("width", ""))
    except ValueError:
        return None


def _track(node: ET.Element, track_id: int, size: tuple[int, int] | None) -> Track | None:
    """One track, or None if it is outside everywhere."""
    rows: dict[int, tuple[FloatArray, Rle | None, float]] = {}
    for shape in node:
        if shape.tag not in ("box", "mask"):
            raise ValueError(f"holds a <{shape.tag}>: only boxes and masks can be read")
        if shape.get("outside") == "1":
            continue
        frame = int(shape.attrib["frame"])
        if frame < 0 or frame in rows:
            raise ValueError(f"frame {frame}: must be 0 or more, and there once")
        score = next((a.text for a in shape.iter("attribute") if a.get("name") == "score"), None)
        rows[frame] = (*_shape(shape, frame, size), float(score or 1.0))
    if not rows:
        return None
    frames = sorted(rows)
    masks = [rows[f][1] for f in frames]
    given = np.ones(len(frames), np.float32)
    return Track(
        track_id=track_id,
        phrase=node.attrib["label"],
        frame_indices=np.array(frames, np.int64),
        boxes_xyxy=np.stack([rows[f][0] for f in frames]),
        masks=None if None in masks else tuple(m for m in masks if m is not None),
        scores=np.array([rows[f][2] for f in frames], np.float32),
        mask_scores=given,
        identity_confidence=given.copy(),
        sources=(Source.SEED,) * len(frames),
    )


def _shape(shape: ET.Element, frame: int, size: tuple[int, int] | None) -> tuple[FloatArray, Rle | None]:
    if shape.tag == "box":
        box = np.array([float(shape.attrib[k]) for k in _CORNERS], np.float32)
        if not np.isfinite(box).all() or (box[2:] < box[:2]).any():
            raise ValueError(f"frame {frame}: box {box.tolist()}: must be xtl <= xbr and ytl <= ybr")
        return box, None
    if size is None:
        raise ValueError("holds masks, but the file does not say the original_size of the video: give height and width")
    left, top, width, height = (int(float(shape.attrib[k])) for k in _HULL)
    if left < 0 or top < 0 or width < 1 or height < 1 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"frame {frame}: mask at {left},{top} of {width}x{height}: must lie in {size[1]}x{size[0]}")
    full = np.zeros(size, np.bool_)
    full[top : top + height, left : left + width] = _decode_runs(shape.attrib["rle"], width, height, frame)
    return np.array([left, top, left + width, top + height], np.float32), encode_mask(full)


def _decode_runs(text: str, width: int, height: int, frame: int) -> NDArray[np.bool_]:
    runs = [int(v) for v in text.replace(",", " ").split()]
    if min(runs, default=-1) < 0 or sum(runs) != width * height:
        raise ValueError(f"frame {frame}: the runs of the mask add up to {sum(runs)}: must be {width * height}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width)
