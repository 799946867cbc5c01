"""What the review panel shows at one moment: video, field, item and picture, and what its buttons do to the labels.

The browser keeps only a few words of state (`Session.state`); everything else is read anew from the run's summary at
every event, which takes milliseconds and cannot be out of date. Knows nothing of the layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import lru_cache
from pathlib import Path
from typing import Any

from fiftyone_plugin import labels
from fiftyone_plugin.errors import InputError, OptionError
from fiftyone_plugin.labels import browse, edits, review
from fiftyone_plugin.labels.media import is_group
from fiftyone_plugin.video import open_source

from . import review_crops as crops
from . import review_words as words
from . import tracked_anew
from .pictures import data_uri
from .review_choices import why_not

__all__ = ["PICTURES", "SHOWN", "Hands", "Session", "key_of", "open_session"]

SHOWN = {"worth": "Worth a look", "all": "Everything"}
PICTURES = {"crops": "Before and after", "film": "Film", "frame": "One frame"}
WORTH_FRAMES = 1.0
"""A repair that is expected to be wrong on fewer frames than this is not worth a person's time."""
MAX_VIDEOS = 50
"""Listed above the grid, those with most to review first."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What swap, merge, split and lock are applied to; prefilled from the item."""

    track: int | None = None
    other: int | None = None
    frame: int = 1
    """1-based."""
    anew: bool | None = None
    """Whether masks are tracked anew where that is needed; None where nobody has said so."""


