"""What others do about identity, on tracks that exist: re-matching by overlap, GTA; and two oracles as the ceiling.

Each is written anew from its publication and given the same tracks and embeddings as the identity layer. Methods that
act while masks are propagated are in `identity_walks.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.benchmarks.identity_cases import Answer, Case
from fiftyone_plugin.benchmarks.identity_injection import take
from fiftyone_plugin.geometry import box_iou
from fiftyone_plugin.identity import resolve
from fiftyone_plugin.metrics.similarity import pair_tracks
from fiftyone_plugin.types import FloatArray, Gallery, IntArray, Track

__all__ = ["FITTED", "PUBLISHED", "GtaOptions", "gta", "oracle", "oracle_of_links", "rematch_by_overlap"]

_REDETECT_FRAMES = 16
_MIN_REMATCH_IOU = 0.5
"""Grounded-SAM-2 asks for 0.8 of masks on one frame; boxes that are some frames apart need a wider gate."""


def rematch_by_overlap(case: Case) -> Answer:
    """Grounded-SAM-2's way, on given tracks: what appears takes the id of what was last seen at its place.

    Where a track begins, it gets the id of the track that ended up to one interval between two re-detections before,
    whose last box it overlaps best. A track that goes on is matched with itself at every re-detection, whatever object
    it shows by then: that is the method's known weakness, and why an exchange stays.

    Reference: IDEA-Research/Grounded-SAM-2, `utils/mask_dictionary_model.py` as described in its README
    ("continuous id"); it takes the first match above its gate, here it is the best one.
    """
    roots: dict[int, int] = {}
    ended: dict[int, Track] = {}
    for track in sorted(case.baseline, key=lambda t: int(t.frame_indices[0])):
        start = int(track.frame_indices[0])
        open_ends = [
            t
            for t in ended.values()
            if t.phrase == track.phrase and 0 < start - t.frame_indices[-1] <= _REDETECT_FRAMES
        ]
        overlaps = [float(box_iou(t.boxes_xyxy[-1:], track.boxes_xyxy[:1])[0, 0]) for t in open_ends]
        roots[track.track_id] = track.track_id
        if overlaps and max(overlaps) >= _MIN_REMATCH_IOU:
            old = open_ends[int(np.argmax(overlaps))]
            roots[track.track_id] = roots[old.track_id]
            del ended[old.track_id]
        ended[track.track_id] = track
    return Answer(_joined(case.baseline, roots))


@dataclass(frozen=True, slots=True)
class GtaOptions:
    """Settings of global tracklet association."""

    min_length_frames: int = 100
    """Shorter tracks are never split."""
    max_cluster_distance: float = 0.7
    """DBSCAN's radius, cosine distance."""
    min_cluster_views: int = 10
    max_clusters: int = 3
    """Of one track; the nearest ones are joined until there are no more."""
    max_merge_distance: float = 0.4
    """Mean cosine distance up to which two tracklets are one."""
    max_travel: float = 1.0
    """Two tracklets are only joined if the second begins no further away than this part of the frame's diagonal."""


PUBLISHED = GtaOptions()
"""The constants of the authors, for person re-identification networks."""
FITTED = GtaOptions(min_length_frames=24, max_cluster_distance=0.16, min_cluster_views=5, max_merge_distance=0.2)
"""For colour histograms, which lie much closer together than what the published constants were made for."""


def gta(case: Case, options: GtaOptions = PUBLISHED) -> Answer:
    """Split tracks whose views fall into clusters, then merge tracklets that look alike and are never seen together.

    Reference: Sun et al., "GTA: Global Tracklet Association for Multi-Object Tracking in Sports", arXiv 2411.08216,
    sections 3.2 (splitter) and 3.3 (connector). As there, views are of every frame and a split track falls into
    clusters, not into stretches of time.
    """
    views = case.plain_views if case.plain_views is not None else case.evidence.galleries
    tracklets: list[Track] = []
    galleries: list[FloatArray] = []
    next_id = max((t.track_id for t in case.baseline), default=0) + 1
    for track in case.baseline:
        known = views.get(track.track_id)
        for n, rows in enumerate(_split(track, known, options)):
            tracklets.append(take(track.track_id if n == 0 else next_id, [(track, rows)]))
            next_id += n > 0
            frames = tracklets[-1].frame_indices
            empty = np.zeros((0, 1), np.float32)
            galleries.append(
                empty if known is None else known.embeddings[np.isin(known.frame_indices, frames)].astype(np.float32)
            )
    roots = _merge(tracklets, galleries, options)
    return Answer(_joined(tracklets, roots))


