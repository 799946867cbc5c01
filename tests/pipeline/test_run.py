"""From a source and a prompt to a result, with scripted models that fail to order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fiftyone_plugin import metrics, pipeline
from fiftyone_plugin.benchmarks.identity_injection import take
from fiftyone_plugin.config import (
    AssociationOptions,
    DetectionOptions,
    IdentityOptions,
    PropagationOptions,
    TrackingOptions,
)
from fiftyone_plugin.detectors.prompted import PromptedDetector
from fiftyone_plugin.errors import FrameRangeError, PromptError
from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.pipeline import Backends, Progress
from fiftyone_plugin.synthetic.fakes import Failure, Loss, Swap, Takeover
from fiftyone_plugin.types import Seed, Source, Track, TrackingResult

RED, BLUE, GREEN = (210, 40, 40), (40, 60, 220), (40, 190, 60)
Models = Callable[..., Backends]


def options(*, repair: bool = True, start: int = 0, stop: int | None = None, **association: Any) -> TrackingOptions:
    return TrackingOptions(
        association=AssociationOptions(**association),
        identity=IdentityOptions(repair=repair),
        start=start,
        stop=stop,
    )


def same_tracks(a: Sequence[Track], b: Sequence[Track]) -> None:
    """Byte for byte, field by field."""
    assert [t.track_id for t in a] == [t.track_id for t in b]
    for one, other in zip(a, b, strict=True):
        assert (one.phrase, one.sources, one.masks) == (other.phrase, other.sources, other.masks)
        for name in ("frame_indices", "boxes_xyxy", "scores", "mask_scores", "identity_confidence"):
            x, y = getattr(one, name), getattr(other, name)
            assert x.dtype == y.dtype, name
            assert x.tobytes() == y.tobytes(), name


def scored(world: Any, result: TrackingResult) -> metrics.Scores:
    return metrics.evaluate(world.truth(), result.tracks)


def test_tracks_of_a_quiet_scene_are_the_truth(world: Any, block: Any, scripted_models: Models) -> None:
    scene = world([block("sheep", RED, 10, 10, 1.0), block("dog", BLUE, 10, 60, 1.5)], 40)
    result = pipeline.track(scene, "sheep. dog.", backends=scripted_models(scene))
    assert sorted(t.phrase for t in result.tracks) == ["dog", "sheep"]
    assert scored(scene, result).as_dict()["HOTA"] == pytest.approx(100)
    assert result.repairs == ()
    assert result.frames_processed == 40
    assert result.warnings == ()


def test_no_repair_is_byte_identical_to_a_plain_loop(crossing: Any, scripted_models: Models) -> None:
    """The oracle is written out here and shares no code with the walk: seed on the first frame, then advance."""
    swap = Swap(30, (1, 2))
    result = pipeline.track(
        crossing, "sheep", options(repair=False), backends=scripted_models(crossing, swap, miss_rate=0.0)
    )

    models = scripted_models(crossing, swap)
    session = models.propagator.open(height_px=crossing.info.height_px, width_px=crossing.info.width_px)
    looks = PromptedDetector(models.detector, ("sheep",), DetectionOptions())
    rows: dict[int, list[tuple[int, np.ndarray, float, float]]] = {}
    for frame in crossing.frames():
        seen = session.advance(frame)
        if frame.index == 0:
            found = looks.detect([frame])[0]
            seen = session.seed([Seed(n + 1, box_xyxy=box) for n, box in enumerate(found.boxes_xyxy)])
        for k, track_id in enumerate(seen.track_ids.tolist()):
            if seen.masks[k].any():
                rows.setdefault(track_id, []).append(
                    (frame.index, seen.masks[k], float(seen.mask_scores[k]), float(seen.object_scores[k]))
                )
    expected = []
    for track_id, row in sorted(rows.items()):
        boxes = []
        for _, mask, _, _ in row:
            y, x = np.nonzero(mask)
            boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
        expected.append(
            Track(
                track_id=track_id,
                phrase="sheep",
                frame_indices=np.array([r[0] for r in row], np.int64),
                boxes_xyxy=np.array(boxes, np.float32),
                masks=tuple(encode_mask(r[1]) for r in row),
                scores=np.array([1 / (1 + np.exp(-r[3])) for r in row], np.float32),
                mask_scores=np.array([r[2] for r in row], np.float32),
                identity_confidence=np.ones(len(row), np.float32),
                sources=(Source.SEED, *[Source.PROPAGATED] * (len(row) - 1)),
            )
        )
    same_tracks(result.tracks, expected)
    assert (result.encounters, result.decisions, result.repairs) == ((), (), ())


def plain_and_repaired(
    scene: Any, scripted_models: Models, *failures: Failure
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of the same failures without and with repair."""
    runs = [
        pipeline.track(scene, "sheep", options(repair=repair), backends=scripted_models(scene, *failures))
        for repair in (False, True)
    ]
    before, after = (scored(scene, run).as_dict() for run in runs)
    return before, after