@dataclass(frozen=True)
class Session:
    """The panel at one moment."""

    target: Any = None
    """Video sample or view of an image sequence; None where there is none to review."""
    fields: tuple[str, ...] = ()
    """Label fields of this plugin."""
    field: str = ""
    videos: Mapping[str, str] = dataclass_field(default_factory=dict)
    """Above the grid: target ids to what is said of them. Empty beside an open video."""
    video: str = ""
    shown: str = "worth"
    picture: str = "crops"
    summary: Mapping[str, Any] | None = None
    items: tuple[review.ReviewItem, ...] = ()
    """Those that are shown, in order."""
    all_items: tuple[review.ReviewItem, ...] = ()
    progress: tuple[int, int] = (0, 0)
    place: int = 0
    """Of the item that is looked at, in `items`."""
    frame: int = 1
    """1-based, of the picture of one frame."""
    hands: Hands = Hands()
    typed: Mapping[str, Any] = dataclass_field(default_factory=dict)
    """The state of the panel's inputs: what the person has chosen by hand, item by item."""
    notice: str = ""
    """Why there is nothing to show."""
    done: tuple[edits.Edit, ...] = ()
    """Edits that hold, oldest first."""
    undone: tuple[edits.Edit, ...] = ()
    """Edits that can be made again, next first."""

    choices_shown = SHOWN
    choices_picture = PICTURES

    @property
    def item(self) -> review.ReviewItem | None:
        """The item that is looked at."""
        return self.items[self.place] if self.items else None

    @property
    def names(self) -> list[str]:
        """What its tracks are called."""
        item = self.item
        return [] if item is None or self.summary is None else words.names_of(item.track_ids, self.summary["tracks"])

    @property
    def tracks(self) -> dict[str, str]:
        """All tracks of the video: ids, as text, to what they are called."""
        lines = [] if self.summary is None else self.summary["tracks"]
        ids = sorted(int(line["track_id"]) for line in lines)
        return dict(zip(map(str, ids), words.names_of(ids, lines), strict=True))

    @property
    def key(self) -> str:
        """A name for the item that is looked at; empty where there is none."""
        return "" if self.item is None else key_of(self.item)

    @property
    def hands_path(self) -> str:
        """Where the inputs for `hands` lie: their own for every item, because inputs keep what was typed into them.

        They also keep what they were drawn with; so they are others once an edit has given the item other tracks.
        """
        ids = () if self.item is None else self.item.track_ids
        return "_".join(["hands", self.key.replace("/", "_") or "none", *map(str, ids)])

    @property
    def can_seek(self) -> bool:
        """Whether the App's player can be moved to a frame: that of an image sequence can, that of a video cannot."""
        return self.target is not None and is_group(self.target)

    def state(self) -> dict[str, Any]:
        """What the browser remembers."""
        hands = self.hands
        return {
            "field": self.field,
            "video": self.video,
            "shown": self.shown,
            "picture": self.picture,
            "item": self.key,
            "frame": self.frame,
            "hands_path": self.hands_path,
            "hands": {"track": str(hands.track or ""), "other": str(hands.other or ""), "frame": hands.frame},
        }

    def at_item(self, place: int) -> Session:
        """The same, looking at another item."""
        chosen = replace(self, place=min(max(place, 0), max(len(self.items) - 1, 0)))
        item = chosen.item
        if item is None:
            return replace(chosen, hands=_hands(chosen, _first_hands(chosen)))
        here = [track_id for track_id in item.track_ids if str(track_id) in chosen.tracks]
        # Where in an encounter two identities were exchanged is not known; its middle is wrong by the least.
        middle = (item.start + item.stop) // 2 + 1
        hands = Hands(here[0] if here else None, here[1] if len(here) > 1 else None, middle)
        return replace(chosen, frame=middle, hands=_hands(chosen, hands))

    def at_next_open(self) -> Session:
        """The same, looking at the first item that nobody has settled."""
        places = [place for place, item in enumerate(self.items) if item.state == "open"]
        return self.at_item(places[0]) if places else self

    def at_frame(self, frame: int) -> Session:
        """The same, with another frame as picture; 1-based."""
        last = int(self.summary["stop"]) if self.summary is not None else 1
        return replace(self, frame=min(max(frame, 1), last), picture="frame")

    def reloaded(self) -> Session:
        """The same after the labels have changed."""
        return _with_items(self, None if self.item is None else key_of(self.item))

    def rows(self, start: int, count: int) -> list[dict[str, Any]]:
        """A part of the queue for a table."""
        tracks = () if self.summary is None else self.summary["tracks"]
        return [
            {
                "rank": f"▸ {place + 1}" if place == self.place else str(place + 1),
                "what": words.heading(item, words.names_of(item.track_ids, tracks)),
                "frames": words.frames_text(item.start, item.stop).removeprefix("frames ").removeprefix("frame "),
                "sure": words.per_cent(item.confidence),
                "error": f"{item.expected_error:.0f}" if item.expected_error >= WORTH_FRAMES else "under 1",
                "state": words.state_text(item),
            }
            for place, item in list(enumerate(self.items))[start : start + count]
        ]

    def draw(self) -> str:
        """The picture as data URI, empty where there is none.

        A video that cannot be read any more costs the picture, not the review.
        """
        if self.item is None or self.target is None:
            return ""
        try:
            return _DRAW[self.picture](self)
        except InputError:
            return ""

    def why_not(self, action: str) -> str:
        """Why swap, merge, split or lock cannot be made on what is in the hands; empty where it can."""
        lines, hands = ([] if self.summary is None else self.summary["tracks"]), self.hands
        return why_not(action, lines, track=hands.track, other=hands.other, frame=hands.frame, locked=self.locked)

    @property
    def edits_since_undo(self) -> int | None:
        """How many edits were made after the one that took the item's repair back; None where there is no such one."""
        item = self.item
        if item is None or item.state != "undone":
            return None
        for later, edit in enumerate(reversed(self.done)):
            if edit.kind == edits.EditKind.UNDO_REPAIR and edit.repair_id == item.repair_id:
                return later
        return None

    @property
    def has_open(self) -> bool:
        """Whether there is an item that nobody has settled."""
        return any(item.state == "open" for item in self.items)

    # What the buttons do. Each returns the line that the person reads.

    def accept(self) -> str:
        """Confirm the item as it stands."""
        item = self._require_item()
        if item.encounter_id is not None:
            return str(edits.accept(self.target, self.field, encounter_id=item.encounter_id).text)
        return str(edits.accept(self.target, self.field, repair_id=item.repair_id).text)

    def undo_repair(self) -> str:
        """Take the item's repair back."""
        item = self._require_item()
        if item.repair_id is None:
            raise OptionError("this item is a doubt, not a repair: there is nothing to undo")
        return str(edits.undo_repair(self.target, self.field, item.repair_id).text)

    def redo_repair(self) -> str:
        """Make the item's repair again, which was taken back by the newest edit."""
        if self.edits_since_undo != 0:
            raise OptionError("this repair was not taken back by the newest edit: undo the edits made since first")
        taken_back = edits.undo(self.target, self.field)
        return f"Repair {taken_back.repair_id} is made again"

    def swap(self) -> str:
        """Exchange the two tracks from the frame on."""
        a, b = self._pair("swap")
        anew, note = self._repropagator("swap")
        edit = edits.swap(
            self.target, self.field, a, b, self.hands.frame - 1, encounter_id=self._answers(a, b), anew=anew
        )
        return tracked_anew.message(edit, note)

    def merge(self) -> str:
        """Give the other track's frames to the track."""
        keep, other = self._pair("merge")
        anew, note = self._repropagator("merge")
        edit = edits.merge(self.target, self.field, keep, other, encounter_id=self._answers(keep, other), anew=anew)
        return tracked_anew.message(edit, note)

    def offer(self, action: str) -> Any:
        """What could be tracked anew after a swap or merge of what is in the hands, or None."""
        if self.summary is None:
            return None
        hands = self.hands
        return tracked_anew.offer_of(action, self.summary, hands.track, hands.other, frame=hands.frame)

    def tracks_anew(self, action: str) -> bool:
        """Whether that takes a while, because masks are tracked anew."""
        return self.offer(action) is not None and self._repropagator(action)[0] is not None

    def _repropagator(self, action: str) -> tuple[Any, str]:
        from fiftyone_plugin import repropagate

        return repropagate.choose(self.target, self.field, self.offer(action), self.hands.anew)

    def split(self) -> str:
        """Make the track from the frame on a new one."""
        track = self._track("split")
        frame = self.hands.frame - 1
        return str(edits.split(self.target, self.field, track, frame, encounter_id=self._answers(track)).text)

    def lock(self) -> str:
        """Fix the track, or let go of it if it is fixed."""
        track = self._track("lock")
        return str(edits.lock(self.target, self.field, [track], track not in self.locked).text)

    def take_back(self) -> str:
        """Undo the newest edit."""
        return f"Undone: {edits.undo(self.target, self.field).text}"

    def put_again(self) -> str:
        """Do again what was undone last."""
        return f"Done again: {edits.redo(self.target, self.field).text}"

    @property
    def locked(self) -> frozenset[int]:
        """Tracks that may not change."""
        marks = {} if self.summary is None else self.summary.get("marks", {})
        return frozenset(int(track_id) for track_id in marks.get("locked", ()))

    def _require_item(self) -> Any:
        if self.item is None:
            raise OptionError("there is no item to decide on: choose another video, or show all items")
        return self.item

    def _track(self, what: str) -> int:
        if self.hands.track is None:
            raise OptionError(f"{what}: choose a track first")
        return self.hands.track

    def _pair(self, what: str) -> tuple[int, int]:
        first = self._track(what)
        if self.hands.other is None or self.hands.other == first:
            raise OptionError(f"{what}: choose two different tracks first")
        return first, self.hands.other

    def _answers(self, *track_ids: int) -> int | None:
        """The encounter that an edit of these tracks settles: that of the item, if it is about them."""
        item = self.item
        return item.encounter_id if item is not None and set(track_ids) <= set(item.track_ids) else None