def _split(track: Track, known: Gallery | None, options: GtaOptions) -> list[IntArray]:
    """Rows of the track by cluster, the largest first; frames without a view go with the nearest one in time."""
    everything = [np.arange(len(track))]
    if known is None or len(track) < options.min_length_frames or len(known) < 2 * options.min_cluster_views:
        return everything
    labels = _dbscan(known.embeddings.astype(np.float32), options)
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    if len(names) < 2:
        return everything
    nearest = np.abs(track.frame_indices[:, None] - known.frame_indices[None]).argmin(axis=1)
    of_row = labels[nearest]
    return [np.flatnonzero(of_row == names[k]) for k in np.argsort(-counts) if (of_row == names[k]).any()]


def _dbscan(embeddings: FloatArray, options: GtaOptions) -> IntArray:
    """Density-based clusters (Ester et al., KDD 1996) by cosine distance; noise joins the nearest cluster.

    Returns:
        int64 (M,): cluster of every view, or all -1 where there is none.
    """
    distance = 1.0 - embeddings @ embeddings.T
    near = distance <= options.max_cluster_distance
    is_core = near.sum(axis=1) >= options.min_cluster_views
    labels = np.full(len(embeddings), -1, np.int64)
    count = 0
    for seed in np.flatnonzero(is_core).tolist():
        if labels[seed] >= 0:
            continue
        front = [seed]
        labels[seed] = count
        while front:
            fresh = np.flatnonzero(near[front].any(axis=0) & (labels < 0))
            labels[fresh] = count
            front = fresh[is_core[fresh]].tolist()
        count += 1
    if count == 0:
        return labels
    means = [embeddings[labels == k].mean(axis=0) for k in range(count)]
    while len(means) > options.max_clusters:
        gap = 1.0 - _unit(means) @ _unit(means).T
        np.fill_diagonal(gap, np.inf)
        i, j = sorted(int(v) for v in np.unravel_index(int(gap.argmin()), gap.shape))
        labels[labels == j] = i
        labels[labels > j] -= 1
        means = [embeddings[labels == k].mean(axis=0) for k in range(len(means) - 1)]
    noise = labels < 0
    labels[noise] = (embeddings[noise] @ _unit(means).T).argmax(axis=1)
    return labels


def _merge(tracklets: Sequence[Track], galleries: Sequence[FloatArray], options: GtaOptions) -> dict[int, int]:
    """Agglomerate, nearest pair first, mean distance of all pairs of views; co-visible tracklets never."""
    count = len(tracklets)
    roots = {t.track_id: t.track_id for t in tracklets}
    if not count:
        return roots
    sizes = np.array([len(g) for g in galleries], np.float64)
    sums = [g.sum(axis=0) if len(g) else None for g in galleries]
    distance = np.full((count, count), np.inf)
    low = np.min([t.boxes_xyxy[:, :2].min(axis=0) for t in tracklets], axis=0)
    high = np.max([t.boxes_xyxy[:, 2:].max(axis=0) for t in tracklets], axis=0)
    reach = options.max_travel * float(np.linalg.norm(high - low))
    for i in range(count):
        for j in range(i + 1, count):
            a, b = sums[i], sums[j]
            if a is None or b is None or tracklets[i].phrase != tracklets[j].phrase:
                continue
            if not _is_seen_together(tracklets[i], tracklets[j]) and _travel(tracklets[i], tracklets[j]) <= reach:
                # The mean of all dot products is the dot product of the means.
                distance[i, j] = distance[j, i] = 1.0 - float(a @ b) / (sizes[i] * sizes[j])
    members = [[i] for i in range(count)]
    weight = sizes.copy()
    while True:
        i, j = sorted(int(v) for v in np.unravel_index(int(distance.argmin()), distance.shape))
        if i == j or distance[i, j] > options.max_merge_distance:
            break
        # Average linkage, by number of views; a pair that is forbidden for one part is forbidden for the whole.
        distance[i] = (weight[i] * distance[i] + weight[j] * distance[j]) / (weight[i] + weight[j])
        distance[:, i] = distance[i]
        distance[i, i] = distance[j, :] = distance[:, j] = np.inf
        weight[i] += weight[j]
        members[i] += members[j]
        members[j] = []
    for group in members:
        if group:
            first = min(group, key=lambda n: int(tracklets[n].frame_indices[0]))
            roots |= {tracklets[n].track_id: tracklets[first].track_id for n in group}
    return roots


def _is_seen_together(a: Track, b: Track) -> bool:
    return bool(np.isin(a.frame_indices, b.frame_indices, assume_unique=True).any())


def _travel(a: Track, b: Track) -> float:
    """Pixels from where the earlier one ends to where the later one begins."""
    if a.frame_indices[0] > b.frame_indices[0]:
        a, b = b, a
    end, begin = a.boxes_xyxy[-1], b.boxes_xyxy[0]
    return float(np.linalg.norm((end[:2] + end[2:]) / 2 - (begin[:2] + begin[2:]) / 2))


