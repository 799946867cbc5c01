"""COCO instances: what was found in unrelated images, one annotation for one object in one image.

Masks are COCO RLE, boxes ``[left, top, width, height]`` in pixels, ids 1-based. Ids say nothing across images: images
that have nothing to do with each other have no tracks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fiftyone_plugin.exporters.atomic import write_atomically
from fiftyone_plugin.geometry import area_px, box_areas
from fiftyone_plugin.types import Track, TrackingResult

__all__ = ["write_instances"]


def write_instances(path: str | Path, results: Iterable[TrackingResult]) -> None:
    """Write what was found in images, each the result of one image.

    Raises:
        OutputError: The file cannot be written; nothing of it is left behind.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for result in results:
        video = result.video
        images.append(
            {"id": len(images) + 1, "file_name": video.source, "width": video.width_px, "height": video.height_px}
        )
        for track in result.tracks:
            category = categories.setdefault(track.phrase, len(categories) + 1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": category,
                    "iscrowd": 0,
                    **_shape(track),
                }
            )
    content = {
        "info": {"description": "written by Shepherd"},
        "images": images,
        "categories": [{"id": k, "name": name, "supercategory": "object"} for name, k in categories.items()],
        "annotations": annotations,
    }
    write_atomically(path, json.dumps(content, ensure_ascii=False, allow_nan=False).encode())


def _shape(track: Track) -> dict[str, Any]:
    left, top, right, bottom = track.boxes_xyxy[0].astype(np.float64).tolist()
    shape: dict[str, Any] = {
        "bbox": [left, top, right - left, bottom - top],
        "area": float(box_areas(track.boxes_xyxy[:1])[0]),
        "score": float(track.scores[0]),
    }
    if track.masks is not None:
        rle = track.masks[0]
        shape["segmentation"] = {"size": [rle.height_px, rle.width_px], "counts": rle.counts.decode("ascii")}
        shape["area"] = area_px(rle)
    return shape
