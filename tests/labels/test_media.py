"""What can be tracked in a dataset, and what is said where nothing can."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin.errors import VideoError

pytestmark = pytest.mark.fiftyone


def test_sources_videos_are_opened_in_the_order_of_the_view(labels: ModuleType, dataset: Any) -> None:
    pairs = list(labels.sources(dataset.sort_by("id", reverse=True)))
    assert [labels.target_id(target) for target, _ in pairs] == sorted(dataset.values("id"), reverse=True)
    assert [len(list(source.frames())) for _, source in pairs] == [12, 12]


def test_sources_image_sequences_follow_the_order_of_their_group(labels: ModuleType, sequences: Any) -> None:
    pairs = list(labels.sources(sequences.group_by("scene", order_by="frame_number")))
    assert [Path(labels.describe(target)).name for target, _ in pairs] == ["a", "b"]
    for _, source in pairs:
        # The images are shades that grow with their number.
        assert [int(frame.image_rgb[0, 0, 0]) for frame in source.frames()] == [10 * i for i in range(12)]
        assert source.info.frames_per_second == sequences.app_config.dynamic_groups_target_frame_rate


def test_targets_selected_sequences_only(labels: ModuleType, sequences: Any) -> None:
    view = sequences.group_by("scene", order_by="frame_number")
    chosen = view.select([view.last().id])
    assert [Path(labels.describe(t)).name for t in labels.targets(chosen)] == ["b"]


def test_open_sample_of_an_image_says_so(labels: ModuleType, sequences: Any) -> None:
    with pytest.raises(VideoError, match="is not a video sample but 'image'"):
        labels.open_sample(sequences.first())


def test_open_sample_missing_file_names_it(fo: ModuleType, labels: ModuleType) -> None:
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        labels.open_sample(fo.Sample(filepath="/nowhere/gone.mp4"))


def test_count_frames_takes_metadata_and_probes_the_rest(fo: ModuleType, labels: ModuleType, dataset: Any) -> None:
    assert labels.count_frames(dataset) == labels.FrameCount(2, 24, is_estimate=False)
    first = dataset.first()
    first.metadata = fo.VideoMetadata(total_frame_count=100, frame_width=64, frame_height=48)
    first.save()
    assert labels.count_frames(dataset) == labels.FrameCount(2, 112, is_estimate=False)


def test_count_frames_many_videos_without_metadata_are_estimated(
    fo: ModuleType, labels: ModuleType, dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fiftyone_plugin.labels.media.PROBED_TARGETS", 1)
    assert labels.count_frames(dataset) == labels.FrameCount(2, 24, is_estimate=True)
    dataset.add_sample(fo.Sample(filepath="/nowhere/gone.mp4"))
    assert labels.count_frames(dataset) == labels.FrameCount(3, 36, is_estimate=True)


def test_count_frames_image_sequences(labels: ModuleType, sequences: Any) -> None:
    view = sequences.group_by("scene", order_by="frame_number")
    assert labels.count_frames(view) == labels.FrameCount(2, 24, is_estimate=False)


def _images(fo: ModuleType, dataset: Any, sequences: Any) -> Any:
    return sequences


def _unordered(fo: ModuleType, dataset: Any, sequences: Any) -> Any:
    return sequences.group_by("scene")


def _empty(fo: ModuleType, dataset: Any, sequences: Any) -> Any:
    return dataset.limit(0).match({"filepath": "none"})


def _frames(fo: ModuleType, dataset: Any, sequences: Any) -> Any:
    dataset.ensure_frames()
    return dataset.to_frames(sample_frames=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(_images, r"holds image, not videos; give videos, or images grouped", id="images"),
        pytest.param(_unordered, r"not image sequences; group images with an order", id="groups without order"),
        pytest.param(_empty, r"nothing to track, the dataset or view is empty", id="empty"),
        pytest.param(_frames, r"a view of frames, patches or clips", id="frames view"),
    ],
)
def test_targets_where_there_is_nothing_to_track_says_what_to_give(
    fo: ModuleType, labels: ModuleType, dataset: Any, sequences: Any, make: Any, message: str
) -> None:
    with pytest.raises(VideoError, match=message):
        next(labels.targets(make(fo, dataset, sequences)))


def test_targets_grouped_dataset_asks_for_a_slice(fo: ModuleType, labels: ModuleType, video_path: Path) -> None:
    grouped = fo.Dataset()
    grouped.add_group_field("group", default="left")
    grouped.add_sample(fo.Sample(filepath=str(video_path), group=fo.Group().element("left")))
    with pytest.raises(VideoError, match="select_group_slices"):
        next(labels.targets(grouped))
    grouped.delete()


def test_read_tracks_sample_of_no_dataset_says_so(fo: ModuleType, labels: ModuleType) -> None:
    with pytest.raises(VideoError, match="is in no dataset yet"):
        labels.read_tracks(fo.Sample(filepath="/nowhere/gone.mp4"), "tracks")