def oracle(case: Case) -> Answer:
    """Every frame of every track given to the object it shows, by the truth: what relabelling can reach at most.

    In every frame, tracks and objects are matched one to one by overlap (at least 0.5), best first. A frame that shows
    nobody stays with the object its track showed last, or first, unless another track shows that one there.
    """
    pairing = pair_tracks(case.truth, case.evidence.tracks)
    shown: dict[tuple[int, int], int] = {}
    for frame in pairing.frames:
        values = frame.similarity.copy()
        while values.size and values.max() >= 0.5:
            row, column = (int(v) for v in np.unravel_index(int(values.argmax()), values.shape))
            track_id = pairing.prediction_ids[int(frame.predictions[column])]
            shown[track_id, frame.frame_index] = pairing.object_ids[int(frame.objects[row])]
            values[row] = -1
            values[:, column] = -1
    taken = {(frame, object_id) for (_, frame), object_id in shown.items()}
    pieces: dict[int, list[tuple[Track, IntArray]]] = {}
    offset = max((t.track_id for t in case.truth), default=0) + 1
    for track in case.evidence.tracks:
        known = np.array([shown.get((track.track_id, f), 0) for f in track.frame_indices.tolist()], np.int64)
        owner = _filled(known)
        for row in np.flatnonzero(known == 0).tolist():
            key = (int(track.frame_indices[row]), int(owner[row]))
            if owner[row] and key not in taken:
                taken.add(key)
            else:
                owner[row] = 0 if owner[row] else offset + track.track_id
        for object_id in np.unique(owner[owner > 0]).tolist():
            pieces.setdefault(object_id, []).append((track, np.flatnonzero(owner == object_id)))
    return Answer(tuple(take(i, parts) for i, parts in sorted(pieces.items())))


def oracle_of_links(case: Case) -> Answer:
    """Every stretch that the identity layer cuts tracks into given to the object it mostly shows, by the truth.

    What linking can reach at most with these stretches: masks that lie on two objects, or move over unseen, stay so.
    Where two stretches show one object at once, the one that shows it more often is kept; those that show nobody are
    taken out.
    """
    evidence = case.evidence
    resolution = resolve(evidence.tracks, evidence.galleries, evidence.supports, camera=evidence.camera)
    pairing = pair_tracks(case.truth, evidence.tracks)
    shown: dict[tuple[int, int], int] = {}
    for frame in pairing.frames:
        for column, p in enumerate(frame.predictions.tolist()):
            row = int(frame.similarity[:, column].argmax()) if len(frame.objects) else 0
            if len(frame.objects) and frame.similarity[row, column] >= 0.5:
                shown[pairing.prediction_ids[p], frame.frame_index] = pairing.object_ids[int(frame.objects[row])]
    tracks = {t.track_id: t for t in evidence.tracks}
    found: list[tuple[int, int, Track, IntArray]] = []
    for track_id, start, stop, _ in resolution.confidences:
        frames = tracks[track_id].frame_indices
        rows = np.flatnonzero((frames >= start) & (frames < stop))
        seen = Counter(shown[key] for key in ((track_id, int(f)) for f in frames[rows]) if key in shown)
        if seen:
            object_id, count = seen.most_common(1)[0]
            found.append((count, object_id, tracks[track_id], rows))
    pieces: dict[int, list[tuple[Track, IntArray]]] = {}
    taken: dict[int, set[int]] = {}
    for _, object_id, track, rows in sorted(found, key=lambda f: -f[0]):
        known = taken.setdefault(object_id, set())
        rows = rows[[int(f) not in known for f in track.frame_indices[rows]]]
        if len(rows):
            known.update(track.frame_indices[rows].tolist())
            pieces.setdefault(object_id, []).append((track, rows))
    return Answer(tuple(take(i, parts) for i, parts in sorted(pieces.items())))


def _filled(known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Zeros take the value before them, those at the beginning the first one."""
    rows = np.flatnonzero(known)
    if not len(rows):
        return known.copy()
    place = np.maximum(np.searchsorted(rows, np.arange(len(known)), side="right") - 1, 0)
    return np.asarray(known[rows[place]], np.int64)


def _joined(tracks: Sequence[Track], roots: Mapping[int, int]) -> tuple[Track, ...]:
    groups: dict[int, list[tuple[Track, IntArray]]] = {}
    for track in tracks:
        groups.setdefault(roots[track.track_id], []).append((track, np.arange(len(track))))
    return tuple(take(i, pieces) for i, pieces in sorted(groups.items()))


def _unit(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    stacked = np.stack(rows)
    return np.asarray(stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12), np.float32)
