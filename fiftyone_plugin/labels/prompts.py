"""Labels that point at objects (boxes, masks, outlines, clicks) as prompts for `pipeline.follow`.

Reads only. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import cv2
import fiftyone as fo
import numpy as np

from fiftyone_plugin import geometry
from fiftyone_plugin.errors import EditError, TrackFileError
from fiftyone_plugin.labels.media import collection_of, dataset_of, frame_size_px, is_group
from fiftyone_plugin.pipeline.follow import ObjectPrompt
from fiftyone_plugin.types import BoolArray, Seed

__all__ = ["has_prompts", "object_prompts", "prompt_fields"]

_KINDS = {fo.Detections: "detections", fo.Polylines: "polylines", fo.Keypoints: "keypoints"}


def prompt_fields(dataset: Any) -> dict[str, str]:
    """Fields whose labels can point at objects: their name, without ``frames.``, to what they hold."""
    is_video = dataset._contains_videos(any_slice=True)
    schema = dataset.get_frame_field_schema() if is_video else dataset.get_field_schema()
    kinds = {name: _KINDS.get(getattr(field, "document_type", None)) for name, field in (schema or {}).items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def object_prompts(
    target: Any, field: str, *, label_ids: Collection[str] | None = None, phrase: str = "object"
) -> tuple[ObjectPrompt, ...]:
    """What the labels of a field point at.

    Labels with one `index` or `instance` are one object, marked on several frames; every other label is an object of
    its own. A detection with a mask, and a closed outline, prompt with the mask; a detection without one with its box;
    a keypoint with clicks. Keypoints whose attribute ``negative`` is true, or whose label is ``background``, are clicks
    beside the object that has their `index` or `instance`, or beside every object where they have neither; they count
    on frames on which that object is clicked too.

    Args:
        target: A video sample of a dataset, or the view of one image sequence.
        field: Name of the field, without ``frames.``.
        label_ids: Only these labels; all by default.
        phrase: What an object without a label is called.

    Raises:
        TrackFileError: There is no such field.
        EditError: There is no label in it, or none of those that were chosen.
    """
    dataset, name = dataset_of(target), field.removeprefix("frames.")
    kinds = prompt_fields(dataset)
    if name not in kinds:
        known = ", ".join(kinds) or "no field"
        raise TrackFileError(f"field {field!r}: holds no boxes, outlines or keypoints; there are some in {known}")
    width_px, height_px = frame_size_px(target)
    numbers: dict[tuple[str, str], int] = {}
    found: list[ObjectPrompt] = []
    chosen = [(f, m) for f, m in _labels(target, name, kinds[name]) if label_ids is None or m.id in label_ids]
    for frame_index, label in chosen:
        if not _is_beside(label):
            track_id = numbers.setdefault(_identity(label), len(numbers) + 1)
            seed = _seed(label, track_id, height_px=height_px, width_px=width_px)
            if seed is not None:
                found.append(ObjectPrompt(frame_index, label.label or phrase, seed))
    clicked = {(p.frame_index, p.seed.track_id): p.phrase for p in found if p.seed.points_xy is not None}
    for frame_index, label in chosen:
        # Clicks that only say where an object is not are no object of their own.
        for track_id in _owners(label, numbers) if _is_beside(label) else ():
            seed = _seed(label, track_id, height_px=height_px, width_px=width_px)
            if seed is not None and (frame_index, track_id) in clicked:
                found.append(ObjectPrompt(frame_index, clicked[frame_index, track_id], seed))
    if not found:
        what = "no label" if label_ids is None else "none of the chosen labels"
        raise EditError(f"field {field!r} holds {what} here: draw boxes, masks or points on some frame first")
    return _with_one_name(found)


def has_prompts(target: Any, field: str, *, label_ids: Collection[str] | None = None) -> bool:
    """Whether a target has a label that can point at an object; see `object_prompts`.

    Raises:
        TrackFileError: There is no such field.
    """
    try:
        return bool(object_prompts(target, field, label_ids=label_ids))
    except EditError:
        return False


def _labels(target: Any, name: str, kind: str) -> list[tuple[int, Any]]:
    collection = collection_of(target)
    if is_group(target):
        found = collection.values(f"{name}.{kind}")
        return [(index, label) for index, labels in enumerate(found) for label in labels or ()]
    view = collection.match_frames(fo.ViewField(f"{name}.{kind}").length() > 0)
    if not len(view):
        return []
    numbers, found = view.values(["frames.frame_number", f"frames.{name}.{kind}"])
    pairs = zip(numbers[0], found[0], strict=True)
    return [(number - 1, label) for number, labels in pairs for label in labels or ()]


def _identity(label: Any) -> tuple[str, str]:
    if label.index is not None:
        return "index", f"{label.label}/{label.index}"
    instance = label.get_field("instance") if label.has_field("instance") else None
    return ("label", label.id) if instance is None else ("instance", str(instance.id))


def _owners(label: Any, numbers: Mapping[tuple[str, str], int]) -> list[int]:
    """The objects that a click lies beside: those of its `index` or `instance`; without either, all."""
    kind, name = _identity(label)
    if kind == "index":
        return [i for (of, whose), i in numbers.items() if of == kind and whose.rpartition("/")[2] == str(label.index)]
    return list(numbers.values()) if kind == "label" else [i for key, i in numbers.items() if key == (kind, name)]


def _is_beside(label: Any) -> bool:
    if not isinstance(label, fo.Keypoint):
        return False
    is_negative = label.has_field("negative") and bool(label.get_field("negative"))
    return is_negative or str(label.label).lower() == "background"


def _seed(label: Any, track_id: int, *, height_px: int, width_px: int) -> Seed | None:
    """None where the label is empty or lies outside the frame."""
    size = np.array([width_px, height_px], np.float64)
    if isinstance(label, fo.Keypoint):
        points = np.asarray(label.points, np.float64).reshape(-1, 2) * size
        points = points[np.isfinite(points).all(axis=1)]
        if not len(points):
            return None
        sides = np.full(len(points), 0 if _is_beside(label) else 1, np.int64)
        return Seed(track_id, points_xy=points.astype(np.float32), point_labels=sides)
    if isinstance(label, fo.Polyline):
        mask = _outline(label.points, size, height_px=height_px, width_px=width_px)
        return Seed(track_id, mask=mask) if mask.any() else None
    x, y, w, h = label.bounding_box
    box = np.array([x, y, x + w, y + h]) * np.tile(size, 2)
    box = geometry.clip_boxes(box[None].astype(np.float32), height_px=height_px, width_px=width_px)[0]
    if box[2] - box[0] < 1 or box[3] - box[1] < 1:
        return None
    part = label.get_mask()
    if part is None:
        return Seed(track_id, box_xyxy=box)
    shape = geometry.crop_to_box(np.zeros((height_px, width_px), np.bool_), box).shape
    resized = cv2.resize((np.asarray(part) != 0).astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST)
    mask = geometry.paste_mask(resized.astype(np.bool_), box, height_px=height_px, width_px=width_px)
    return Seed(track_id, mask=mask) if mask.any() else Seed(track_id, box_xyxy=box)


def _outline(shapes: Sequence[Any], size: Any, *, height_px: int, width_px: int) -> BoolArray:
    canvas = np.zeros((height_px, width_px), np.uint8)
    for shape in shapes:
        if len(shape) > 2:
            cv2.fillPoly(canvas, [np.round(np.asarray(shape, np.float64) * size).astype(np.int32)], 1)
    return canvas.astype(np.bool_)


def _with_one_name(prompts: Sequence[ObjectPrompt]) -> tuple[ObjectPrompt, ...]:
    """Clicks of one object and frame as one prompt, and one phrase per object: that of its first label."""
    phrases: dict[int, str] = {}
    merged: dict[tuple[int, int], Seed] = {}
    for prompt in prompts:
        seed = prompt.seed
        phrases.setdefault(seed.track_id, prompt.phrase)
        key = (prompt.frame_index, seed.track_id)
        other = merged.get(key)
        if other is not None and other.points_xy is not None and seed.points_xy is not None:
            assert other.point_labels is not None
            assert seed.point_labels is not None
            merged[key] = Seed(
                seed.track_id,
                points_xy=np.concatenate([other.points_xy, seed.points_xy]),
                point_labels=np.concatenate([other.point_labels, seed.point_labels]),
            )
        else:
            merged.setdefault(key, seed)
    return tuple(
        ObjectPrompt(frame_index, phrases[track_id], seed)
        for (frame_index, track_id), seed in sorted(merged.items(), key=lambda pair: pair[0])
    )
