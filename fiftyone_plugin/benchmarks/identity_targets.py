"""What the identity engine is meant to reach, next to what a run of the benchmark measured.

Knows nothing of how rows are made. The targets are those of docs/benchmark-identity.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fiftyone_plugin.benchmarks.identity_cases import Row, total
from fiftyone_plugin.benchmarks.identity_tables import OURS, TRUE
from fiftyone_plugin.metrics.decisions import expected_calibration_error
from fiftyone_plugin.metrics.encounters import Share

__all__ = ["Target", "check_targets", "targets_table"]

_OF_OTHERS = ("IoU re-matching", "SAM2MOT gates", "GTA", "GTA, fitted")
_PEOPLE, _LOOK_ALIKES = "people", "look-alikes"
_MIN_SAMPLES = 100
"""Fewer confidences of a group say nothing: ten bins of ten."""


@dataclass(frozen=True, slots=True)
class Target:
    """One of them."""

    about: str
    wanted: str
    measured: float | None
    """None where there was nothing to measure it on."""
    is_reached: bool | None
    how: str = ""
    """The count behind a share."""


def check_targets(
    rows: Mapping[str, Sequence[Row]], timing: Mapping[str, float] | None, *, distinguishable: Sequence[str]
) -> list[Target]:
    """Compare a run with the targets; only those that the run has rows for.

    Args:
        rows: By part.
        timing: Of `identity_timing.measure_audit`.
        distinguishable: Synthetic conditions in which the animals can be told apart by their looks.
    """
    found: list[Target] = []
    if "synthetic" in rows:
        found += _synthetic(rows["synthetic"], distinguishable)
    if "injected" in rows:
        found += _injected(rows["injected"])
    if "harm" in rows:
        harm = _sum(_ours(rows["harm"]), lambda r: r.harm)
        found.append(_at_most("real, nothing injected: broken and falsely joined", 0, harm.part, _count(harm)))
    for part, members in rows.items():
        found += _calibration(part, [r for r in _ours(members) if r.group != TRUE], by_group=part != "synthetic")
    if timing is not None:
        about = f"audit of {timing['minutes']:g} minutes, {timing['objects']:g} objects, seconds"
        found.append(_at_most(about, 60, timing["seconds"]))
    return found


def targets_table(targets: Sequence[Target]) -> str:
    """The same in Markdown."""
    lines = ["## targets", "", "| target | wanted | measured | reached |", "|---|---|---|---|"]
    for t in targets:
        value = "nothing to judge" if t.measured is None else f"{t.measured:.3g}{f' ({t.how})' if t.how else ''}"
        reached = "" if t.is_reached is None else "yes" if t.is_reached else "**no**"
        lines.append(f"| {t.about} | {t.wanted} | {value} | {reached} |")
    return "\n".join(lines)


def _synthetic(rows: Sequence[Row], distinguishable: Sequence[str]) -> Iterator[Target]:
    tracked = [r for r in rows if r.group != TRUE]
    ours = _ours(tracked)

    def switches(members: Sequence[Row]) -> int:
        return sum(r.scores.clear.id_switches for r in members)

    plain = switches([r for r in tracked if r.method == "no repair"])
    others = [switches(of) for name in _OF_OTHERS if (of := [r for r in tracked if r.method == name])]
    mine = switches(ours)
    if plain:
        yield _at_least("synthetic: ID switches fewer than without repair", 0.8, 1 - mine / plain, f"{mine} of {plain}")
    if others:
        best = min(others)
        reduced = 1 - mine / best if best else None
        yield _at_least("synthetic: ID switches fewer than the best of the others", 0.5, reduced, f"{mine} of {best}")
    back = _sum([r for r in ours if r.group in distinguishable], lambda r: r.returns)
    yield _at_least("synthetic, distinguishable: re-entry recall", 0.9, back.value, _count(back))
    harm = _sum([r for r in _ours(rows) if r.group == TRUE], lambda r: r.harm)
    yield _at_most("synthetic, true tracks: harm per encounter", 0.005, harm.value, _count(harm))


def _injected(rows: Sequence[Row]) -> Iterator[Target]:
    ours = _ours(rows)
    for group in (_PEOPLE, _LOOK_ALIKES):
        right = _sum([r for r in ours if r.group == group], lambda r: r.repairs)
        yield _at_least(f"injected, {group}: decided repairs that are right", 0.95, right.value, _count(right))
    people = [r for r in ours if r.group == _PEOPLE]
    mended = _sum([r for r in people if " swap " in r.case], lambda r: r.mended)
    yield _at_least("injected swaps, people: errors mended", 0.7, mended.value, _count(mended))
    if ours:
        lowest = min(ours, key=lambda r: r.idf1_change)
        yield _at_least("injected: lowest change of IDF1, points", 0, lowest.idf1_change, lowest.case)


def _calibration(part: str, ours: Sequence[Row], *, by_group: bool) -> Iterator[Target]:
    """Of all together, and of every group that has enough samples."""
    for group in (None, *sorted({r.group for r in ours if by_group})):
        members = [r for r in ours if group in (None, r.group)]
        if not members:
            continue
        together = total(members, "")
        where = part if group is None else f"{part}, {group}"
        for name, samples in (("frames", together.frame_samples), ("decisions", together.decision_samples)):
            count = len(samples.outcomes)
            if group is None or count >= _MIN_SAMPLES:
                error = expected_calibration_error(samples)
                yield _at_most(f"{where}: calibration error of {name}", 0.05, error, f"{count} samples")


def _ours(rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if r.method == OURS]


def _sum(rows: Sequence[Row], share: Callable[[Row], Share]) -> Share:
    return sum((share(r) for r in rows), Share())


def _count(share: Share) -> str:
    return f"{share.part} of {share.whole}"


def _at_least(about: str, limit: float, value: float | None, how: str = "") -> Target:
    return Target(about, f"at least {limit:g}", value, None if value is None else value >= limit, how)


def _at_most(about: str, limit: float, value: float | None, how: str = "") -> Target:
    return Target(about, f"at most {limit:g}", value, None if value is None else value <= limit, how)