_REMEMBERED = ("field", "video", "shown", "picture", "item", "frame")


def open_session(ctx: Any, remembered: Mapping[str, Any], typed: Mapping[str, Any], **chosen: Any) -> Session:
    """What the panel shows, from what the browser remembers and what was chosen just now.

    Args:
        ctx: FiftyOne's execution context of a panel event.
        remembered: `Session.state` of the last event; empty at the first.
        typed: The state of the panel's inputs.
        chosen: Instead of what is remembered: `field`, `video`, `shown`, `picture`, `frame`, or `item` (None is the
            first one).
    """
    wanted = {**dict.fromkeys(_REMEMBERED), **remembered, **chosen}
    fields = browse.own_fields(ctx.dataset)
    if not fields:
        return Session(
            notice="There are no tracks of Shepherd in this dataset yet. Run **Track objects by name** first."
        )
    field = wanted["field"] if wanted["field"] in fields else fields[0]
    session = Session(
        fields=fields,
        field=field,
        shown=wanted["shown"] if wanted["shown"] in SHOWN else "worth",
        picture=wanted["picture"] if wanted["picture"] in PICTURES else "crops",
        typed=typed,
    )
    if ctx.current_sample:
        video = ctx.current_sample
    else:
        videos = dict(browse.targets_to_review(ctx.view, field, limit=MAX_VIDEOS))
        if not videos:
            return replace(session, notice=f"No video of this view has tracks in **{field}**.")
        selected = next((sample_id for sample_id in ctx.selected or () if sample_id in videos), None)
        video = next((v for v in (wanted["video"], selected) if v in videos), next(iter(videos)))
        session = replace(session, videos=videos)
    target = browse.target_of(ctx.view, video)
    session = replace(session, target=target, video=video)
    session = _with_items(session, wanted["item"])
    # An empty key is remembered where there is nothing to look at; None asks for a new beginning.
    if wanted["item"] is not None and wanted["item"] == session.key:
        session = replace(session, frame=int(wanted["frame"] or session.frame))
    return session


