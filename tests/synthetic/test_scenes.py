from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fiftyone_plugin.errors import FrameRangeError, OptionError, OutputError
from fiftyone_plugin.geometry import decode_mask, mask_boxes
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.synthetic import scenes
from fiftyone_plugin.synthetic.clips import BLOCK_FRAMES, MIN_VISIBLE_PX, SyntheticClip
from fiftyone_plugin.synthetic.truth import absences, contacts
from fiftyone_plugin.video import open_source

SCRIPTED: dict[str, Callable[[], SyntheticClip]] = {
    "crossing": scenes.crossing,
    "hiding": scenes.hiding,
    "leaving": scenes.leaving_and_returning,
    "camera": scenes.moving_camera,
    "look-alikes": lambda: scenes.look_alikes(0.5),
    "flock": lambda: scenes.flock(3, frames=100, camera=1.0, light=0.5, pose=1.0),
}


@pytest.fixture(scope="module", params=SCRIPTED)
def clip(request: pytest.FixtureRequest) -> SyntheticClip:
    return SCRIPTED[request.param]()


def pictures(clip: SyntheticClip, start: int = 0, stop: int | None = None) -> list[np.ndarray]:
    return [frame.image_rgb for frame in clip.source.frames(start, stop)]


def test_source_is_a_frame_source_with_true_info(clip: SyntheticClip) -> None:
    source = clip.source
    assert isinstance(source, FrameSource)
    frames = list(source.frames(5, 8))
    assert [f.index for f in frames] == [5, 6, 7]
    assert frames[0].pts_seconds == pytest.approx(5 / 15)
    assert frames[0].image_rgb.shape == (source.info.height_px, source.info.width_px, 3) == (256, 320, 3)


def test_sub_range_gives_the_frames_of_the_whole(clip: SyntheticClip) -> None:
    whole = pictures(clip, 0, 3 * BLOCK_FRAMES)
    for start, stop in ((0, 1), (3, 11), (BLOCK_FRAMES, 2 * BLOCK_FRAMES), (13, 14)):
        part = pictures(clip, start, stop)
        assert all(np.array_equal(a, b) for a, b in zip(part, whole[start:stop], strict=True))


def test_same_script_made_twice_gives_the_same_frames() -> None:
    first, second = (pictures(scenes.flock(9), 4, 6) for _ in range(2))
    assert_array_equal(first, second)
    assert not np.array_equal(first, pictures(scenes.flock(10), 4, 6))


def test_noise_differs_from_frame_to_frame() -> None:
    clip = SyntheticClip(
        scenes.Scene(name="still", frame_count=2, actors=(scenes.Actor(class_name="tree", waypoints=TREE_STANDS),))
    )
    first, second = (frame.astype(int) for frame in pictures(clip)[:2])
    sky = np.s_[:30, :30]
    assert not np.array_equal(first[sky], second[sky])
    assert abs(first[sky] - second[sky]).mean() < 10


TREE_STANDS = (scenes.Waypoint(0, 160, 200),)


