"""Laws of boxes, masks and run-length encodings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.testing import assert_allclose, assert_array_equal
from pycocotools import mask as coco

from fiftyone_plugin.geometry import (
    area_px,
    box_areas,
    box_iou,
    box_overlap,
    clip_boxes,
    crop,
    crop_to_box,
    decode_mask,
    encode_mask,
    mask_boxes,
    mask_iou,
    non_maximum_suppression,
    paste_mask,
    rle_iou,
    rle_overlap,
)
from fiftyone_plugin.types import BoolArray, FloatArray

HEIGHT, WIDTH = 12, 17

masks = npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, max_side=20))
stacks = npst.arrays(np.bool_, st.tuples(st.integers(0, 4), st.just(HEIGHT), st.just(WIDTH)))
pixels_x = st.lists(st.integers(0, WIDTH), min_size=2, max_size=2, unique=True).map(sorted)
pixels_y = st.lists(st.integers(0, HEIGHT), min_size=2, max_size=2, unique=True).map(sorted)
whole_box = st.tuples(pixels_x, pixels_y).map(lambda s: [s[0][0], s[1][0], s[0][1], s[1][1]])


def whole_boxes(max_size: int = 5) -> st.SearchStrategy[FloatArray]:
    """Boxes with corners on whole pixels, inside the frame, of at least one pixel."""
    return st.lists(whole_box, min_size=1, max_size=max_size).map(lambda rows: np.array(rows, np.float32))


def filled(boxes: FloatArray) -> BoolArray:
    """The pixels of each box: bool (N, H, W)."""
    result = np.zeros((len(boxes), HEIGHT, WIDTH), np.bool_)
    for row, (x0, y0, x1, y1) in enumerate(boxes.astype(int).tolist()):
        result[row, y0:y1, x0:x1] = True
    return result


@given(masks)
def test_encoding_then_decoding_gives_the_mask_back(mask: BoolArray) -> None:
    rle = encode_mask(mask)
    decoded = decode_mask(rle)
    assert decoded.dtype == np.bool_
    assert_array_equal(decoded, mask)
    assert (rle.height_px, rle.width_px, area_px(rle)) == (*mask.shape, int(mask.sum()))


def oracle(mask: BoolArray) -> bytes:
    """What pycocotools makes of the whole frame."""
    return bytes(coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"])


def corners() -> BoolArray:
    mask = np.zeros((5, 3), np.bool_)
    mask[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    return mask


@given(masks)
@example(np.zeros((3, 5), np.bool_))
@example(np.ones((5, 3), np.bool_))
@example(np.ones((1, 1), np.bool_))
@example(np.zeros((1, 1), np.bool_))
@example(corners())
@example(~corners())
def test_encoding_is_that_of_pycocotools_byte_for_byte(mask: BoolArray) -> None:
    assert encode_mask(mask).counts == oracle(mask)


@given(whole_boxes(1), st.data())
def test_encoding_of_an_object_somewhere_in_the_frame_is_that_of_pycocotools(
    boxes: FloatArray, data: st.DataObject
) -> None:
    """Blank columns on none, one or both sides, and masks that touch any border."""
    mask = data.draw(npst.arrays(np.bool_, (HEIGHT, WIDTH))) & filled(boxes)[0]
    assert encode_mask(mask).counts == oracle(mask)
    assert encode_mask(filled(boxes)[0]).counts == oracle(filled(boxes)[0])


def test_encoding_of_a_full_size_frame_with_runs_of_many_digits() -> None:
    mask = np.zeros((1080, 1920), np.bool_)
    mask[1000:, 1500:1700] = True
    mask[:, -1] = True
    assert encode_mask(mask).counts == oracle(mask)


@given(masks)
def test_encoding_does_not_depend_on_memory_layout(mask: BoolArray) -> None:
    assert encode_mask(np.asfortranarray(mask)) == encode_mask(np.ascontiguousarray(mask))


@given(whole_boxes(), whole_boxes())
def test_box_iou_is_symmetric_bounded_and_one_with_itself(a: FloatArray, b: FloatArray) -> None:
    iou = box_iou(a, b)
    assert_allclose(iou, box_iou(b, a).T, rtol=1e-6)
    assert iou.min() >= 0
    assert iou.max() <= 1
    assert_allclose(np.diag(box_iou(a, a)), 1.0)


@given(whole_boxes(), whole_boxes())
def test_box_iou_equals_mask_iou_of_the_filled_boxes(a: FloatArray, b: FloatArray) -> None:
    """Right and bottom are exclusive: with inclusive corners the two would differ by a row and a column."""
    assert_allclose(box_iou(a, b), mask_iou(filled(a), filled(b)), atol=1e-6)


@given(whole_boxes(), whole_boxes())
def test_box_overlap_is_the_covered_part_of_the_first(a: FloatArray, b: FloatArray) -> None:
    shared = (filled(a)[:, None] & filled(b)[None]).sum(axis=(2, 3))
    assert_allclose(box_overlap(a, b), shared / box_areas(a)[:, None], atol=1e-6)


@given(stacks, stacks)
def test_rle_iou_equals_mask_iou(a: BoolArray, b: BoolArray) -> None:
    encoded = rle_iou([encode_mask(m) for m in a], [encode_mask(m) for m in b])
    assert encoded.shape == (len(a), len(b))
    assert_allclose(encoded, mask_iou(a, b), atol=1e-6)


@given(stacks, stacks)
def test_rle_overlap_is_the_shared_part_of_the_smaller(a: BoolArray, b: BoolArray) -> None:
    found = rle_overlap([encode_mask(m) for m in a], [encode_mask(m) for m in b])
    assert found.shape == (len(a), len(b))
    expected = [[(x & y).sum() / max(min(x.sum(), y.sum()), 1) for y in b] for x in a]
    assert_allclose(found, np.reshape(expected, found.shape), atol=1e-6)


def test_iou_of_nothing_with_nothing_is_zero() -> None:
    nothing = np.zeros((1, HEIGHT, WIDTH), np.bool_)
    assert mask_iou(nothing, nothing) == 0
    assert rle_iou([encode_mask(nothing[0])], [encode_mask(nothing[0])]) == 0
    assert box_iou(np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)) == 0


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_iou_of_no_boxes_has_the_right_shape(n: int, m: int) -> None:
    assert box_iou(np.ones((n, 4), np.float32), np.ones((m, 4), np.float32)).shape == (n, m)


def test_inside_out_box_has_no_area() -> None:
    assert_array_equal(box_areas(np.array([[5, 5, 2, 9], [0, 0, 2, 3]], np.float32)), [0, 6])


@given(whole_boxes())
def test_mask_boxes_are_the_tightest(boxes: FloatArray) -> None:
    assert_array_equal(mask_boxes(filled(boxes)), boxes)


def test_mask_box_of_an_empty_mask_is_zeros() -> None:
    assert_array_equal(mask_boxes(np.zeros((1, HEIGHT, WIDTH), np.bool_)), np.zeros((1, 4)))


@given(npst.arrays(np.float32, (3, 4), elements=st.floats(-50, 50, width=32)))
def test_clipped_boxes_lie_in_the_frame_and_clipping_again_changes_nothing(boxes: FloatArray) -> None:
    clipped = clip_boxes(boxes, height_px=HEIGHT, width_px=WIDTH)
    assert clipped.min() >= 0
    assert (clipped <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
    assert_array_equal(clip_boxes(clipped, height_px=HEIGHT, width_px=WIDTH), clipped)


@settings(max_examples=60)
@given(st.data(), whole_boxes(8), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_suppression_keeps_no_pair_above_the_limit_and_is_idempotent(
    data: st.DataObject, boxes: FloatArray, max_iou: float
) -> None:
    scores = np.array(data.draw(st.lists(st.sampled_from([0.2, 0.5, 0.9]), min_size=len(boxes), max_size=len(boxes))))
    kept = non_maximum_suppression(boxes, scores.astype(np.float32), max_iou=max_iou)
    iou = box_iou(boxes[kept], boxes[kept])
    np.fill_diagonal(iou, 0)
    assert (iou <= max_iou).all()
    assert (np.diff(scores[kept]) <= 0).all()
    again = non_maximum_suppression(boxes[kept], scores[kept].astype(np.float32), max_iou=max_iou)
    assert_array_equal(again, np.arange(len(kept)))
    # Nothing is lost for no reason: what went overlaps something better that stayed.
    for gone in set(range(len(boxes))) - set(kept.tolist()):
        rivals = [k for k in kept.tolist() if scores[k] >= scores[gone]]
        assert box_iou(boxes[[gone]], boxes[rivals]).max() > max_iou


@given(whole_boxes(1), st.data())
def test_pasting_undoes_cropping(boxes: FloatArray, data: st.DataObject) -> None:
    mask = data.draw(npst.arrays(np.bool_, (HEIGHT, WIDTH))) & filled(boxes)[0]
    part = crop_to_box(mask, boxes[0])
    assert_array_equal(paste_mask(part, boxes[0], height_px=HEIGHT, width_px=WIDTH), mask)


@given(npst.arrays(np.float32, 4, elements=st.floats(-30, 30, width=32)))
def test_crop_of_any_box_is_inside_the_frame_and_not_empty(box: FloatArray) -> None:
    image = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    cut = crop(image, np.ones((HEIGHT, WIDTH), np.bool_), box)
    assert cut.mask.size >= 1
    assert cut.image_rgb.shape[:2] == cut.mask.shape


def test_crop_is_a_copy() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    cut = crop(image, np.ones((HEIGHT, WIDTH), np.bool_), np.array([1, 1, 4, 4], np.float32))
    image[:] = 255
    assert cut.image_rgb.max() == 0
