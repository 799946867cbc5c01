"""Writing and reading against a real database."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin import geometry
from fiftyone_plugin.errors import FieldConflictError, OptionError, OutputError, TrackFileError
from fiftyone_plugin.types import Source, Track, TrackingResult

pytestmark = pytest.mark.fiftyone


def assert_same_tracks(found: tuple[Track, ...], expected: tuple[Track, ...]) -> None:
    assert [t.track_id for t in found] == [t.track_id for t in expected]
    for a, b in zip(found, expected, strict=True):
        assert (a.phrase, a.masks, a.sources) == (b.phrase, b.masks, b.sources)
        for name in ("frame_indices", "boxes_xyxy", "scores", "mask_scores", "identity_confidence"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def content(dataset: Any) -> list[Any]:
    """Every sample and frame document as it lies in the database, but for the times of modification."""

    def strip(document: Any) -> Any:
        return {k: v for k, v in document.to_mongo_dict().items() if k != "last_modified_at"}

    dataset.reload()
    has_frames = dataset.media_type == "video"
    return [(strip(s), [strip(f) for f in s.frames.values()] if has_frames else []) for s in dataset.iter_samples()]


def test_read_tracks_what_was_written_comes_back_exactly(labels: ModuleType, dataset: Any, result: Any) -> None:
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", result)
    assert_same_tracks(labels.read_tracks(sample, "tracks"), result.tracks)


def test_read_tracks_without_our_summary_takes_the_size_from_the_video(
    labels: ModuleType, dataset: Any, result: Any
) -> None:
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", result)
    dataset.delete_run("shepherd_tracks")
    assert_same_tracks(labels.read_tracks(sample, "tracks"), result.tracks)


def test_write_tracks_boxes_with_fractions_and_no_masks_come_back_exactly(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    # 1/3 and the like are no finite binary fractions: the relative box must keep enough digits for float32 pixels.
    rng = np.random.default_rng(1)
    track = result.tracks[0]
    corners = rng.uniform(0, 30, (len(track), 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + rng.uniform(1, 18, corners.shape).astype(np.float32)], axis=1)
    boxes_only = replace(track, boxes_xyxy=boxes, masks=None)
    labels.write_tracks(dataset.first(), "tracks", replace(result, tracks=(boxes_only,)))
    assert_same_tracks(labels.read_tracks(dataset.first(), "tracks"), (boxes_only,))


def test_write_tracks_mask_in_a_box_with_fractions_comes_back_exactly(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    track = replace(result.tracks[0], boxes_xyxy=result.tracks[0].boxes_xyxy + np.float32([-0.4, 0.0, 0.3, 0.25]))
    labels.write_tracks(dataset.first(), "tracks", replace(result, tracks=(track,)))
    assert_same_tracks(labels.read_tracks(dataset.first(), "tracks"), (track,))


def test_write_tracks_mask_that_sticks_out_widens_the_box(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    whole = result.tracks[0]
    narrow = replace(whole, boxes_xyxy=whole.boxes_xyxy + np.float32([3, 3, 0, 0]))
    labels.write_tracks(dataset.first(), "tracks", replace(result, tracks=(narrow,)))
    assert_same_tracks(labels.read_tracks(dataset.first(), "tracks"), (whole,))


def test_write_tracks_labels_follow_the_schema(
    fo: ModuleType, labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", result)
    frame = sample.frames[5]  # 1-based: our frame 4, where track 2 is absent and track 3 begins
    assert [(d.index, d.label, d.source) for d in frame.tracks.detections] == [
        (1, "sheep", "propagated"),
        (3, "dog", "seed"),
    ]
    first = frame.tracks.detections[0]
    assert first.bounding_box == pytest.approx([6 / 64, 4 / 48, 8 / 64, 8 / 48])
    assert first.mask.shape == (8, 8)
    assert not first.mask[0, 0]
    assert first.confidence == pytest.approx(float(result.tracks[0].scores[4]))
    # One instance per track, in all frames, and no two tracks share one.
    found = dataset.select(sample.id).values("frames.tracks.detections.instance.id", unwind=True)
    ids = dataset.select(sample.id).values("frames.tracks.detections.index", unwind=True)
    assert len(set(found)) == len(set(zip(found, ids, strict=True))) == 3
    # Processed frames without an object have an empty label, not none at all; nothing is missing from the schema.
    assert dataset.get_dynamic_frame_field_schema() == {}
    assert dataset.get_dynamic_field_schema() == {}
    trajectories = dataset.select(sample.id).to_trajectories("frames.tracks")
    assert len(trajectories) == 3


def test_write_tracks_chunks_cover_every_frame(
    labels: ModuleType, dataset: Any, result: TrackingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fiftyone_plugin.labels.storage.CHUNK_FRAMES", 5)
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", result)
    assert sorted(sample.frames) == list(range(1, 13))
    assert_same_tracks(labels.read_tracks(sample, "tracks"), result.tracks)


def test_write_tracks_without_tracks_marks_the_frames_as_looked_at(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", replace(result, tracks=(), encounters=(), decisions=(), repairs=()))
    assert [f.tracks.detections for f in sample.frames.values()] == [[]] * 12
    assert sample.tracks_events.detections == []
    assert labels.read_tracks(sample, "tracks") == ()


def test_write_tracks_events_are_on_the_timeline(labels: ModuleType, dataset: Any, result: TrackingResult) -> None:
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", result)
    sample.reload()
    events = [(e.label, e.support, e.track_ids) for e in sample.tracks_events.detections]
    assert events == [
        ("loss", [4, 6], [2]),
        ("swap_repaired", [4, 6], [1, 2]),
        ("birth", [5, 5], [3]),
        ("needs_review", [9, 10], [1, 2]),
        ("loss", [11, 12], [2]),
    ]
    swap, doubt = sample.tracks_events.detections[1], sample.tracks_events.detections[3]
    assert (swap.decision, swap.margin, swap.confidence, swap.encounter_id) == ("exchange", 4.5, 0.98, 1)
    assert (doubt.decision, doubt.margin, doubt.confidence) == ("abstain", 0.4, 0.55)
    clips = dataset.filter_labels("tracks_events", _is_label("needs_review")).to_clips("tracks_events")
    assert [c.support for c in clips] == [[9, 10]]


def _is_label(name: str) -> Any:
    from fiftyone import ViewField

    return ViewField("label") == name


def test_write_tracks_run_records_prompt_settings_and_samples(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    first, second = dataset
    labels.write_tracks(first, "tracks", result)
    labels.write_tracks(second, "tracks", replace(result, tracks=result.tracks[:1]))
    config = dataset.get_run_info("shepherd_tracks").config
    assert (config.method, config.field, config.events_field) == ("shepherd", "tracks", "tracks_events")
    state = labels.field_state(dataset, "tracks")
    assert state.prompt == "sheep. dog."
    assert state.settings["identity"] == {"known_counts": {"$5 note": 1}}
    assert state.finished == {first.id, second.id}
    summary = labels.read_summary(first, "tracks")
    assert summary is not None
    assert [(t["track_id"], t["start"], t["stop"], t["gaps"]) for t in summary["tracks"]] == [
        (1, 0, 12, []),
        (2, 0, 10, [[3, 6]]),
        (3, 4, 12, []),
    ]
    assert summary["repairs"][0]["relabels"] == {"1": 2, "2": 1}
    assert summary["decisions"][0]["terms"] == {"appearance": 4.0, "motion": 0.5}
    assert len(labels.read_summary(second, "tracks")["tracks"]) == 1


def test_summaries_of_a_run_are_one_short_text_each(labels: ModuleType, dataset: Any, result: TrackingResult) -> None:
    # FiftyOne walks over every value of a run's results when it saves them, which it does for every video and edit.
    for sample in dataset:
        labels.write_tracks(sample, "tracks", result)
    kept = dataset.load_run_results("shepherd_tracks", cache=False).summaries
    assert set(kept) == set(dataset.values("id"))
    assert {type(packed) for packed in kept.values()} == {str}
    summary = labels.read_summary(dataset.first(), "tracks")
    assert len(kept[dataset.first().id]) < len(json.dumps(summary)) / 2


def test_clone_of_a_dataset_can_be_reviewed_and_edited_by_itself(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    labels.write_tracks(dataset.first(), "tracks", result)
    before = labels.read_summary(dataset.first(), "tracks")
    clone = dataset.clone()
    try:
        assert labels.read_summary(clone.first(), "tracks") == before
        labels.delete(clone.first(), "tracks", 3)
        assert len(labels.read_tracks(clone.first(), "tracks")) == 2
        assert len(labels.read_tracks(dataset.first(), "tracks")) == 3
        assert labels.read_summary(dataset.first(), "tracks") == before
    finally:
        clone.delete()


# --- labels of others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_write_tracks_field_of_others_is_left_untouched(
    fo: ModuleType, labels: ModuleType, dataset: Any, result: TrackingResult, overwrite: bool
) -> None:
    for sample in dataset:
        sample.frames[1]["tracks"] = fo.Detections(
            detections=[fo.Detection(label="mine", bounding_box=[0, 0, 0.5, 0.5], index=7)]
        )
        sample.save()
    before = content(dataset)
    with pytest.raises(FieldConflictError, match=r"'tracks'.*never overwritten: give another"):
        labels.write_tracks(dataset.first(), "tracks", result, overwrite=overwrite)
    assert content(dataset) == before
    assert dataset.list_runs() == []


def test_write_tracks_events_field_of_others_is_left_untouched(
    fo: ModuleType, labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    sample = dataset.first()
    sample["tracks_events"] = fo.TemporalDetections(detections=[fo.TemporalDetection(label="mine", support=[1, 3])])
    sample.save()
    before = content(dataset)
    with pytest.raises(FieldConflictError, match="tracks_events"):
        labels.write_tracks(sample, "tracks", result, overwrite=True)
    assert content(dataset) == before
    assert not dataset.has_frame_field("tracks")


def test_write_tracks_field_made_by_others_after_ours_was_deleted_is_not_ours(
    fo: ModuleType, labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", result)
    dataset.delete_frame_field("tracks")
    sample.frames[1]["tracks"] = fo.Detections(detections=[fo.Detection(label="mine", bounding_box=[0, 0, 1, 1])])
    sample.save()
    before = content(dataset)
    with pytest.raises(FieldConflictError, match="never overwritten"):
        labels.write_tracks(sample, "tracks", result, overwrite=True)
    assert content(dataset) == before


def test_write_tracks_after_our_fields_were_deleted_begins_anew(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    first, second = dataset
    for sample in (first, second):
        labels.write_tracks(sample, "tracks", result)
    dataset.delete_frame_field("tracks")
    dataset.delete_sample_field("tracks_events")
    labels.write_tracks(first, "tracks", result)
    assert labels.field_state(dataset, "tracks").finished == {first.id}
    assert_same_tracks(labels.read_tracks(first, "tracks"), result.tracks)


def test_write_tracks_labels_drawn_by_hand_in_our_field_on_another_video_are_kept(
    fo: ModuleType, labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    first, second = dataset
    labels.write_tracks(first, "tracks", result)
    second.frames[3]["tracks"] = fo.Detections(detections=[fo.Detection(label="mine", bounding_box=[0, 0, 1, 1])])
    second.save()
    before = content(dataset)
    with pytest.raises(FieldConflictError, match="1 labels there that this run did not write"):
        labels.write_tracks(second, "tracks", result, overwrite=True)
    assert content(dataset) == before


def test_write_tracks_of_another_run_is_a_conflict(labels: ModuleType, dataset: Any, result: TrackingResult) -> None:
    labels.write_tracks(dataset.first(), "tracks", result)
    with pytest.raises(FieldConflictError, match="not made by this run"):
        labels.write_tracks(dataset.first(), "tracks", result, run_key="another", overwrite=True)


@pytest.mark.parametrize("field", ["id", "frame_number"])
def test_write_tracks_field_of_fiftyone_itself_is_a_conflict(
    labels: ModuleType, dataset: Any, result: TrackingResult, field: str
) -> None:
    with pytest.raises(FieldConflictError):
        labels.write_tracks(dataset.first(), field, result)


@pytest.mark.parametrize("field", ["", "my tracks", "a.b", "_hidden", "frames."])
def test_write_tracks_impossible_field_name_says_so(
    labels: ModuleType, dataset: Any, result: TrackingResult, field: str
) -> None:
    with pytest.raises(OptionError, match="letters, digits and underscores"):
        labels.write_tracks(dataset.first(), field, result)


# --- our own labels ----------------------------------------------------------------------------------------------


def test_write_tracks_twice_needs_overwrite(labels: ModuleType, dataset: Any, result: TrackingResult) -> None:
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", result)
    before = content(dataset)
    with pytest.raises(FieldConflictError, match=r"prompt 'sheep\. dog\.'\): give overwrite=True"):
        labels.write_tracks(sample, "tracks", result)
    assert content(dataset) == before


def test_write_tracks_overwrite_replaces_this_video_only(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    first, second = dataset
    for sample in (first, second):
        labels.write_tracks(sample, "tracks", result)
    other = content(dataset)[1]
    shorter = replace(result, tracks=result.tracks[2:], repairs=(), decisions=(), frames_processed=6)
    labels.write_tracks(first, "tracks", shorter, overwrite=True)
    assert_same_tracks(labels.read_tracks(first, "tracks"), shorter.tracks)
    first.reload()
    assert first.frames[1].tracks.detections == []
    assert {e.label for e in first.tracks_events.detections} == {"birth"}
    assert content(dataset)[1] == other


def test_write_tracks_interrupted_write_stays_ours_and_may_be_repeated(
    labels: ModuleType, dataset: Any, result: TrackingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = dataset.first()
    monkeypatch.setattr("fiftyone_plugin.labels.storage.CHUNK_FRAMES", 5)
    with monkeypatch.context() as patch:
        patch.setattr("fiftyone_plugin.labels.storage.write_events", _fail)
        with pytest.raises(KeyboardInterrupt):
            labels.write_tracks(sample, "tracks", result)
    state = labels.field_state(dataset, "tracks")
    assert (state.is_ours, state.started, state.finished) == (True, {sample.id}, frozenset())
    labels.write_tracks(sample, "tracks", result)
    assert_same_tracks(labels.read_tracks(sample, "tracks"), result.tracks)


def _fail(*_: Any) -> None:
    raise KeyboardInterrupt


def test_write_tracks_of_a_stopped_run_may_be_repeated(
    labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", replace(result, tracks=result.tracks[:1]), is_complete=False)
    assert len(labels.read_tracks(sample, "tracks")) == 1
    labels.write_tracks(sample, "tracks", result)
    assert len(labels.read_tracks(sample, "tracks")) == 3


def test_write_tracks_full_disk_is_one_line(
    labels: ModuleType, dataset: Any, result: TrackingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymongo.errors import OperationFailure

    def refuse(*_: Any, **__: Any) -> None:
        raise OperationFailure("No space left on device")

    monkeypatch.setattr("fiftyone_plugin.labels.storage._write_detections", refuse)
    with pytest.raises(OutputError, match="No space left on device") as raised:
        labels.write_tracks(dataset.first(), "tracks", result)
    assert "\n" not in str(raised.value)


# --- labels made elsewhere ---------------------------------------------------------------------------------------


def _add(fo: ModuleType, sample: Any, number: int, **attributes: Any) -> None:
    """A detection of 16 x 12 pixels at (16, 12) in a frame of 64 x 48."""
    frame = sample.frames[number]
    found = frame["theirs"] if frame.has_field("theirs") and frame["theirs"] else fo.Detections()
    found.detections.append(fo.Detection(**{"label": "sheep", "bounding_box": [0.25] * 4, **attributes}))
    frame["theirs"] = found
    sample.save()


def test_read_tracks_foreign_field_with_index_fills_in_what_is_missing(
    fo: ModuleType, labels: ModuleType, dataset: Any
) -> None:
    sample = dataset.first()
    for number in (2, 3, 5):
        _add(fo, sample, number, index=4, confidence=None if number == 3 else 0.5)
    (track,) = labels.read_tracks(sample, "theirs")
    assert (track.track_id, track.phrase, track.masks) == (4, "sheep", None)
    assert track.frame_indices.tolist() == [1, 2, 4]
    np.testing.assert_array_equal(track.boxes_xyxy, np.float32([[16, 12, 32, 24]] * 3))
    assert track.scores.tolist() == [0.5, 1.0, 0.5]
    assert track.identity_confidence.tolist() == [1.0, 1.0, 1.0]
    assert set(track.sources) == {Source.PROPAGATED}


def test_read_tracks_foreign_field_with_instances_only(fo: ModuleType, labels: ModuleType, dataset: Any) -> None:
    sample = dataset.first()
    one, two = fo.Instance(), fo.Instance()
    for number in (1, 2):
        _add(fo, sample, number, instance=one)
        _add(fo, sample, number, instance=two)
    assert [(t.track_id, len(t)) for t in labels.read_tracks(sample, "theirs")] == [(1, 2), (2, 2)]


def test_read_tracks_index_repeated_across_classes_is_renumbered(
    fo: ModuleType, labels: ModuleType, dataset: Any
) -> None:
    # SAM 3 in FiftyOne numbers each class from its own start.
    sample = dataset.first()
    _add(fo, sample, 1, index=1, label="sheep")
    _add(fo, sample, 1, index=1, label="dog")
    found = labels.read_tracks(sample, "theirs")
    assert [(t.track_id, t.phrase) for t in found] == [(1, "sheep"), (2, "dog")]


@pytest.mark.parametrize(
    ("shape", "is_exact"),
    [pytest.param((12, 16), True, id="as the box"), pytest.param((6, 8), False, id="half as large")],
)
def test_read_tracks_foreign_mask_is_placed_in_its_box(
    fo: ModuleType, labels: ModuleType, dataset: Any, shape: tuple[int, int], is_exact: bool
) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[: shape[0] // 2] = 255
    sample = dataset.first()
    _add(fo, sample, 1, index=1, mask=mask)
    (track,) = labels.read_tracks(sample, "theirs")
    expected = np.zeros((48, 64), np.bool_)
    expected[12:18, 16:32] = True
    np.testing.assert_array_equal(geometry.decode_mask(track.masks[0]), expected)


def test_read_tracks_without_identity_says_so(fo: ModuleType, labels: ModuleType, dataset: Any) -> None:
    _add(fo, dataset.first(), 1)
    with pytest.raises(TrackFileError, match="none of 1 detections has an index or an instance"):
        labels.read_tracks(dataset.first(), "theirs")


def test_read_tracks_same_index_twice_in_a_frame_names_the_frame(
    fo: ModuleType, labels: ModuleType, dataset: Any
) -> None:
    sample = dataset.first()
    _add(fo, sample, 3, index=2)
    _add(fo, sample, 3, index=2)
    with pytest.raises(TrackFileError, match="frame 3: two detections are sheep 2"):
        labels.read_tracks(sample, "theirs")


@pytest.mark.parametrize("field", ["nothing", "id"])
def test_read_tracks_field_without_detections_names_the_fields(
    fo: ModuleType, labels: ModuleType, dataset: Any, field: str
) -> None:
    sample = dataset.first()
    with pytest.raises(TrackFileError, match=f"no detections in 'frames.{field}'; it has them in no field"):
        labels.read_tracks(sample, field)
    _add(fo, sample, 1, index=1)
    with pytest.raises(TrackFileError, match=f"no detections in 'frames.{field}'; it has them in theirs"):
        labels.read_tracks(sample, field)


# --- image sequences and slices ----------------------------------------------------------------------------------


def test_write_tracks_image_sequence_round_trip(labels: ModuleType, sequences: Any, result: TrackingResult) -> None:
    view = sequences.group_by("scene", order_by="frame_number")
    first, second = labels.targets(view)
    labels.write_tracks(first, "tracks", result)
    assert_same_tracks(labels.read_tracks(first, "tracks"), result.tracks)
    assert second.count("tracks.detections") == 0
    by_number = {s.frame_number: s for s in sequences.match(_is_scene("a"))}
    assert [d.index for d in by_number[5].tracks.detections] == [1, 3]
    labelled = {n: [c.label for c in s.tracks_events.classifications] for n, s in by_number.items() if s.tracks_events}
    assert labelled[5] == ["loss", "swap_repaired", "birth"]
    assert labelled[9] == ["needs_review"]
    assert 1 not in labelled
    with pytest.raises(FieldConflictError, match="give overwrite=True"):
        labels.write_tracks(first, "tracks", result)
    labels.write_tracks(first, "tracks", replace(result, tracks=result.tracks[:1], decisions=()), overwrite=True)
    assert len(labels.read_tracks(first, "tracks")) == 1


def _is_scene(name: str) -> Any:
    from fiftyone import ViewField

    return ViewField("scene") == name


def test_write_tracks_video_slice_of_a_grouped_dataset(
    fo: ModuleType, labels: ModuleType, result: TrackingResult, video_path: Any
) -> None:
    grouped = fo.Dataset()
    grouped.add_group_field("group", default="left")
    for _ in range(2):
        group = fo.Group()
        grouped.add_samples(
            [
                fo.Sample(filepath=str(video_path), group=group.element("left")),
                fo.Sample(filepath=str(video_path), group=group.element("right")),
            ]
        )
    (target, _) = labels.targets(grouped.select_group_slices("right"))
    labels.write_tracks(target, "tracks", result)
    assert_same_tracks(labels.read_tracks(target, "tracks"), result.tracks)
    assert grouped.select_group_slices("left").count("frames.tracks.detections") == 0
    grouped.delete()


def test_color_by_instance_keeps_the_rest_of_the_scheme(fo: ModuleType, labels: ModuleType, dataset: Any) -> None:
    dataset.app_config.color_scheme = fo.ColorScheme(color_pool=["#112233"])
    labels.color_by_instance(dataset)
    dataset.reload()
    assert dataset.app_config.color_scheme.color_by == "instance"
    assert dataset.app_config.color_scheme.color_pool == ["#112233"]
