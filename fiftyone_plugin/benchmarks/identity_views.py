"""A view of every box of a video's tracks, made once: what galleries of any version of the tracks are chosen from.

Versions of tracks that consist of the same boxes (relabelled, interrupted, merged) have galleries of the same views.
Which of them are clean is decided for each version by the rules of `pipeline.audit`; a test compares the two. Knows
nothing of where tracks come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.benchmarks import identity_store as store
from fiftyone_plugin.config import EvidenceOptions
from fiftyone_plugin.embedders.combined import part_sizes
from fiftyone_plugin.embedders.evidence import coverage, crop_objects, judge_views
from fiftyone_plugin.geometry import decode_mask, ellipse_mask
from fiftyone_plugin.identity.camera import CameraPath
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.pipeline.camera import CameraWatch
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.pipeline.views import usual_by_own_area
from fiftyone_plugin.registry import make_embedder
from fiftyone_plugin.types import FloatArray, Gallery, IntArray, Track

__all__ = ["ViewTable"]


_LAYOUT = 2
"""Changes when what is kept changes."""


@dataclass(frozen=True, slots=True)
class ViewTable:
    """A view of every box that any version of a sequence's tracks has. R boxes."""

    embedder_name: str
    part_sizes: tuple[int, ...]
    """Of `embedders.combined`."""
    frames: IntArray
    """int64 (R,)."""
    boxes_xyxy: FloatArray
    """float32 (R, 4)."""
    embeddings: FloatArray
    """float32 (R, D), unit length."""
    mask_areas_px: FloatArray
    """float32 (R,)."""
    pairs: IntArray
    """int64 (P, 2): boxes of one frame that touch, both ways round."""
    covered: FloatArray
    """float32 (P,) in [0, 1]: how much of the first one of a pair the second one covers."""
    height_px: int
    width_px: int
    places: dict[tuple[int, bytes], int]
    """Row by frame and box."""
    camera: CameraPath | None
    """How the camera moved, told from what lies outside all these boxes."""

    @classmethod
    def make(
        cls, name: str, source: FrameSource, versions: Sequence[Sequence[Track]], embedder_name: str, cache: Path
    ) -> ViewTable:
        """Cut out and embed every box of these tracks, or read what was made before.

        Args:
            name: Of the file in the cache.
            source: Pictures; opened only if there is no file.
            versions: Tracks; masks are used where there are any, else an ellipse inside each box.
            embedder_name: Of `registry.make_embedder`.
            cache: Folder.
        """
        boxes = _all_boxes(versions)
        key = store.fingerprint(
            {
                "boxes": [[f, b.hex()] for f, b in boxes],
                "embedder": embedder_name,
                "layout": _LAYOUT,
                "weights": store.weights_fingerprint(("reid", "sam2") if "sam2" in embedder_name else ("reid",)),
            }
        )
        path = cache / f"views-{name}-{key}.safetensors"
        arrays = store.load(path)
        if arrays is None:
            arrays = _embed(source, versions, boxes, embedder_name)
            store.save(path, arrays)
        path = cache / f"camera-of-{name}-{key}.safetensors"
        moved = store.load(path)
        if moved is None:
            moved = {"path": _camera(source, boxes)}
            store.save(path, moved)
        info = source.info
        rows = arrays["embeddings"].astype(np.float32)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return cls(
            embedder_name,
            tuple(arrays["parts"].tolist()),
            arrays["frames"],
            arrays["boxes"],
            rows,
            arrays["areas"],
            arrays["pairs"],
            arrays["covered"],
            info.height_px,
            info.width_px,
            {key: k for k, key in enumerate(boxes)},
            moved["path"],
        )

    def galleries(self, tracks: Sequence[Track], options: EvidenceOptions | None = None) -> dict[int, Gallery]:
        """The clean views of tracks whose boxes are all in the table, by the rules of `pipeline.audit`."""
        options = options or EvidenceOptions()
        owners = np.concatenate([np.full(len(t), k) for k, t in enumerate(tracks)]).astype(np.int64)
        rows = np.concatenate([self._rows(t) for t in tracks])
        is_present = np.zeros(len(self.frames), np.bool_)
        is_present[rows] = True
        both = is_present[self.pairs].all(axis=1)
        covered = np.zeros(len(self.frames), np.float32)
        np.maximum.at(covered, self.pairs[both, 0], self.covered[both])
        is_seen, weights = judge_views(
            self.boxes_xyxy[rows],
            covered=covered[rows],
            areas_px=self.mask_areas_px[rows],
            object_scores=np.full(len(rows), 10.0, np.float32),
            mask_scores=None,
            median_areas_px=np.concatenate([usual_by_own_area(t) for t in tracks]) * self.mask_areas_px[rows],
            height_px=self.height_px,
            width_px=self.width_px,
            options=options,
        )
        recorder = Recorder(self.embedder_name, self.part_sizes)
        for track in tracks:
            recorder.open(track.track_id, track.phrase)
        for k in np.flatnonzero(is_seen & (self.frames[rows] % options.every_frames == 0)).tolist():
            recorder.add_view(
                tracks[owners[k]].track_id, int(self.frames[rows[k]]), self.embeddings[rows[k]], float(weights[k])
            )
        return recorder.galleries()

    def all_views(self, tracks: Sequence[Track]) -> dict[int, Gallery]:
        """The views of every box of these tracks, clean or not, each counting the same."""
        return {
            t.track_id: Gallery(
                t.track_id,
                t.frame_indices,
                self.embeddings[self._rows(t)],
                np.ones(len(t), np.float32),
                self.embedder_name,
                self.part_sizes,
            )
            for t in tracks
        }

    def _rows(self, track: Track) -> IntArray:
        keys = zip(track.frame_indices.tolist(), (b.tobytes() for b in track.boxes_xyxy), strict=True)
        return np.array([self.places[key] for key in keys], np.int64)


