"""Tracks of a field measured against those of another: scores per video as fields, and the whole as an evaluation run.

The numbers are those of `metrics`. A score field that this plugin did not make is never written to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fiftyone as fo

from fiftyone_plugin import metrics
from fiftyone_plugin.errors import FieldConflictError, InputError, OptionError
from fiftyone_plugin.labels.events import as_plain
from fiftyone_plugin.labels.media import dataset_of, describe, is_group, target_id, targets
from fiftyone_plugin.labels.ownership import MARK, make_sortable
from fiftyone_plugin.labels.storage import read_tracks

__all__ = ["EVALUATION_METHOD", "Evaluated", "Evaluation", "evaluate_field", "evaluation_field"]

EVALUATION_METHOD = "shepherd_evaluation"
SCORES = {"HOTA": float, "AssA": float, "DetA": float, "IDF1": float, "MOTA": float, "IDSW": int, "Frag": int}
"""What every video is given, as percentages and counts."""
SORTED = ("HOTA", "IDF1", "IDSW")
"""Those that the App can sort by (`make_sortable`)."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The scores of one video."""

    video: str
    scores: dict[str, float | int]
    error: str = ""
    """One line; empty if it worked."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of a collection."""

    videos: tuple[Evaluated, ...]
    total: dict[str, float | int]
    """Of all videos together, as TrackEval combines sequences."""
    run_key: str
    field: str
    """Sample field with the scores of each video; empty where they were not stored."""


def evaluation_field(field: str) -> str:
    """The sample field with the scores of a label field."""
    return f"{field.removeprefix('frames.')}_eval"


def evaluate_field(
    collection: Any,
    field: str,
    ground_truth: str,
    *,
    per_class: bool = False,
    store: bool = True,
    on_video: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure the tracks of every video of a collection, and store what was measured.

    Args:
        collection: A dataset or view; videos without ground truth are left out.
        field: The tracks, of anybody.
        ground_truth: The objects as they are: detections with an `index` or an `instance`.
        per_class: Match only tracks of one label.
        store: Write ``<field>_eval`` and a run; False only returns the scores.
        on_video: Called with the number of the video, from 1, and how many there are.

    Raises:
        OptionError: Both fields are one.
        FieldConflictError: ``<field>_eval`` exists and is not ours.
        VideoError: There is nothing in the collection.
        TrackFileError: One of the fields holds no tracks in any video.
    """
    name, truth_name = field.removeprefix("frames."), ground_truth.removeprefix("frames.")
    if name == truth_name:
        raise OptionError(f"field {field!r}: would be measured against itself; give another ground truth")
    found = list(targets(collection))
    dataset = dataset_of(found[0])
    if store:
        _require_ours(dataset, evaluation_field(name))
    parts, outcomes, by_sample = [], [], {}
    for number, target in enumerate(found, start=1):
        if on_video is not None:
            on_video(number, len(found))
        try:
            truth = read_tracks(target, truth_name)
            if not truth:
                continue
            scores = metrics.evaluate(truth, read_tracks(target, name), per_class=per_class)
        except InputError as error:
            outcomes.append(Evaluated(describe(target), {}, str(error)))
            continue
        parts.append(scores)
        plain = as_plain(scores.as_dict())
        outcomes.append(Evaluated(describe(target), plain))
        by_sample[target_id(target)] = {key: kind(plain[key]) for key, kind in SCORES.items()}
    if not parts:
        first = next((o.error for o in outcomes if o.error), f"no video has tracks in {ground_truth!r}")
        raise OptionError(f"nothing to measure: {first}")
    total = as_plain(metrics.combine(parts).as_dict())
    key = f"shepherd_eval_{name}"
    if store:
        _store(dataset, evaluation_field(name), by_sample, is_group(found[0]))
        _register(dataset, key, name, truth_name, per_class, outcomes, total)
    return Evaluation(tuple(outcomes), total, key if store else "", evaluation_field(name) if store else "")


def _require_ours(dataset: Any, path: str) -> None:
    existing = dataset.get_field(path)
    if existing is not None and (existing.info or {}).get(MARK) != EVALUATION_METHOD:
        raise FieldConflictError(
            f"field {path!r} of dataset {dataset.name!r} exists and was not made by this plugin; rename it first"
        )


def _store(dataset: Any, path: str, by_sample: dict[str, dict[str, float | int]], is_sequence: bool) -> None:
    about = "Tracks measured against ground truth: percentages and counts"
    dataset.add_sample_field(
        path,
        fo.EmbeddedDocumentField,
        embedded_doc_type=fo.DynamicEmbeddedDocument,
        description=about,
        info={MARK: EVALUATION_METHOD},
    )
    for name, kind in SCORES.items():
        dataset.add_sample_field(f"{path}.{name}", fo.FloatField if kind is float else fo.IntField)
    make_sortable(dataset, [f"{path}.{name}" for name in SORTED])
    values = {key: fo.DynamicEmbeddedDocument(**scores) for key, scores in by_sample.items()}
    dataset.set_values(path, values, key_field="id")


def _register(
    dataset: Any,
    key: str,
    name: str,
    truth_name: str,
    per_class: bool,
    outcomes: list[Evaluated],
    total: dict[str, float | int],
) -> None:
    if dataset.has_run(key):
        dataset.delete_run(key)
    config = dataset.init_run(field=name, ground_truth=truth_name, per_class=per_class)
    config.method = EVALUATION_METHOD
    dataset.register_run(key, config)
    results = dataset.init_run_results(key, total=total, videos=as_plain(outcomes))
    dataset.save_run_results(key, results, cache=False)
