"""Rows of the identity benchmark as Markdown: totals by group and method, single cases, and what went wrong where.

Knows nothing of how rows are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fiftyone_plugin.benchmarks.identity_cases import Row, total
from fiftyone_plugin.metrics.decisions import expected_calibration_error
from fiftyone_plugin.metrics.encounters import Share

__all__ = ["FINISHED", "OURS", "TRUE", "report", "timing", "worst"]

OURS = "Shepherd"
FINISHED = "Shepherd, gaps filled"
TRUE = "true tracks"
"""Group of the cases in which nothing is to be repaired."""

_COLUMNS = (
    "method", "HOTA", "AssA", "IDF1", "lowest change", "IDSW", "swaps / encounters", "re-entry recall",
    "errors mended", "changes that were right", "repairs that were right", "harm", "left to a person",
    "ECE frames", "ECE decisions",
)  # fmt: skip


def report(part: str, rows: Sequence[Row], *, details: int = 0) -> str:
    """All tables of one part.

    Args:
        part: Its name.
        rows: Of all cases and methods.
        details: Of the cases with the worst result list so many.
    """
    lines = [f"## {part}", ""]
    groups = list(dict.fromkeys(r.group for r in rows))
    mixed = [g for g in groups if g != TRUE]
    if part == "synthetic" and len(mixed) > 1:
        lines += _group_table("all conditions", [r for r in rows if r.group != TRUE])
    for group in groups:
        lines += _group_table(group, [r for r in rows if r.group == group])
    ours = [r for r in rows if r.method == OURS]
    lines += ["### Single cases", "", _head(("case", *_COLUMNS[1:]))]
    for name, members in _by_family(ours).items():
        lines.append(_line(name, total(members, "")))
    lines.append("")
    if details:
        lines += ["### What went wrong", "", *worst(rows, details), ""]
    return "\n".join(lines)


def worst(rows: Sequence[Row], count: int) -> list[str]:
    """The cases that are furthest from what can be reached, as text, worst first."""
    best = {r.case: r for r in rows if r.method == "oracle" and r.group != TRUE}
    ours = [r for r in rows if r.method == OURS]

    def loss(r: Row) -> float:
        reachable = best[r.case].scores.identity.f1 if r.case in best else 1.0
        broken = r.harm.part + len(r.false_joins) + len(r.wrong_repairs)
        return 100 * (reachable - r.scores.identity.f1) + 2 * (len(r.remaining) + broken)

    lines = []
    for r in sorted(ours, key=loss, reverse=True)[:count]:
        if loss(r) <= 0:
            break
        reachable = f", reachable {100 * best[r.case].scores.identity.f1:.1f}" if r.case in best else ""
        lines.append(
            f"- **{r.case}**{' (true tracks)' if r.group == TRUE else ''}: IDF1 {100 * r.scores.identity.f1:.1f} "
            f"({r.idf1_change:+.1f}{reachable}), {r.scores.clear.id_switches} switches"
        )
        lines += [
            f"  - object {b.object_id} carries {b.old_id} until {b.last_frame}, {b.new_id} from {b.frame}"
            for b in r.remaining
        ]
        lines += [f"  - an id passes from object {a} to object {b}" for a, b in r.false_joins]
        for e in r.lost_returns:
            window = e.event.windows[0]
            after = "nothing" if e.after[0] is None else e.after[0]
            lines.append(
                f"  - object {window.object_ids[0]} was away {window.start}-{window.stop - 1}: "
                f"{e.before[0]} before, {after} after"
            )
        lines += [f"  - wrong, margin {w.margin:.1f}: {w.reason}" for w in r.wrong_repairs]
    return lines or ["- nothing"]


def timing(found: Mapping[str, float]) -> str:
    """The time of an audit as one line."""
    return (
        f"## timing\n\n{found['minutes']:g} minutes, {found['objects']:.0f} objects, {found['tracks']:.0f} tracks: "
        f"{found['encounters']:.0f} encounters, {found['repairs']:.0f} repairs in {found['seconds']:.1f} s "
        f"({found['cpu_seconds']:.1f} s of processor time)"
    )


def _group_table(name: str, rows: Sequence[Row]) -> list[str]:
    methods = list(dict.fromkeys(r.method for r in rows))
    cases = len({r.case for r in rows})
    lines = [f"### {name} ({cases} case{'s' if cases != 1 else ''})", "", _head(_COLUMNS)]
    lines += [_line(m, total([r for r in rows if r.method == m], name)) for m in methods]
    return [*lines, ""]


def _by_family(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Cases that differ in their seed only are one line."""
    families: dict[str, list[Row]] = {}
    for r in rows:
        stem, _, last = r.case.rpartition(" ")
        name = stem if stem and last.isdigit() else r.case
        families.setdefault(f"{name} ({TRUE})" if r.group == TRUE else name, []).append(r)
    return families


def _head(columns: Sequence[str]) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def _line(name: str, r: Row) -> str:
    scores = r.scores.as_dict()
    errors = [expected_calibration_error(s) for s in (r.frame_samples, r.decision_samples)]
    cells = [
        name,
        *(f"{scores[k]:.1f}" for k in ("HOTA", "AssA", "IDF1")),
        f"{r.idf1_change:+.1f}",
        str(scores["IDSW"]),
        *(_share(s) for s in (r.swaps, r.returns, r.mended, r.changed_well, r.repairs, r.harm, r.abstained)),
        *("" if e is None else f"{e:.3f}" for e in errors),
    ]
    return f"| {' | '.join(cells)} |"


def _share(share: Share) -> str:
    return "" if share.value is None else f"{share.part}/{share.whole} {share.value:.2f}"
