from __future__ import annotations

from fiftyone_plugin import pipeline
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.identity import apply_repairs
from fiftyone_plugin.pipeline.mend import mend
from fiftyone_plugin.pipeline.settle import Evidence, settle
from fiftyone_plugin.synthetic import scenes
from fiftyone_plugin.types import RepairKind, Rle, Track


def masks(tracks: tuple[Track, ...]) -> dict[tuple[int, int], Rle]:
    return {
        (t.track_id, f): t.masks[k]
        for t in tracks
        if t.masks is not None
        for k, f in enumerate(t.frame_indices.tolist())
    }


def test_mending_changes_only_what_its_repairs_name_and_can_be_left_out() -> None:
    clip = scenes.flock(102, frames=48)
    options = TrackingOptions()
    models = pipeline.Backends.load(options)
    kept: list[Evidence] = []
    pipeline.track(clip.source, "sheep. dog.", options, backends=models, on_evidence=kept.append)
    settled = settle(kept[0], options.identity)
    mended = mend(clip.source, models.propagator, models.embedder, settled, kept[0].galleries)
    anew = [r for r in mended.resolution.repairs if r.kind is RepairKind.RESEED]
    assert anew, "the clip is one in which a mask runs over to a neighbour"
    named = {(i, f) for r in anew for i in r.relabels.values() if i for f in range(r.start, r.stop or 0)}
    before, after = masks(settled.tracks), masks(mended.tracks)
    hidden = {frame for r in anew for frame in range(r.start, r.stop or 0)}
    changed = {cell for cell in before.keys() | after.keys() if before.get(cell) != after.get(cell)}
    assert all(cell in named or (cell not in after and cell[1] in hidden) for cell in changed)
    others = [r for r in mended.resolution.repairs if r.kind is not RepairKind.RESEED]
    assert masks(apply_repairs(mended.carried, others)) == before


def test_nothing_to_compare_with_is_left_as_it_is() -> None:
    clip = scenes.flock(102, frames=4)
    models = pipeline.Backends.load(TrackingOptions())
    settled = settle(Evidence((), {}, {}))
    assert mend(clip.source, models.propagator, models.embedder, settled, {}) is settled