def _with_items(session: Session, key: str | None) -> Session:
    """The session with its summary and items read anew, looking at the item of that key, else at the first."""
    summary = None if session.target is None else labels.read_summary(session.target, session.field)
    if summary is None:
        text = f"This video has no tracks in **{session.field}** that Shepherd has made."
        return replace(session, summary=None, items=(), notice=text)
    items = review.review_items(summary)
    worth = [item for item in items if _is_worth_a_look(item)]
    shown = items if session.shown == "all" else worth
    notice = ""
    if not shown:
        rest = f" {len(items)} repairs are all but certain; choose **Everything** to see them." if items else ""
        notice = f"Nothing in this video needs you.{rest}"
    done, undone = edits.history(session.target, session.field)
    session = replace(
        session,
        summary=summary,
        items=tuple(shown),
        all_items=items,
        progress=_progress(worth),
        notice=notice,
        done=done,
        undone=undone,
    )
    places = [place for place, item in enumerate(shown) if key_of(item) == key]
    return session.at_item(places[0] if places else 0)


def _is_worth_a_look(item: review.ReviewItem) -> bool:
    # What somebody has settled stays in the list: an edit changes what is at stake, and an item must not vanish for it.
    return item.outcome == "abstain" or item.state != "open" or item.expected_error >= WORTH_FRAMES


def _progress(items: Sequence[Any]) -> tuple[int, int]:
    return sum(item.state != "open" for item in items), len(items)


def key_of(item: review.ReviewItem) -> str:
    """A name for an item that stays the same over edits."""
    return f"{item.encounter_id}/{item.repair_id}"


def _hands(session: Session, suggested: Hands) -> Hands:
    """What the person has set by hand, where it still makes sense, else what is suggested."""
    given, known = session.typed.get(session.hands_path) or {}, session.tracks
    track, other, frame = (str(given.get(name) or "") for name in ("track", "other", "frame"))
    return Hands(
        int(track) if track in known else suggested.track,
        int(other) if other in known else suggested.other,
        int(frame) if frame.isdigit() else suggested.frame,
        given.get("anew"),
    )


def _first_hands(session: Session) -> Hands:
    ids = [int(track_id) for track_id in session.tracks]
    start = int(session.summary["start"]) + 1 if session.summary is not None else 1
    return Hands(ids[0] if ids else None, ids[1] if len(ids) > 1 else None, start)


# Pictures


def _draw_crops(session: Session) -> str:
    item, summary = session.item, session.summary
    rows = crops.rows_of(item, summary or {}, session.names)
    wanted = tuple(sorted({frame for row in rows for frame in (*row.before, *row.after)}))
    tracks = browse.read_tracks_at(session.target, session.field, wanted, track_ids=[row.track_id for row in rows])
    frames = _frames(session, wanted)
    middle = (str(item.kind), f"{item.start + 1}–{item.stop}")
    return data_uri(crops.draw_strips(rows, frames, tracks, middle=middle))


def _draw_film(session: Session) -> str:
    source = _source(session)
    start, stop = crops.film_range(session.item, source.info.frame_count)
    tracks = browse.read_tracks_at(session.target, session.field, range(start, stop))
    return crops.film(source, tracks, start, stop)


def _draw_frame(session: Session) -> str:
    index = session.frame - 1
    frames = _frames(session, (index,))
    if index not in frames:
        return ""
    return data_uri(crops.draw_frame(frames[index], browse.read_tracks_at(session.target, session.field, (index,))))


_DRAW = {"crops": _draw_crops, "film": _draw_film, "frame": _draw_frame}


def _source(session: Session) -> Any:
    if is_group(session.target):
        return labels.open_target(session.target)
    path = Path(session.target.filepath)
    return _video(str(path), path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _video(path: str, _changed_at: int) -> Any:
    """An open video; to open one means to read all its packets."""
    return open_source(path)


_decoded: dict[tuple[str, tuple[int, ...]], Mapping[int, Any]] = {}
"""Frames of the picture that was drawn last: an edit draws the same ones again."""


def _frames(session: Session, indices: tuple[int, ...]) -> Mapping[int, Any]:
    key = (session.video, indices)
    if key not in _decoded:
        frames = crops.read_frames(_source(session), indices)
        _decoded.clear()
        _decoded[key] = frames
    return _decoded[key]