def test_block_is_all_that_a_walk_draws() -> None:
    clip = scenes.flock(1, frames=3000)
    drawn: list[int] = []
    draw = clip.draw_block
    clip.draw_block = lambda block, **kwargs: drawn.append(block) or draw(block, **kwargs)  # type: ignore[method-assign, func-returns-value]
    assert next(clip.source.frames(2000)).index == 2000
    assert drawn == [2000 // BLOCK_FRAMES]


def test_masks_are_disjoint_visible_and_fit_their_boxes(clip: SyntheticClip) -> None:
    taken: dict[int, np.ndarray] = {}
    for track in clip.ground_truth():
        assert track.masks is not None
        for frame, box, rle in list(zip(track.frame_indices.tolist(), track.boxes_xyxy, track.masks, strict=True))[::7]:
            mask = decode_mask(rle)
            assert mask.sum() >= MIN_VISIBLE_PX
            assert_array_equal(mask_boxes(mask[None])[0], box)
            before = taken.setdefault(frame, np.zeros_like(mask))
            assert not (before & mask).any()
            before |= mask


def test_scenery_is_no_identity() -> None:
    clip = scenes.hiding()
    assert {track.phrase for track in clip.ground_truth()} == {"sheep"}
    assert [actor.class_name for actor in clip.scene.actors] == ["sheep", "sheep", "tree"]


def test_crossing_has_one_contact_in_the_middle() -> None:
    (contact,) = contacts(scenes.crossing().ground_truth())
    assert contact.track_ids == (1, 2)
    assert 15 < contact.start < 30 < contact.stop < 45


def test_crossing_exchanges_sides() -> None:
    first, second = scenes.crossing().ground_truth()
    assert first.boxes_xyxy[0, 0] < second.boxes_xyxy[0, 0]
    assert first.boxes_xyxy[-1, 0] > second.boxes_xyxy[-1, 0]


def test_hiding_hides_both_at_once_and_both_return() -> None:
    clip = scenes.hiding()
    hidden = absences(clip.ground_truth(), frame_count=clip.scene.frame_count)
    assert {a.track_id for a in hidden} == {1, 2}
    assert all(a.has_return for a in hidden)
    assert max(a.start for a in hidden) < min(a.stop for a in hidden)


def test_leaving_sheep_returns_lower_down() -> None:
    clip = scenes.leaving_and_returning()
    first, second = clip.ground_truth()
    away = [a for a in absences((first,), frame_count=clip.scene.frame_count) if a.has_return]
    assert len(away) == 1
    assert away[0].stop - away[0].start > 15
    assert first.boxes_xyxy[-1, 1] > first.boxes_xyxy[0, 1] + 40
    assert second.frame_indices[-1] < clip.scene.frame_count - 1


def test_moving_camera_moves_the_backdrop_too() -> None:
    still, moving = pictures(scenes.crossing(), 30, 31)[0], pictures(scenes.moving_camera(), 30, 31)[0]
    horizon = [int((picture[:, 10, 2].astype(int) - picture[:, 10, 1] < -20).argmax()) for picture in (still, moving)]
    # the camera looks 8 pixels lower in the middle of its pan
    assert 3 <= horizon[0] - horizon[1] <= 14


@pytest.mark.parametrize("seed", range(4))
def test_flock_crosses_leaves_and_returns(seed: int) -> None:
    clip = scenes.flock(seed)
    truth = clip.ground_truth()
    assert [t.phrase for t in truth] == ["sheep"] * 4 + ["dog"]
    assert all(t.frame_indices[0] == 0 for t in truth)
    assert len({c.track_ids for c in contacts(truth)}) >= 2
    assert any(a.has_return and a.stop - a.start >= 8 for a in absences(truth, frame_count=120))


def test_flock_without_absence_stays() -> None:
    clip = scenes.flock(2, absence=0.0, tree=False)
    boxes = np.concatenate([t.boxes_xyxy for t in clip.ground_truth()])
    assert boxes[:, 0].min() >= 0
    centre_x = boxes[:, ::2].mean(axis=1)
    assert centre_x.min() > 10
    assert centre_x.max() < 310


def test_flock_keeps_walking_in_a_long_clip() -> None:
    clip = scenes.flock(5, frames=1000)
    last = clip.scene.poses(np.arange(900, 1000)).centres_px[0]
    assert np.all(np.ptp(last[:, list(clip.identities), 0], axis=0) > 30)


def colour_spread(level: float) -> float:
    clip = scenes.look_alikes(level)
    image = pictures(clip, 0, 1)[0]
    means = [image[decode_mask(t.masks[0])].mean(axis=0) for t in clip.ground_truth() if t.masks]
    return float(np.ptp(means, axis=0).max())


def test_look_alikes_are_graded_from_different_to_the_same() -> None:
    clear, half, same = colour_spread(0.0), colour_spread(0.5), colour_spread(1.0)
    assert clear > 1.5 * half > 3 * same
    assert same < 4


def test_pose_change_and_light_move_an_animals_own_colour() -> None:
    def own_spread(**options: float) -> float:
        clip = scenes.flock(4, frames=60, absence=0.0, tree=False, look_alike=0.0, **options)
        frames = pictures(clip)
        spreads = []
        for track in clip.ground_truth():
            rows = list(enumerate(track.frame_indices.tolist()))[::10]
            assert track.masks is not None
            means = [frames[f][decode_mask(track.masks[i])].mean(axis=0) for i, f in rows]
            spreads.append(np.ptp(means, axis=0).max())
        return float(np.median(spreads))

    plain = own_spread()
    assert own_spread(light=1.0) > 3 * plain
    assert own_spread(pose=1.0) > plain


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: scenes.flock(0, sheep=0), "sheep = 0"),
        (lambda: scenes.flock(0, look_alike=1.2), "look_alike = 1.2"),
        (lambda: scenes.look_alikes(-1), "look_alike = -1"),
        (lambda: scenes.Light(drift=2), "drift = 2"),
        (lambda: scenes.Actor(class_name="sheep", waypoints=()), "waypoints"),
        (lambda: scenes.Scene(name="x", actors=(), frame_count=3), "0 actors"),
    ],
    ids=["no-sheep", "look-alike", "level", "drift", "no-waypoint", "no-actor"],
)
def test_setting_out_of_range_is_refused(make: Callable[[], object], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        make()


@pytest.mark.parametrize(("start", "stop"), [(60, None), (-1, 3), (5, 5)])
def test_frame_range_outside_is_refused(start: int, stop: int | None) -> None:
    with pytest.raises(FrameRangeError):
        scenes.crossing().source.frames(start, stop)


def test_written_video_reads_back_nearly_equal(tmp_path: Path) -> None:
    clip = scenes.crossing(frames=12)
    source = open_source(clip.write_video(tmp_path / "clip.mp4"))
    frames = list(source.frames())
    assert len(frames) == 12
    assert source.info.frames_per_second == pytest.approx(15)
    assert frames[11].pts_seconds == pytest.approx(11 / 15, abs=1e-3)
    for frame, original in zip(frames, pictures(clip), strict=True):
        assert np.abs(frame.image_rgb.astype(int) - original).mean() < 6


def test_written_frames_read_back_equal(tmp_path: Path) -> None:
    clip = scenes.crossing(frames=3)
    frames = open_source(clip.write_frames(tmp_path / "frames")).frames()
    assert_array_equal([f.image_rgb for f in frames], pictures(clip))


def test_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        scenes.crossing(frames=2).write_frames(tmp_path / "file" / "below")
    with pytest.raises(OutputError, match="cannot be written"):
        scenes.crossing(frames=2).write_video(tmp_path / "missing" / "clip.mp4")
