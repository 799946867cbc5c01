import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fiftyone_plugin.errors import OptionError, TrackFileError
from fiftyone_plugin.exporters.mot import read_mot
from fiftyone_plugin.metrics import Scores, combine, evaluate
from fiftyone_plugin.types import Track

TOLERANCE = 1e-6

SHARED = Path(os.environ.get("SHEPHERD_EVALDATA", Path(__file__).parents[3] / "shared" / "evaldata"))
REAL = [
    (gt, tracker)
    for gt in sorted([*SHARED.glob("*/gt/gt.txt"), *SHARED.glob("boxes_only/*/gt/gt.txt")])
    for tracker in sorted((gt.parents[1] / "trackers").glob("*.txt"))
]


@pytest.fixture(scope="module")
def oracle():
    """TrackEval, the reference implementation: pip install --no-deps trackeval==1.3.0, for it asks for an OpenCV."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trackeval = pytest.importorskip("trackeval")
    quiet = {"PRINT_CONFIG": False}
    return trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet), trackeval.metrics.Identity(quiet)


def similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Box IoU, written down once more, one pair after the other."""
    values = np.zeros((len(a), len(b)))
    for i, p in enumerate(a.astype(float)):
        for k, q in enumerate(b.astype(float)):
            w = min(p[2], q[2]) - max(p[0], q[0])
            h = min(p[3], q[3]) - max(p[1], q[1])
            both = max(w, 0) * max(h, 0)
            union = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - both
            values[i, k] = both / union if union > 0 else 0
    return values


def mask_similarities(a: list, b: list) -> np.ndarray:
    from pycocotools import mask as coco

    def dense(rle):
        return coco.decode({"size": [rle.height_px, rle.width_px], "counts": rle.counts}).astype(bool)

    dense_a, dense_b = ([dense(r) for r in side] for side in (a, b))
    values = np.zeros((len(a), len(b)))
    for i, p in enumerate(dense_a):
        for k, q in enumerate(dense_b):
            union = (p | q).sum()
            values[i, k] = (p & q).sum() / union if union else 0
    return values


def as_oracle_data(truth: list[Track], predicted: list[Track], *, with_masks: bool) -> dict:
    last = max((int(t.frame_indices[-1]) for t in [*truth, *predicted]), default=-1)
    data: dict = {"gt_ids": [], "tracker_ids": [], "similarity_scores": [], "num_timesteps": last + 1}
    for t in range(last + 1):
        here = [
            [(k, int(np.searchsorted(x.frame_indices, t))) for k, x in enumerate(side) if t in x.frame_indices]
            for side in (truth, predicted)
        ]
        for name, rows in zip(("gt_ids", "tracker_ids"), here, strict=True):
            data[name].append(np.array([k for k, _ in rows], int))
        if with_masks:
            masks = [[side[k].masks[i] for k, i in rows] for side, rows in zip((truth, predicted), here, strict=True)]
            data["similarity_scores"].append(mask_similarities(*masks))
        else:
            boxes = [
                np.array([side[k].boxes_xyxy[i] for k, i in rows]).reshape(-1, 4)
                for side, rows in zip((truth, predicted), here, strict=True)
            ]
            data["similarity_scores"].append(similarities(*boxes))
    data["num_gt_ids"], data["num_tracker_ids"] = len(truth), len(predicted)
    data["num_gt_dets"], data["num_tracker_dets"] = sum(map(len, truth)), sum(map(len, predicted))
    return data


def ask_oracle(oracle, truth, predicted, *, with_masks: bool = False) -> dict:
    data = as_oracle_data(truth, predicted, with_masks=with_masks)
    return {k: v for metric in oracle for k, v in metric.eval_sequence(data).items()}


def assert_agrees(scores: Scores, expected: dict) -> None:
    ours = scores.as_dict()
    for name in ("HOTA", "AssA", "DetA", "LocA", "AssRe", "AssPr", "DetRe", "DetPr"):
        per_alpha = {"HOTA": "hota", "LocA": "loc_a"}.get(name, name[:3].lower() + "_" + name[3:].lower())
        np.testing.assert_allclose(getattr(scores.hota, per_alpha), expected[name], atol=TOLERANCE, err_msg=name)
        assert ours[name] == pytest.approx(100 * np.mean(expected[name]), abs=100 * TOLERANCE), name
    for name in ("MOTA", "MOTP", "IDF1", "IDR", "IDP"):
        assert ours[name] == pytest.approx(100 * expected[name], abs=100 * TOLERANCE), name
    for name in ("IDSW", "Frag", "MT", "PT", "ML"):
        assert ours[name] == expected[name], name
    for name, count in (("TP", "true_positives"), ("FP", "false_positives"), ("FN", "false_negatives")):
        assert ours[name] == getattr(scores.clear, count) == expected[f"CLR_{name}"], name
        assert getattr(scores.identity, count) == expected[f"ID{name}"], name


@pytest.mark.parametrize("with_masks", [False, True], ids=["boxes", "masks"])
@pytest.mark.parametrize("seed", range(8))
def test_scores_equal_the_reference_on_random_scenes(oracle, make_scene, seed, with_masks):
    truth, predicted = make_scene(seed, with_masks=with_masks)
    assert_agrees(evaluate(truth, predicted), ask_oracle(oracle, truth, predicted, with_masks=with_masks))


@pytest.mark.skipif(not REAL, reason="no evaluation data")
@pytest.mark.parametrize(("gt", "tracker"), REAL, ids=[f"{g.parents[1].name}-{t.stem}" for g, t in REAL])
def test_scores_equal_the_reference_on_real_sequences(oracle, gt, tracker):
    truth, predicted = read_mot(gt, is_ground_truth=True), read_mot(tracker)
    assert_agrees(evaluate(truth, predicted), ask_oracle(oracle, truth, predicted))


