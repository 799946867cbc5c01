"""Are identities right, and does repairing them help or harm? Against no repair, other methods, and an oracle.

Four parts, together or one by one (``--part``): ``synthetic`` clips end to end with the bundled models, real sequences
with ``injected`` failures, the outputs of real ``trackers``, and ``harm``: true tracks, of which nothing may be
changed. A fifth, ``timing``, takes the time of an audit. What does not depend on the identity layer is computed once
and kept below ``--cache``, so that another run takes seconds. Protocol and results: docs/benchmark-identity.md.

    shepherd bench identity --part injected harm --data ~/evaldata
    shepherd bench identity --part synthetic --quick --details 10
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fiftyone_plugin.benchmarks import identity_tables as tables
from fiftyone_plugin.benchmarks.identity_baselines import FITTED, gta, oracle, oracle_of_links, rematch_by_overlap
from fiftyone_plugin.benchmarks.identity_cases import Answer, Case, Method, Row, no_repair, run, shepherd
from fiftyone_plugin.benchmarks.identity_injection import KINDS, inject
from fiftyone_plugin.benchmarks.identity_real import RealSequence, read_sequence, sequence_names
from fiftyone_plugin.benchmarks.identity_synthetic import CONDITIONS, ONLINE, walk_clip
from fiftyone_plugin.benchmarks.identity_targets import check_targets, targets_table
from fiftyone_plugin.benchmarks.identity_timing import measure_audit
from fiftyone_plugin.benchmarks.identity_views import ViewTable
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.exporters import write_atomically
from fiftyone_plugin.pipeline.settle import Evidence
from fiftyone_plugin.types import Track
from fiftyone_plugin.video import open_source

__all__ = ["GIVEN_TRACKS", "main", "measure_injected", "measure_synthetic", "measure_trackers", "measure_true_tracks"]

PARTS = ("synthetic", "injected", "trackers", "harm", "timing")
_CHECKING = {"no repair": no_repair, tables.OURS: shepherd}

GIVEN_TRACKS: Mapping[str, Method] = {
    "no repair": no_repair,
    "IoU re-matching": rematch_by_overlap,
    "GTA": gta,
    "GTA, fitted": lambda case: gta(case, FITTED),
    tables.OURS: shepherd,
    "oracle": oracle,
}
"""Methods that need tracks and views only. SAM2MOT's gates are none: they act on masks while these are propagated."""


def measure_synthetic(
    conditions: Sequence[str],
    seeds: Sequence[int],
    *,
    methods: Sequence[str],
    frames: int,
    embedder_name: str,
    cache: Path,
    has_masks: bool = False,
    is_refreshed: bool = False,
) -> Iterator[Row]:
    """End to end on synthetic clips, and harm on their true tracks (group ``true tracks``)."""
    is_stale = False
    for name in conditions:
        for seed in seeds:
            walked = walk_clip(
                name,
                seed,
                frames=frames,
                embedder_name=embedder_name,
                cache=cache,
                online=[k for k in ONLINE if _is_wanted(k, methods)],
                is_refreshed=is_refreshed,
            )
            is_stale |= walked.is_stale
            on_carriers = replace(walked.case, plain=walked.case.evidence.tracks, plain_views=None)
            answers = {k: Answer(tracks) for k, tracks in walked.online.items()}
            known: dict[str, Method] = {
                "no repair": no_repair,
                **{k: lambda _, answer=a: answer for k, a in answers.items()},  # type: ignore[misc]
                "GTA": gta,
                "GTA, fitted": lambda case: gta(case, FITTED),
                "GTA, fitted, on our carriers": lambda _, case=on_carriers: gta(case, FITTED),  # type: ignore[misc]
                "our carriers, no identity": lambda case: Answer(case.evidence.tracks),
                tables.OURS: shepherd,
                **({tables.FINISHED: lambda _, w=walked: w.finished()} if has_masks else {}),  # type: ignore[misc]
                "oracle of links": oracle_of_links,
                "oracle": oracle,
            }
            yield from run(walked.case, _chosen(known, methods))
            yield from run(replace(walked.true_case, group=tables.TRUE), _chosen(_CHECKING, methods))
    if is_stale:
        print("the code of the walk has changed since some clips were kept: --refresh walks them anew", file=sys.stderr)


def measure_injected(
    sequence: RealSequence, views: ViewTable, *, seeds: Sequence[int], methods: Sequence[str] = ()
) -> Iterator[Row]:
    """Failures put into the true tracks of a real sequence; one case for every kind and seed."""
    for kind in KINDS:
        for seed in seeds:
            tracks = inject(sequence.published, kind, seed)
            if tracks is not None:
                case = _case(sequence, tracks, views, f"{sequence.name} {kind} {seed}")
                yield from run(case, _chosen(GIVEN_TRACKS, methods))


def measure_trackers(sequence: RealSequence, views: ViewTable | None, *, methods: Sequence[str] = ()) -> Iterator[Row]:
    """What real trackers made of a sequence; without pictures there are no views, and only motion can speak."""
    group = sequence.group if views is not None else f"{sequence.group}, boxes only"
    for name, tracks in sequence.trackers.items():
        case = _case(sequence, tracks, views, f"{sequence.name} {name}")
        yield from run(replace(case, group=group), _chosen(GIVEN_TRACKS, methods))


