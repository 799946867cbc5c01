import numpy as np
import pytest
from PIL import Image

from fiftyone_plugin.errors import OptionError, OutputError
from fiftyone_plugin.exporters import overlay
from fiftyone_plugin.exporters.colours import ink_on, track_colour
from fiftyone_plugin.exporters.contact_sheet import choose_frames, contact_sheet
from fiftyone_plugin.exporters.overlay import draw_tracks, write_video
from fiftyone_plugin.geometry import encode_mask, mask_boxes
from fiftyone_plugin.types import Encounter, EncounterKind
from fiftyone_plugin.video import ImageSequenceSource, open_source

# Machado et al., "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009, severity 1.0.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)


def oklab(colours: np.ndarray, view: np.ndarray) -> np.ndarray:
    """sRGB 0 to 255, seen through a matrix on linear light, in Ottosson's perceptual space."""
    c = colours / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ view.T, 0, 1)
    cones = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.63]])
    turn = np.array([[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    return np.cbrt(seen @ cones.T) @ turn.T


@pytest.mark.parametrize(
    ("view", "count", "apart"), [(np.eye(3), 10, 0.13), (DEUTERANOPIA, 6, 0.1), (PROTANOPIA, 6, 0.1)]
)
def test_first_colours_stay_apart_also_for_the_colour_blind(view, count, apart):
    colours = np.array([track_colour(k) for k in range(1, count + 1)], float)
    places = oklab(colours, view)
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(count)
    assert distance.min() > apart  # about 0.02 is a difference that can just be seen


def test_colours_depend_on_the_id_alone_and_differ():
    assert track_colour(3) == track_colour(3)
    assert len({track_colour(k) for k in range(1, 101)}) == 100
    assert all(0 <= v <= 255 for k in range(1, 300) for v in track_colour(k))


def test_ink_is_readable():
    assert ink_on((255, 255, 255))[0] < 50
    assert ink_on((20, 20, 60)) == (255, 255, 255)


@pytest.fixture
def mask():
    mask = np.zeros((60, 80), np.bool_)
    mask[20:40, 30:50] = True
    return mask


def test_a_mask_is_tinted_inside_and_leaves_the_rest(mask):
    image = np.full((60, 80, 3), 100, np.uint8)
    drawn = draw_tracks(image, [(3, "sheep", mask)], label_height_px=11)
    assert (image == 100).all()  # a copy was drawn on
    towards = np.sign(np.array(track_colour(3)) - 100)
    assert (np.sign(drawn[30, 40].astype(int) - 100) == towards).all()
    assert (drawn[45:] == 100).all()
    assert (drawn[:, :10] == 100).all()


def test_a_box_leaves_what_is_inside():
    image = np.full((60, 80, 3), 100, np.uint8)
    drawn = draw_tracks(image, [(1, "sheep", np.array([20, 20, 60, 50], np.float32))], label_height_px=11)
    assert (drawn[26:45, 30:50] == 100).all()
    assert (drawn[49, 30:50] != 100).any()


def test_nothing_to_draw_changes_nothing(mask):
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw_tracks(image, []), image)
    np.testing.assert_array_equal(draw_tracks(image, [(1, "x", np.zeros_like(mask))]), image)


@pytest.mark.parametrize("scale", [0.5, 1, 2.5])
def test_pictures_are_enlarged(mask, scale):
    drawn = draw_tracks(np.zeros((60, 80, 3), np.uint8), [(1, "sheep", mask)], scale=scale)
    assert drawn.shape == (60 * scale, 80 * scale, 3)
    assert drawn.dtype == np.uint8


@pytest.mark.parametrize(
    "box", [[-50, -50, 5, 5], [75, 55, 500, 500], [-9e9, 0, 9e9, 10], [0, 0, 0, 0], [200, 200, 300, 300]]
)
def test_boxes_at_and_beyond_the_edges_can_be_drawn(box):
    marks = [(9, "a long phrase that is wider than the picture", np.array(box, np.float32))]
    assert draw_tracks(np.zeros((60, 80, 3), np.uint8), marks).shape == (60, 80, 3)


def test_labels_of_neighbours_do_not_hide_each_other():
    image = np.full((300, 300, 3), 60, np.uint8)
    boxes = [np.array([100 + k, 100, 160 + k, 180], np.float32) for k in range(3)]
    drawn = draw_tracks(image, [(k + 1, "x", b) for k, b in enumerate(boxes)], label_height_px=30)
    for k in range(3):
        chip_pixels = (drawn == np.array(track_colour(k + 1))).all(axis=2).sum()
        assert chip_pixels > 200


def test_a_flagged_label_differs(mask):
    image = np.zeros((60, 80, 3), np.uint8)
    plain = draw_tracks(image, [(1, "x", mask)])
    assert (draw_tracks(image, [(1, "x", mask)], flagged={1}) != plain).any()
    np.testing.assert_array_equal(draw_tracks(image, [(1, "x", mask)], flagged={2}), plain)


def test_text_is_drawn_without_the_system_font(monkeypatch, mask):
    original = overlay.ImageFont.truetype

    def truetype(font, *arguments, **settings):
        if isinstance(font, str):
            raise OSError("cannot open resource")
        return original(font, *arguments, **settings)

    overlay.load_font.cache_clear()
    overlay._chip.cache_clear()
    monkeypatch.setattr(overlay.ImageFont, "truetype", truetype)
    try:
        drawn = draw_tracks(np.zeros((60, 80, 3), np.uint8), [(1, "sheep", mask)])
    finally:
        overlay.load_font.cache_clear()
        overlay._chip.cache_clear()
    assert (drawn == np.array(track_colour(1))).all(axis=2).any()


@pytest.fixture
def scene(tools, tmp_path):
    """Two squares that pass each other: source, tracks that were exchanged at frame 6, and the right ones."""
    paths = []
    masks = np.zeros((2, 12, 64, 96), np.bool_)
    for t in range(12):
        masks[0, t, 10:30, 6 * t : 6 * t + 16] = True
        masks[1, t, 34:54, 76 - 6 * t : 92 - 6 * t] = True
        paths.append(tmp_path / f"{t}.png")
        Image.fromarray((masks[:, t].any(axis=0)[:, :, None] * np.array([90, 120, 60])).astype(np.uint8)).save(
            paths[-1]
        )

    def track(track_id, parts):
        return tools.make(track_id, "sheep", range(12), mask_boxes(parts), tuple(map(encode_mask, parts)), np.ones(12))

    right = [track(1, masks[0]), track(2, masks[1])]
    exchanged = [
        track(1, np.concatenate([masks[0, :6], masks[1, 6:]])),
        track(2, np.concatenate([masks[1, :6], masks[0, 6:]])),
    ]
    return ImageSequenceSource(paths, 10.0, source="squares"), exchanged, right


def crossing(start, stop, ids=(1, 2), number=1):
    return Encounter(number, EncounterKind.CROSSING, "sheep", start, stop, ids)


def test_a_video_has_every_frame_at_its_time(scene, tmp_path):
    source, exchanged, right = scene
    write_video(tmp_path / "one.mp4", source, right)
    written = open_source(tmp_path / "one.mp4")
    frames = list(written.frames())
    assert [round(f.pts_seconds, 3) for f in frames] == [k / 10 for k in range(12)]
    assert min(frames[0].image_rgb.shape[:2]) >= 500  # enlarged, so that labels can be read
    write_video(tmp_path / "two.mp4", source, exchanged, beside=right, start=3, stop=7)
    beside = list(open_source(tmp_path / "two.mp4").frames())
    assert len(beside) == 4
    assert beside[0].width_px == 2 * frames[0].width_px


def test_a_video_that_cannot_be_written_leaves_nothing(scene, tmp_path):
    source, _, right = scene
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(OutputError):
        write_video(target, source, right)
    assert list(target.iterdir()) == []


def test_a_contact_sheet_shows_both_rows_and_marks_what_changed(scene, tmp_path):
    source, exchanged, right = scene
    path = tmp_path / "sheet.png"
    contact_sheet(source, exchanged, right, [crossing(4, 8)], path, width_px=900, frame_count=4)
    with Image.open(path) as image:
        assert image.width == 900
        changed = np.asarray(image).copy()
    contact_sheet(source, right, right, [crossing(4, 8)], path, width_px=900, frame_count=4)
    with Image.open(path) as image:
        same = np.asarray(image)

    def warning_pixels(sheet):
        return (np.abs(sheet.astype(int) - np.array(overlay._WARNING)).max(axis=2) < 12).sum()

    assert warning_pixels(changed) > 20
    assert warning_pixels(same) == 0


def test_a_contact_sheet_needs_neither_tracks_nor_encounters(scene, tmp_path):
    source, _, _ = scene
    contact_sheet(source, [], [], [], tmp_path / "sheet.png", width_px=700)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width == 700


@pytest.mark.parametrize("changes", [{"frame_count": 0}, {"width_px": 100}])
def test_a_contact_sheet_too_small_is_refused(scene, tmp_path, changes):
    source, _, right = scene
    with pytest.raises(OptionError, match="must be at least"):
        contact_sheet(source, right, right, [], tmp_path / "sheet.png", **changes)


def test_frames_are_chosen_before_in_and_after_encounters():
    frames = choose_frames([crossing(40, 50)], 120, count=4)
    assert frames[0] == 0
    assert any(f < 40 for f in frames[1:])
    assert any(40 <= f < 50 for f in frames)
    assert any(f >= 50 for f in frames)


@pytest.mark.parametrize(("total", "count"), [(0, 6), (1, 6), (3, 6), (6, 6), (1000, 1), (1000, 8)])
def test_chosen_frames_are_distinct_and_inside(total, count):
    many = [crossing(k, k + 3, number=k) for k in range(0, max(total - 4, 0), 7)]
    frames = choose_frames(many, total, count=count)
    assert len(frames) == min(total, count)
    assert frames == sorted(set(frames))
    assert all(0 <= f < total for f in frames)


def test_encounters_that_changed_something_come_first():
    carried = {1: dict.fromkeys(range(80), 1) | dict.fromkeys(range(80, 100), 2)}
    dull, telling = crossing(20, 24, (5, 6)), crossing(78, 82, (1, 2), 2)
    assert any(78 <= f < 82 for f in choose_frames([dull, telling], 100, count=2, carried=carried))
