"""What an audit found, as Markdown: how much there is, then one entry per decision, repairs before doubts.

Frames are 1-based and inclusive, as everywhere in the App. Knows nothing of FiftyOne, and nothing of how identities are
decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fiftyone_plugin.jobs import counted

from . import review_words as words

__all__ = ["SHOWN_FINDINGS", "report"]

SHOWN_FINDINGS = 100
"""Decisions that a form shows; the result of a call from Python has all of them."""

_HOW = {"crossing": "crossing", "occlusion": "hidden for a moment", "return": "gone and back"}
_DECIDED = {
    "exchange": ("exchange the two back", "the two were exchanged back"),
    "reassign": ("join to the track it was before", "joined to the track it was before"),
    "split": ("cut: it goes on with another object", "cut: it went on with another object"),
    "trim": ("take these frames out: there is no object", "these frames were taken out: there was no object"),
    "reseed": ("fill a gap", "a gap was filled"),
    "abstain": ("left as it is", "left as it is"),
}
"""By outcome: what would be done, and what was done."""


def report(summary: Any, *, is_dry_run: bool) -> str:
    """The whole report.

    Args:
        summary: `jobs.DatasetSummary` of an audit.
        is_dry_run: Nothing was written: say what would be done.
    """
    done = [video for video in summary.videos if not video.error and not video.was_done]
    left = SHOWN_FINDINGS
    text = [_head(summary, done, is_dry_run=is_dry_run)]
    for video in done:
        if not video.findings or left <= 0:
            continue
        shown = video.findings[:left]
        left -= len(shown)
        text.append(_video(video, shown, is_dry_run=is_dry_run))
    hidden = sum(len(video.findings) for video in done) - (SHOWN_FINDINGS - left)
    if hidden > 0:
        text.append(f"... and {hidden} more decisions: a call from Python returns them all")
    if not any(video.findings for video in done) and done:
        text.append("Nobody was found to be mistaken for another, and nothing is in doubt.")
    return "\n\n".join(text)


def _head(summary: Any, done: Sequence[Any], *, is_dry_run: bool) -> str:
    repairs, doubts = (sum(getattr(v, name) for v in done) for name in ("repairs", "needs_review"))
    what = "would be made" if is_dry_run else "made"
    numbers = [
        f"{counted(sum(v.tracks_before for v in done), 'track')} in, {sum(v.tracks for v in done)} out",
        f"{counted(sum(v.encounters for v in done), 'encounter')} checked",
        f"{counted(sum(v.frames for v in done), 'frame')} of {counted(len(done), 'video')}",
    ]
    place = "Nothing was written." if is_dry_run else f"The repaired tracks are in `{summary.field}`."
    # What a stop, a failure or an earlier call leaves to be said.
    rest = [*summary.lines()[2:], *summary.failure_lines()]
    title = f"##### {counted(repairs, 'repair')} {what}, {counted(doubts, 'doubt')} left to you"
    return "\n\n".join([title, f"{' · '.join(numbers)}. {place}", *rest])


def _video(video: Any, findings: Sequence[Any], *, is_dry_run: bool) -> str:
    repairs = [f for f in findings if not f.is_doubt]
    doubts = [f for f in findings if f.is_doubt]
    text = [f"###### {Path(video.source).name}"]
    for title, found in (("Would repair" if is_dry_run else "Repaired", repairs), ("Please look at", doubts)):
        if found:
            text.append(f"**{title}**")
            text.append("\n".join(_line(f, is_dry_run=is_dry_run) for f in found))
    return "\n\n".join(text)


def _line(finding: Any, *, is_dry_run: bool) -> str:
    """One decision: when, who and what, then how sure that is and what speaks for it."""
    who = " and ".join(f"{finding.phrase} {i}".strip() for i in finding.track_ids) or "nobody that is left"
    how = f", {_HOW[finding.kind]}" if finding.kind in _HOW else ""
    decided = _DECIDED.get(finding.outcome, (finding.outcome, finding.outcome))[not is_dry_run]
    frames = words.frames_text(finding.start, finding.stop).capitalize()
    line = f"- **{frames}** — {who}{how}: {decided}"
    return f"{line}  \n  *{why}*" if (why := _why(finding)) else line


def _why(finding: Any) -> str:
    """How sure it is, and what speaks for it and against it."""
    text = []
    if finding.confidence < 1:
        right = " that it is right as it stands" if finding.is_doubt else ""
        text.append(f"{words.per_cent(finding.confidence)} sure{right}".capitalize())
    in_favour, against = words.balance(finding.terms)
    # Of a doubt, the parts are those of a link that was left out, if things are more likely wrong than right.
    is_for_change = finding.is_doubt and finding.confidence < 0.5
    if in_favour:
        text.append(f"{'For a change' if is_for_change else 'For it'}: {in_favour}")
    if against:
        text.append(f"{'Against one' if is_for_change else 'Against it'}: {against}")
    return ". ".join(text)
