"""Gaps of settled tracks: what is put into them, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fiftyone_plugin import pipeline
from fiftyone_plugin.config import IdentityOptions, TrackingOptions
from fiftyone_plugin.geometry import decode_mask
from fiftyone_plugin.identity import apply_repairs
from fiftyone_plugin.pipeline.checkpoint import Checkpointing
from fiftyone_plugin.pipeline.mend import mend
from fiftyone_plugin.pipeline.settle import Evidence, Settled, settle
from fiftyone_plugin.synthetic import scenes
from fiftyone_plugin.synthetic.fakes import ScriptedEmbedder, ScriptedPropagator, Takeover
from fiftyone_plugin.types import Gallery, RepairKind, Rle, Source, Track

RED, BLUE, GREEN = (210, 40, 40), (40, 60, 220), (40, 190, 60)


def masks(tracks: tuple[Track, ...]) -> dict[tuple[int, int], Rle]:
    return {
        (t.track_id, f): t.masks[k]
        for t in tracks
        if t.masks is not None
        for k, f in enumerate(t.frame_indices.tolist())
    }


@pytest.fixture
def neighbours(world: Any, block: Any) -> Any:
    """A red and a blue sheep stand close to each other, a green one far away, for 60 frames."""
    return world([block("sheep", RED, 45, 30), block("sheep", BLUE, 45, 56), block("sheep", GREEN, 120, 5)], 60)


@pytest.fixture
def settled_with_gaps(without: Any) -> Callable[..., tuple[Settled, dict[int, Gallery]]]:
    """Who is who where each (object, start, stop) is missing, and views of all; ids are those of the truth."""

    def settle_them(source: Any, models: Any, *gaps: tuple[int, int, int]) -> tuple[Settled, dict[int, Gallery]]:
        kept: list[Evidence] = []
        pipeline.track(source, "sheep", TrackingOptions(), backends=models, on_evidence=kept.append)
        first = {t.masks[0]: t.track_id for t in source.truth()}
        ids = {t.track_id: first[t.masks[0]] for t in kept[0].tracks if t.masks is not None}
        tracks = sorted((replace(t, track_id=ids[t.track_id]) for t in kept[0].tracks), key=lambda t: t.track_id)
        galleries = {ids[i]: replace(g, track_id=ids[i]) for i, g in kept[0].galleries.items()}
        for track_id, start, stop in gaps:
            tracks = [without(t, start, stop) if t.track_id == track_id else t for t in tracks]
        settled = settle(Evidence(tuple(tracks), galleries, {}))
        assert [t.track_id for t in settled.tracks] == [t.track_id for t in source.truth()]
        return settled, galleries

    return settle_them


def test_gap_is_filled_by_a_repair_that_can_be_left_out(
    neighbours: Any, scripted_models: Any, settled_with_gaps: Any
) -> None:
    settled, galleries = settled_with_gaps(neighbours, scripted_models(neighbours), (1, 20, 28))
    mended, _ = mend(neighbours, ScriptedPropagator(neighbours.truth()), ScriptedEmbedder(), settled, galleries)
    before, after = masks(settled.tracks), masks(mended.tracks)
    assert after.keys() - before.keys() == {(1, f) for f in range(20, 28)}
    assert all(after[cell] == before[cell] for cell in before)
    truth = masks(neighbours.truth())
    assert all(after[1, f] == truth[1, f] for f in range(20, 28))
    (repair,) = (r for r in mended.resolution.repairs if r.kind is RepairKind.RESEED)
    assert (repair.start, repair.stop, list(repair.relabels.values())) == (20, 28, [1])
    assert repair.reason.startswith("8 masks of track 1, in frames 20 to 27,")
    others = [r for r in mended.resolution.repairs if r is not repair]
    assert masks(apply_repairs(mended.carried, others)) == before
    # As lineage knows it: these frames come from a track of their own.
    (patch,) = (t for t in mended.carried if t.sources[0] is Source.RESEEDED)
    assert patch.frame_indices.tolist() == list(range(20, 28))


def test_mask_that_looks_like_another_object_is_not_shown(
    neighbours: Any, scripted_models: Any, settled_with_gaps: Any
) -> None:
    """One walk goes over to the neighbour, which has no mask of its own there: only looks tell which is right."""
    settled, galleries = settled_with_gaps(neighbours, scripted_models(neighbours), (1, 20, 28), (2, 18, 30))
    propagator = ScriptedPropagator(neighbours.truth(), failures=[Takeover(22, 1, 2)])
    after = masks(mend(neighbours, propagator, ScriptedEmbedder(), settled, galleries)[0].tracks)
    truth = masks(neighbours.truth())
    assert {f: after.get((1, f)) for f in range(20, 28)} == {f: truth[1, f] for f in range(20, 28)}


def test_two_that_come_out_of_one_gap_never_share_pixels(
    crossing: Any, world: Any, scripted_models: Any, settled_with_gaps: Any
) -> None:
    """The propagator shows both whole, as if they were of glass."""
    settled, galleries = settled_with_gaps(crossing, scripted_models(crossing), (1, 20, 40), (2, 20, 40))
    glass = [replace(world([b], 60).truth()[0], track_id=k) for k, b in enumerate(crossing.blocks, start=1)]
    shown = masks(mend(crossing, ScriptedPropagator(glass), ScriptedEmbedder(), settled, galleries)[0].tracks)
    both = [f for f in range(20, 40) if {(1, f), (2, f)} <= shown.keys()]
    assert {22, 26, 38} <= set(both)  # in 26 they touch
    for frame in both:
        assert not (decode_mask(shown[1, frame]) & decode_mask(shown[2, frame])).any()


def test_gaps_that_are_too_long_and_tracks_without_masks_are_left_alone(
    neighbours: Any, scripted_models: Any, without: Any, settled_with_gaps: Any
) -> None:
    propagator = ScriptedPropagator(neighbours.truth())
    settled, galleries = settled_with_gaps(neighbours, scripted_models(neighbours), (3, 10, 51))
    assert mend(neighbours, propagator, ScriptedEmbedder(), settled, galleries) == (settled, False)
    boxes = Evidence(tuple(replace(without(t, 20, 28), masks=None) for t in neighbours.truth()), {}, {})
    only_boxes = settle(boxes)
    assert mend(neighbours, propagator, ScriptedEmbedder(), only_boxes, {}) == (only_boxes, False)


def test_nothing_is_settled_and_nothing_is_mended(neighbours: Any) -> None:
    settled = settle(Evidence((), {}, {}))
    assert mend(neighbours, ScriptedPropagator(()), ScriptedEmbedder(), settled, {}) == (settled, False)


@pytest.mark.parametrize("done", [0, 1, 2])
def test_stopped_between_two_gaps_keeps_what_is_filled(
    neighbours: Any, scripted_models: Any, settled_with_gaps: Any, done: int
) -> None:
    settled, galleries = settled_with_gaps(neighbours, scripted_models(neighbours), (1, 14, 20), (3, 46, 49))
    steps: list[tuple[int, int]] = []
    found, is_cut_short = mend(
        neighbours,
        ScriptedPropagator(neighbours.truth()),
        ScriptedEmbedder(),
        settled,
        galleries,
        on_step=lambda step, steps_total: steps.append((step, steps_total)),
        should_stop=lambda: len(steps) == done,
    )
    assert steps == [(0, 2), (1, 2)][:done]
    assert is_cut_short is (done < 2)
    gained = {i for i, _ in masks(found.tracks).keys() - masks(settled.tracks).keys()}
    assert gained == [set(), {1}, {1, 3}][done]


@pytest.fixture(scope="module")
def clip() -> Any:
    """One in which something is left out in a crossing, so that there is a gap to fill."""
    return scenes.flock(102, frames=48)


def test_run_that_is_stopped_while_gaps_are_filled_says_so_and_goes_on_later(clip: Any, tmp_path: Path) -> None:
    options = replace(TrackingOptions(), identity=IdentityOptions(mend_masks=True))
    models = pipeline.Backends.load(options)
    seen: list[pipeline.Progress] = []

    def run(*, is_stopped: bool) -> Any:
        return pipeline.track(
            clip.source,
            "sheep. dog.",
            options,
            backends=models,
            on_progress=seen.append,
            should_stop=lambda: is_stopped and seen[-1:] != [] and seen[-1].stage == "repair",
            checkpointing=Checkpointing(tmp_path, resume=not is_stopped),
        )

    stopped = run(is_stopped=True)
    assert [p.stage for p in seen] == ["track"] * 48 + ["repair"]
    assert stopped.was_stopped
    assert stopped.frames_processed == 48
    assert stopped.warnings == ("stopped while gaps were filled, as asked; some tracks have gaps left",)
    seen.clear()
    whole = run(is_stopped=False)
    assert not whole.was_stopped
    assert {p.stage for p in seen} == {"repair", "fill"}
    assert [(p.steps_done, p.steps_total) for p in seen[1:]] == [(k, len(seen) - 1) for k in range(len(seen) - 1)]
    assert masks(stopped.tracks).items() <= masks(whole.tracks).items()
    assert len(masks(stopped.tracks)) < len(masks(whole.tracks))


def test_run_that_is_stopped_early_fills_no_gaps(clip: Any) -> None:
    """Whoever stops a run waits for it."""
    options = replace(TrackingOptions(), identity=IdentityOptions(mend_masks=True))
    models = pipeline.Backends.load(options)

    def stages(options: TrackingOptions, *, stop_at: int | None = None) -> set[str]:
        seen: list[pipeline.Progress] = []
        pipeline.track(
            clip.source,
            "sheep. dog.",
            options,
            backends=models,
            on_progress=seen.append,
            should_stop=lambda: len(seen) == stop_at,
        )
        return {p.stage for p in seen}

    assert "fill" in stages(replace(options, stop=44))
    assert "fill" not in stages(options, stop_at=44)


def test_bundled_models_fill_gaps_and_change_nothing_else(clip: Any) -> None:
    options = TrackingOptions()
    models = pipeline.Backends.load(options)
    kept: list[Evidence] = []
    pipeline.track(clip.source, "sheep. dog.", options, backends=models, on_evidence=kept.append)
    settled = settle(kept[0], options.identity)
    mended, _ = mend(clip.source, models.propagator, models.embedder, settled, kept[0].galleries)
    anew = [r for r in mended.resolution.repairs if r.kind is RepairKind.RESEED]
    assert anew
    before, after = masks(settled.tracks), masks(mended.tracks)
    assert all(after[cell] == before[cell] for cell in before)
    named = {(i, f) for r in anew for i in r.relabels.values() if i for f in range(r.start, r.stop or 0)}
    assert after.keys() - before.keys() <= named
    others = [r for r in mended.resolution.repairs if r.kind is not RepairKind.RESEED]
    assert masks(apply_repairs(mended.carried, others)) == before