@pytest.mark.parametrize("missing", ["truth", "predictions"])
def test_an_empty_side_is_scored_as_the_reference_does(oracle, make_scene, missing):
    truth, predicted = make_scene(3)
    pair = ([], predicted) if missing == "truth" else (truth, [])
    assert_agrees(evaluate(*pair), ask_oracle(oracle, *pair))


def test_nothing_against_nothing_has_no_errors():
    scores = evaluate([], []).as_dict()
    assert {k: scores[k] for k in ("HOTA", "IDF1", "MOTA", "IDSW", "Frag", "FP", "FN")} == dict.fromkeys(
        ("HOTA", "IDF1", "MOTA", "IDSW", "Frag", "FP", "FN"), 0
    )


def test_combined_scores_equal_the_reference(oracle, make_scene):
    scenes = [make_scene(seed) for seed in range(4)]
    combined = combine([evaluate(*scene) for scene in scenes])
    expected = {}
    for metric in oracle:
        parts = {str(k): metric.eval_sequence(as_oracle_data(*s, with_masks=False)) for k, s in enumerate(scenes)}
        expected.update(metric.combine_sequences(parts))
    assert_agrees(combined, expected)


def test_combining_nothing_is_refused():
    with pytest.raises(OptionError):
        combine([])


def test_perfect_tracks_score_full_marks_under_any_ids(make_scene):
    truth, _ = make_scene(1)
    renamed = [
        Track(t.track_id + 500, "x", t.frame_indices, t.boxes_xyxy, None, t.scores, t.mask_scores, t.scores, t.sources)
        for t in reversed(truth)
    ]
    scores = evaluate(truth, renamed).as_dict()
    for name in ("HOTA", "AssA", "DetA", "LocA", "IDF1", "MOTA", "MOTP"):
        assert scores[name] == pytest.approx(100)
    assert (scores["IDSW"], scores["FP"], scores["FN"]) == (0, 0, 0)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_the_order_of_tracks_does_not_matter(make_scene, seed):
    truth, predicted = make_scene(seed, length=15)
    turned = evaluate(truth[::-1], predicted[::-1]).as_dict()
    assert turned == pytest.approx(evaluate(truth, predicted).as_dict())


def test_one_exchange_costs_two_switches_and_half_the_identity(lane):
    truth = [lane(1, range(20), at=0), lane(2, range(20), at=2)]
    first = np.concatenate([truth[0].boxes_xyxy[:10], truth[1].boxes_xyxy[10:]])
    second = np.concatenate([truth[1].boxes_xyxy[:10], truth[0].boxes_xyxy[10:]])
    exchanged = [
        Track(i, "object", t.frame_indices, b, None, t.scores, t.scores, t.scores, t.sources)
        for i, t, b in ((1, truth[0], first), (2, truth[1], second))
    ]
    scores = evaluate(truth, exchanged).as_dict()
    assert (scores["IDSW"], scores["DetA"]) == (2, 100)
    assert scores["IDF1"] == pytest.approx(50)
    assert scores["AssA"] == pytest.approx(100 / 3)  # 10 frames together of 30 in which either is there
    assert scores["MOTA"] == pytest.approx(95)


def test_per_class_matches_only_tracks_of_one_phrase(lane):
    truth = [lane(1, range(10), at=0, phrase="sheep")]
    predicted = [lane(1, range(10), at=0, phrase="dog")]
    assert evaluate(truth, predicted).as_dict()["HOTA"] == pytest.approx(100)
    assert evaluate(truth, predicted, per_class=True).as_dict()["HOTA"] == 0


def test_boxes_are_compared_where_one_side_has_no_masks(make_track):
    boxes = np.tile([0, 0, 10, 10], (3, 1))
    truth = [make_track(1, range(3), boxes, with_masks=True)]
    predicted = [make_track(1, range(3), boxes)]
    assert evaluate(truth, predicted).as_dict()["HOTA"] == pytest.approx(100)
    with pytest.raises(OptionError, match="every track must have masks"):
        evaluate(truth, predicted, similarity="mask")
    with pytest.raises(OptionError, match="must be auto, box or mask"):
        evaluate(truth, predicted, similarity="dice")


def test_masks_of_different_frame_sizes_are_refused(make_track):
    boxes = [[0, 0, 10, 10]]
    truth = [make_track(1, [0], boxes, with_masks=True)]
    predicted = [make_track(1, [0], boxes, with_masks=True, size=(32, 32))]
    with pytest.raises(TrackFileError, match="32x32 and 96x64"):
        evaluate(truth, predicted)


def test_two_tracks_of_one_id_are_refused(lane):
    with pytest.raises(TrackFileError, match="two tracks have one id"):
        evaluate([lane(1, [0], at=0), lane(1, [1], at=1)], [])


def test_ten_objects_over_ten_minutes_take_seconds(make_track):
    rng = np.random.default_rng(0)
    length = 18_000
    frames = np.arange(length)
    truth, predicted = [], []
    for k in range(10):
        corner = rng.uniform(0, 500, 2) + np.cumsum(rng.normal(0, 1, (length, 2)), axis=0)
        boxes = np.concatenate([corner, corner + 40], axis=1)
        truth.append(make_track(k + 1, frames, boxes))
        predicted.append(make_track(k + 1, frames, boxes + rng.normal(0, 2, boxes.shape)))
    begin = time.process_time()
    scores = evaluate(truth, predicted).as_dict()
    assert scores["HOTA"] > 50
    assert time.process_time() - begin < 20  # about 3 s; a machine under load is slower