@pytest.mark.parametrize(("limit", "first", "last"), [(1.0, None, None), (0.3, 29, 31)])
def test_frames_of_heavy_overlap_stay_out_of_memory_where_that_is_asked_for(
    world: Any, block: Any, scripted_models: Models, limit: float, first: int | None, last: int | None
) -> None:
    """Blocks of 20 px, one 10 px lower, 4 px nearer every frame: less than 8 px apart they share more than 0.3."""
    scene = world([block("sheep", RED, 5, 40, 2.0), block("sheep", BLUE, 125, 50, -2.0)], 60)
    models = scripted_models(scene)
    sessions: list[Any] = []
    propagator = models.propagator
    recording = type("Recording", (), {"name": "recording"})()
    recording.open = lambda **size: sessions.append(propagator.open(**size)) or sessions[-1]
    chosen = replace(options(repair=False), propagation=PropagationOptions(max_memory_overlap=limit))
    pipeline.track(scene, "sheep", chosen, backends=replace(models, propagator=recording))
    frames = sorted({frame for session in sessions for frame, _ in session.forgotten})
    assert (frames[:1], frames[-1:]) == (([first], [last]) if first is not None else ([], []))


def test_swap_in_a_crossing_is_repaired(flock: Any, scripted_models: Models) -> None:
    before, after = plain_and_repaired(flock, scripted_models, Swap(30, (3, 4)))
    # The exchange may be placed a frame early or late, since nothing is seen of the one behind just then.
    assert after["IDF1"] > 97 > 80 > before["IDF1"]


def test_repair_says_what_it_did(flock: Any, scripted_models: Models) -> None:
    result = pipeline.track(flock, "sheep", backends=scripted_models(flock, Swap(30, (3, 4))))
    assert result.repairs
    for repair in result.repairs:
        assert repair.reason
        assert repair.margin > 0
        assert 25 <= repair.start <= 36


def test_crossing_without_a_swap_is_left_as_it_is(flock: Any, crossing: Any, scripted_models: Models) -> None:
    """Harm: a repair where nothing was wrong."""
    for scene in (flock, crossing):
        result = pipeline.track(scene, "sheep", backends=scripted_models(scene))
        assert result.repairs == ()
        assert scored(scene, result).as_dict()["IDF1"] > 99


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(Swap(30, (1, 2)), id="swap"),
        pytest.param(Takeover(30, left=1, taken=2), id="takeover"),
        pytest.param(Loss(45, 1), id="loss"),
    ],
)
def test_repair_of_two_objects_never_makes_identities_worse(
    crossing: Any, scripted_models: Models, failure: Failure
) -> None:
    """Two objects teach the identity layer little about how individuals differ; it may abstain, but not guess."""
    before, after = plain_and_repaired(crossing, scripted_models, failure)
    assert after["IDF1"] >= before["IDF1"] - 1


def test_takeover_is_noticed_and_the_lost_object_found_again(flock: Any, scripted_models: Models) -> None:
    before, after = plain_and_repaired(flock, scripted_models, Takeover(30, left=3, taken=4))
    assert after["IDF1"] > before["IDF1"]
    assert after["DetA"] > before["DetA"]


def test_lost_object_returns_under_its_old_identity(flock: Any, scripted_models: Models) -> None:
    """The mask is lost on frame 20; the detector sees the object again, and its gallery says who it is."""
    before, after = plain_and_repaired(flock, scripted_models, Loss(20, 1))
    assert before["IDSW"] > 0
    assert after["IDSW"] == 0