def _all_boxes(versions: Sequence[Sequence[Track]]) -> list[tuple[int, bytes]]:
    keys = {
        (frame, box.tobytes())
        for tracks in versions
        for t in tracks
        for frame, box in zip(t.frame_indices.tolist(), t.boxes_xyxy, strict=True)
    }
    return sorted(keys)


def _embed(
    source: FrameSource, versions: Sequence[Sequence[Track]], boxes: list[tuple[int, bytes]], embedder_name: str
) -> dict[str, NDArray[Any]]:
    embedder = make_embedder(embedder_name)
    masks = {
        (frame, box.tobytes()): t.masks[k]
        for tracks in versions
        for t in tracks
        if t.masks is not None
        for k, (frame, box) in enumerate(zip(t.frame_indices.tolist(), t.boxes_xyxy, strict=True))
    }
    by_frame: dict[int, list[int]] = {}
    for row, (index, _) in enumerate(boxes):
        by_frame.setdefault(index, []).append(row)
    corners = np.stack([np.frombuffer(b, np.float32) for _, b in boxes])
    embeddings = np.zeros((len(boxes), embedder.dimension), np.float16)
    areas = np.zeros(len(boxes), np.float32)
    pairs: list[tuple[int, int]] = []
    shares: list[float] = []
    for frame in source.frames(min(by_frame), max(by_frame) + 1):
        rows = by_frame.get(frame.index, [])
        if not rows:
            continue
        size = {"height_px": frame.height_px, "width_px": frame.width_px}
        dense = np.stack(
            [decode_mask(masks[boxes[r]]) if boxes[r] in masks else ellipse_mask(corners[r], **size) for r in rows]
        )
        embeddings[rows] = embedder.embed(crop_objects(frame, dense, corners[rows]))
        areas[rows] = dense.reshape(len(rows), -1).sum(axis=1)
        for a in range(len(rows)):
            for b in range(a + 1, len(rows)):
                two = [a, b]
                part = coverage(dense[two], corners[[rows[a], rows[b]]])
                if part.any():
                    pairs += [(rows[a], rows[b]), (rows[b], rows[a])]
                    shares += part.tolist()
    return {
        "parts": np.array(part_sizes(embedder), np.int64),
        "frames": np.array([f for f, _ in boxes], np.int64),
        "boxes": corners,
        "embeddings": embeddings,
        "areas": areas,
        "pairs": np.array(pairs, np.int64).reshape(-1, 2),
        "covered": np.array(shares, np.float32),
    }


def _camera(source: FrameSource, boxes: list[tuple[int, bytes]]) -> CameraPath | None:
    by_frame: dict[int, list[bytes]] = {}
    for index, box in boxes:
        by_frame.setdefault(index, []).append(box)
    watch = CameraWatch()
    for frame in source.frames(min(by_frame), max(by_frame) + 1):
        here = b"".join(by_frame.get(frame.index, []))
        watch.see(frame, np.frombuffer(here, np.float32).reshape(-1, 4))
    return watch.path