def measure_true_tracks(
    sequence: RealSequence, views: ViewTable | None, *, methods: Sequence[str] = ()
) -> Iterator[Row]:
    """The true tracks of a sequence, with the ids as published, as if they came from another tool."""
    name = sequence.name if views is not None else f"{sequence.name} (boxes only)"
    yield from run(_case(sequence, sequence.published, views, name), _chosen(GIVEN_TRACKS, methods))


def _chosen(known: Mapping[str, Method], wanted: Sequence[str]) -> dict[str, Method]:
    """Those whose names begin with one of the wanted ones; none wanted is all."""
    return {k: m for k, m in known.items() if _is_wanted(k, wanted)}


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(name.lower().startswith(w.lower()) for w in wanted)


def _case(sequence: RealSequence, tracks: tuple[Track, ...], views: ViewTable | None, name: str) -> Case:
    galleries = {} if views is None else views.galleries(tracks)
    everything = {} if views is None else views.all_views(tracks)
    camera = None if views is None else views.camera
    return Case(name, sequence.group, sequence.truth, Evidence(tracks, galleries, {}, camera), None, everything)


def main(argv: Sequence[str] | None = None) -> int:
    """Print Markdown tables; with ``--json`` also write every row."""
    a = _parse(argv)
    rows: dict[str, list[Row]] = {}
    if "synthetic" in a.part:
        rows["synthetic"] = list(
            measure_synthetic(
                a.conditions,
                range(a.first_seed, a.first_seed + a.clips),
                methods=a.methods,
                frames=a.frames,
                embedder_name=a.embedder,
                cache=a.cache,
                has_masks=a.masks,
                is_refreshed=a.refresh,
            )
        )
    if set(a.part) & {"injected", "trackers", "harm"}:
        for name in sequence_names(a.data):
            if a.sequences and not any(wanted in name for wanted in a.sequences):
                continue
            sequence = read_sequence(a.data, name, as_published=a.as_published)
            versions = [sequence.published, *sequence.trackers.values()]
            source = open_source(sequence.folder / "img1") if sequence.has_frames else None
            views = None if source is None else ViewTable.make(sequence.name, source, versions, a.embedder, a.cache)
            if "injected" in a.part and views is not None:
                rows.setdefault("injected", []).extend(
                    measure_injected(sequence, views, seeds=range(1, a.versions + 1), methods=a.methods)
                )
            if "trackers" in a.part:
                rows.setdefault("trackers", []).extend(measure_trackers(sequence, views, methods=a.methods))
            if "harm" in a.part:
                rows.setdefault("harm", []).extend(measure_true_tracks(sequence, views, methods=a.methods))
    for part, found in rows.items():
        print(tables.report(part, found, details=a.details), flush=True)
    timing = None
    if "timing" in a.part:
        timing = measure_audit(minutes=a.minutes)
        print(tables.timing(timing) + "\n")
    told_apart = [name for name, condition in CONDITIONS.items() if condition.is_distinguishable]
    targets = check_targets(rows, timing, distinguishable=told_apart)
    print(targets_table(targets))
    if a.json is not None:
        document: dict[str, Any] = {part: [r.as_dict() for r in found] for part, found in rows.items()}
        document |= {"timing": timing, "targets": [asdict(t) for t in targets]}
        write_atomically(a.json, json.dumps(document, indent=1).encode())
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shepherd bench identity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, help="folder of real sequences, for all parts but synthetic and timing")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/shepherd-bench").expanduser())
    parser.add_argument("--refresh", action="store_true", help="walk through synthetic clips anew")
    parser.add_argument("--masks", action="store_true", help="also fill gaps in tracks, as --mend-masks does; slower")
    parser.add_argument("--embedder", default=TrackingOptions().models.embedder)
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS), metavar="NAME")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="only those with one of these in their names")
    parser.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="only those that begin so")
    parser.add_argument("--seeds", type=int, help="clips of each condition (default 3), versions of each kind (5)")
    parser.add_argument("--first-seed", type=int, default=501, help="of the synthetic clips")
    parser.add_argument("--frames", type=int, default=120, help="of a synthetic clip")
    parser.add_argument(
        "--as-published", action="store_true", help="score real sequences by their ids as they were published"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the tracks whose audit is timed")
    parser.add_argument("--quick", action="store_true", help="one clip of each condition, two versions of each kind")
    parser.add_argument("--details", type=int, default=0, metavar="N", help="also list the N worst cases of each part")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args(argv)
    if a.data is None and set(a.part) & {"injected", "trackers", "harm"}:
        raise OptionError("--data: must name a folder of real sequences; or choose --part synthetic timing")
    a.clips = a.seeds or (1 if a.quick else 3)
    a.versions = a.seeds or (2 if a.quick else 5)
    return a


if __name__ == "__main__":
    raise SystemExit(main())