def test_new_object_midway_is_tracked_from_its_first_frames(world: Any, block: Any, scripted_models: Models) -> None:
    scene = world([block("sheep", RED, 10, 10), block("sheep", BLUE, 60, 60, start=20)], 64)
    told: list[Progress] = []
    result = pipeline.track(scene, "sheep", options(), backends=scripted_models(scene), on_progress=told.append)
    assert [(p.stage, p.steps_done, p.steps_total) for p in told[64:]] == [("trace", 0, 1), ("repair", 0, 0)]
    late = [t for t in result.tracks if t.frame_indices[0] > 0]
    assert len(late) == 1
    assert 20 <= late[0].frame_indices[0] <= 24
    assert late[0].frame_indices[-1] == 63


def one_look_only(scene: Any, number: int, frames: set[int]) -> tuple[Track, ...]:
    """The truth as a detector sees it that finds one object in these frames only."""
    kept = []
    for t in scene.truth():
        rows = [r for r, f in enumerate(t.frame_indices.tolist()) if t.track_id != number or f in frames]
        kept.append(take(t.track_id, [(t, np.array(rows))]))
    return tuple(kept)


@pytest.mark.parametrize(
    ("seen_on", "confirm", "tracks"),
    [
        pytest.param({16}, 4, 1, id="seen once, not confirmed"),
        pytest.param({16, 20}, 4, 2, id="seen again in the neighbouring look"),
        pytest.param({16}, 0, 2, id="one look is trusted"),
    ],
)
def test_tentative_seed_is_started_only_when_neighbouring_frames_support_it(
    world: Any, block: Any, scripted_models: Models, seen_on: set[int], confirm: int, tracks: int
) -> None:
    scene = world([block("sheep", RED, 10, 10), block("sheep", BLUE, 100, 60, start=10)], 32)
    models = scripted_models(scene, truth=one_look_only(scene, 2, seen_on))
    result = pipeline.track(scene, "sheep", options(repair=False, confirm_within_frames=confirm), backends=models)
    assert len(result.tracks) == tracks


def test_redetection_switched_off_looks_at_the_first_frame_only(
    world: Any, block: Any, scripted_models: Models
) -> None:
    scene = world([block("sheep", RED, 10, 10), block("sheep", BLUE, 60, 60, start=5)], 48)
    result = pipeline.track(scene, "sheep", options(redetect_every_frames=0), backends=scripted_models(scene))
    assert len(result.tracks) == 1


def test_max_tracks_leaves_out_the_rest_and_says_so(world: Any, block: Any, scripted_models: Models) -> None:
    scene = world([block("sheep", RED, 10 + 30 * n, 10) for n in range(4)], 8)
    result = pipeline.track(scene, "sheep", options(max_tracks=3), backends=scripted_models(scene))
    assert len(result.tracks) == 3
    assert any("1 objects left out" in w and "max_tracks = 3" in w for w in result.warnings)


def test_nothing_found_is_zero_tracks_and_a_warning(world: Any, block: Any, scripted_models: Models) -> None:
    scene = world([block("sheep", RED, 10, 10)], 20)
    result = pipeline.track(scene, "Dog. cat", backends=scripted_models(scene))
    assert result.tracks == ()
    assert result.frames_processed == 20
    assert result.warnings == ("nothing found for 'dog', 'cat': zero tracks",)


def test_stopped_run_keeps_what_was_done(crossing: Any, scripted_models: Models) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 12

    result = pipeline.track(crossing, "sheep", backends=scripted_models(crossing), should_stop=should_stop)
    assert result.frames_processed == 12
    assert {int(t.frame_indices[-1]) for t in result.tracks} == {11}
    assert result.warnings == ("stopped before frame 12 as asked; the tracks end there",)


def test_run_stopped_before_its_first_frame_has_nothing(crossing: Any, scripted_models: Models) -> None:
    result = pipeline.track(crossing, "sheep", backends=scripted_models(crossing), should_stop=lambda: True)
    assert (result.frames_processed, result.tracks) == (0, ())


