"""YouTube-VIS JSON: COCO's format for videos, with one annotation for one track and a mask and box for every frame.

``segmentations``, ``bboxes`` and ``areas`` hold one entry for each frame of the video, null where the object is absent.
Masks are COCO RLE, boxes ``[left, top, width, height]`` in pixels, ids 1-based, frames 0-based by position. What the
format has no place for (scores of single frames, sources) is kept under the key ``shepherd``, which others ignore.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from fiftyone_plugin.errors import TrackFileError
from fiftyone_plugin.exporters.atomic import write_atomically
from fiftyone_plugin.geometry import area_px, box_areas, decode_mask, encode_mask, mask_boxes
from fiftyone_plugin.types import FloatArray, Rle, Source, Track, VideoInfo

__all__ = ["read_coco", "write_coco"]

_PER_FRAME = ("scores", "mask_scores", "identity_confidence")


def write_coco(path: str | Path, tracks: Sequence[Track], video: VideoInfo) -> None:
    """Write the tracks of one video; what lies behind its `frame_count` makes it longer.

    Raises:
        OutputError: The file cannot be written; nothing of it is left behind.
    """
    filled = [t for t in tracks if len(t)]
    length = max([video.frame_count, *(int(t.frame_indices[-1]) + 1 for t in filled)])
    phrases = sorted({t.phrase for t in filled})
    content = {
        "info": {"description": "written by Shepherd"},
        "videos": [
            {
                "id": 1,
                "name": video.source,
                "width": video.width_px,
                "height": video.height_px,
                "length": length,
                "fps": video.frames_per_second,
            }
        ],
        "categories": [{"id": k + 1, "name": phrase, "supercategory": "object"} for k, phrase in enumerate(phrases)],
        "annotations": [
            _annotation(t, length, phrases.index(t.phrase) + 1, video) for t in sorted(filled, key=lambda t: t.track_id)
        ],
    }
    write_atomically(path, json.dumps(content, ensure_ascii=False, allow_nan=False).encode())


def _annotation(track: Track, length: int, category_id: int, video: VideoInfo) -> dict[str, Any]:
    segmentations: list[Any] = [None] * length
    bboxes: list[Any] = [None] * length
    areas: list[Any] = [None] * length
    boxes = track.boxes_xyxy.astype(np.float64)
    box_sizes = box_areas(track.boxes_xyxy)
    for row, frame in enumerate(track.frame_indices.tolist()):
        left, top, right, bottom = boxes[row].tolist()
        bboxes[frame] = [left, top, right - left, bottom - top]
        areas[frame] = float(box_sizes[row])
        if track.masks is not None:
            rle = track.masks[row]
            segmentations[frame] = {"size": [rle.height_px, rle.width_px], "counts": rle.counts.decode("ascii")}
            areas[frame] = area_px(rle)
    return {
        "id": track.track_id,
        "video_id": 1,
        "category_id": category_id,
        "iscrowd": 0,
        "width": video.width_px,
        "height": video.height_px,
        "length": length,
        "score": float(track.scores.mean()),
        "segmentations": segmentations,
        "bboxes": bboxes,
        "areas": areas,
        "shepherd": {
            **{name: getattr(track, name).astype(np.float64).tolist() for name in _PER_FRAME},
            "sources": [s.value for s in track.sources],
        },
    }


def read_coco(path: str | Path, *, video_name: str | None = None) -> tuple[Track, ...]:
    """Read the tracks of one video, sorted by id.

    Args:
        path: The file. Masks may be RLE, compressed or not, or polygons; boxes that are missing are taken from masks.
        video_name: ``name`` of the video; needed where the file holds several.

    Raises:
        TrackFileError: The file cannot be used; the message names the annotation.
    """
    content = _load(Path(path))
    try:
        videos = {v["id"]: v for v in content["videos"]}
        phrases = {c["id"]: str(c["name"]) for c in content["categories"]}
        annotations = content["annotations"] or []
    except (KeyError, TypeError) as error:
        raise TrackFileError(
            f"{path}: lacks {error}: give a YouTube-VIS file (videos, categories, annotations)"
        ) from None
    names = [str(v.get("name", k)) for k, v in videos.items()]
    if video_name is None and len(videos) > 1:
        raise TrackFileError(f"{path}: holds {len(videos)} videos ({', '.join(names[:5])}, ...): say which one")
    if video_name is not None and video_name not in names:
        raise TrackFileError(f"{path}: holds no video {video_name!r}: it has {', '.join(names[:5])}")
    wanted = {k for k, v in videos.items() if video_name is None or str(v.get("name", k)) == video_name}
    tracks: dict[int, Track] = {}
    for a in annotations:
        place = f"{path}: annotation {a.get('id') if isinstance(a, dict) else a!r}"
        try:
            if a["video_id"] not in wanted:
                continue
            track = _track(a, phrases[a["category_id"]], videos[a["video_id"]])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise TrackFileError(f"{place}: {type(error).__name__}: {error}") from None
        if track.track_id in tracks:
            raise TrackFileError(f"{place}: the id was there already: ids must be unique within a video")
        if len(track):
            tracks[track.track_id] = track
    return tuple(tracks[k] for k in sorted(tracks))


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise TrackFileError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise TrackFileError(f"{path}: is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise TrackFileError(f"{path}: must be a JSON object with videos, categories and annotations")
    return content


def _track(annotation: dict[str, Any], phrase: str, video: dict[str, Any]) -> Track:
    segmentations = annotation.get("segmentations") or []
    bboxes = annotation.get("bboxes") or [None] * len(segmentations)
    frames = [k for k, b in enumerate(bboxes) if b is not None or (k < len(segmentations) and segmentations[k])]
    masks: tuple[Rle, ...] | None = None
    if any(segmentations):
        masks = tuple(_rle(segmentations[k], int(video["height"]), int(video["width"])) for k in frames)
    boxes = np.zeros((len(frames), 4), np.float32)
    for row, k in enumerate(frames):
        boxes[row] = _box(bboxes[k], masks[row] if masks is not None else None)
    kept = annotation.get("shepherd") or {}
    ones = [1.0] * len(frames)
    scores = [float(annotation.get("score", 1.0))] * len(frames)

    def per_frame(name: str, missing: list[float]) -> FloatArray:
        return np.asarray(kept.get(name, missing), np.float32)

    return Track(
        track_id=int(annotation["id"]),
        phrase=phrase,
        frame_indices=np.asarray(frames, np.int64),
        boxes_xyxy=boxes,
        masks=masks,
        scores=per_frame("scores", scores),
        mask_scores=per_frame("mask_scores", ones),
        identity_confidence=per_frame("identity_confidence", ones),
        sources=tuple(Source(s) for s in kept.get("sources", [Source.SEED.value] * len(frames))),
    )


def _rle(segmentation: Any, height_px: int, width_px: int) -> Rle:
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        height_px, width_px = segmentation["size"]
        return Rle(int(height_px), int(width_px), segmentation["counts"].encode("ascii"))
    if not segmentation:  # a box without a mask, in a track that has masks elsewhere
        return encode_mask(np.zeros((height_px, width_px), np.bool_))
    try:
        coded = coco.frPyObjects(segmentation, height_px, width_px)  # uncompressed counts, or polygons
    except Exception as error:  # pycocotools raises no narrower one
        raise ValueError(f"segmentation is neither RLE nor polygons ({error})") from None
    merged = coco.merge(coded) if isinstance(coded, list) else coded
    return Rle(height_px, width_px, merged["counts"])


def _box(bbox: Any, mask: Rle | None) -> FloatArray:
    if bbox is None:
        if mask is None:
            raise ValueError("a frame has neither box nor mask")
        return np.asarray(mask_boxes(decode_mask(mask)[None])[0], np.float32)
    left, top, width, height = (float(v) for v in bbox)
    if width < 0 or height < 0:
        raise ValueError(f"box {bbox}: width and height must not be negative")
    return np.array([left, top, left + width, top + height], np.float32)