def test_progress_is_reported_for_every_frame_and_the_repair(crossing: Any, scripted_models: Models) -> None:
    told: list[Progress] = []
    pipeline.track(
        crossing, "sheep", options(start=10, stop=40), backends=scripted_models(crossing), on_progress=told.append
    )
    walked = [p for p in told if p.stage == "track"]
    assert [p.frame_index for p in walked] == list(range(10, 40))
    assert [p.frames_done for p in walked] == list(range(1, 31))
    assert {p.frames_total for p in told} == {30}
    assert {p.tracks_live for p in walked} == {2}
    assert [p.stage for p in told][-1] == "repair"


def test_frame_range_limits_the_tracks(crossing: Any, scripted_models: Models) -> None:
    result = pipeline.track(crossing, "sheep", options(start=20, stop=28), backends=scripted_models(crossing))
    assert result.frames_processed == 8
    frames = np.concatenate([t.frame_indices for t in result.tracks])
    assert (frames.min(), frames.max()) == (20, 27)


@pytest.mark.parametrize(
    ("start", "stop", "named"),
    [(60, None, "start = 60"), (-1, None, "start = -1"), (5, 5, "stop = 5"), (0, 61, "stop = 61")],
)
def test_frame_range_outside_the_video_is_refused(
    crossing: Any, scripted_models: Models, start: int, stop: int | None, named: str
) -> None:
    with pytest.raises(FrameRangeError, match=rf"{named} \(counted from 0\): must lie in .*60 frames"):
        pipeline.track(crossing, "sheep", options(start=start, stop=stop), backends=scripted_models(crossing))


def test_prompt_without_a_class_is_refused_before_any_model_is_loaded(crossing: Any) -> None:
    with pytest.raises(PromptError):
        pipeline.track(crossing, " . ,")


def test_result_carries_the_settings_it_was_made_with(crossing: Any, scripted_models: Models) -> None:
    chosen = options(stop=2, max_tracks=7)
    result = pipeline.track(crossing, "A sheep.", chosen, backends=scripted_models(crossing))
    assert result.settings["prompt"] == "A sheep."
    assert result.settings["phrases"] == ["a sheep"]
    assert result.settings["association"]["max_tracks"] == 7
    assert result.seconds > 0
    assert result.peak_memory_mb > 0


def test_same_run_twice_gives_the_same_bytes(crossing: Any, scripted_models: Models) -> None:
    def run() -> TrackingResult:
        models = scripted_models(crossing, Swap(30, (1, 2)), miss_rate=0.3, jitter_px=1.0, seed=3)
        return pipeline.track(crossing, "sheep", backends=models)

    first, second = run(), run()
    same_tracks(first.tracks, second.tracks)
    assert first.repairs == second.repairs


def test_preview_shows_detections_on_spread_frames(crossing: Any, scripted_models: Models) -> None:
    shown = pipeline.preview(crossing, "sheep", frames=4, backends=scripted_models(crossing))
    picks = [frame.index for frame, _ in shown]
    assert len(picks) == 4
    assert picks == sorted(picks)
    assert min(np.diff(picks)) >= 10
    for frame, found in shown:
        assert found.frame_index == frame.index
    assert len(shown[0][1]) == 2


@pytest.mark.parametrize("frames", [1, 200])
def test_preview_of_few_or_too_many_frames_stays_in_the_range(
    crossing: Any, scripted_models: Models, frames: int
) -> None:
    chosen = options(start=50, stop=54)
    shown = pipeline.preview(crossing, "sheep", chosen, frames=frames, backends=scripted_models(crossing))
    picks = [frame.index for frame, _ in shown]
    assert len(set(picks)) == len(picks) >= 1
    assert set(picks) <= set(range(50, 54))


def test_live_carriers_never_share_an_id_with_another_phrase(world: Any, block: Any, scripted_models: Models) -> None:
    scene = world([block("sheep", RED, 10, 10), block("dog", BLUE, 60, 10), block("cat", GREEN, 110, 10)], 8)
    result = pipeline.track(scene, "sheep. dog. cat.", backends=scripted_models(scene))
    ids = [t.track_id for t in result.tracks]
    assert_array_equal(sorted(ids), [1, 2, 3])
