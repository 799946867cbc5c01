"""Panel `review_tracks`: what the identity layer was not sure of, worst first, with the means to settle it.

Draws and dispatches only: what there is to review comes from `labels.review`, the edits are those of `labels.edits`,
words, timeline and pictures have modules of their own. It reads the summary that a run stored, and labels of the few
frames that it shows; never all frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from . import review_words as words
from . import tracked_anew
from .review_timeline import COMPONENT, timeline

if TYPE_CHECKING:
    from .review_session import Session

__all__ = ["ReviewTracks"]

_STATE = "review"
"""Where the state lies in the browser. Inputs write their values into that state too, each under its own path; under
this one there is no input."""
QUEUE_ROWS = 12
"""Items listed at once, around the one that is looked at."""


class ReviewTracks(foo.Panel):
    """Look at doubtful identities in order of what they would cost, and settle them with a click."""

    @property
    def config(self) -> foo.PanelConfig:
        """What FiftyOne shows."""
        return foo.PanelConfig(
            name="review_tracks",
            label="Review tracks",
            icon="rule",
            surfaces="grid modal",
            help_markdown="Doubtful identities, worst first: compare before and after, then accept, undo or mend.",
        )

    # What FiftyOne calls

    def execute(self, ctx: Any) -> Any:
        """Handle an event and draw the panel anew, but not for inputs that only say what they were drawn with."""
        return None if _is_echo(ctx) else super().execute(ctx)

    def on_load(self, ctx: Any) -> None:
        """The panel was opened."""
        self._show(ctx, _open(ctx))

    def on_change_current_sample(self, ctx: Any) -> None:
        """Another video was opened beside the panel."""
        if ctx.current_sample:
            self._show(ctx, _open(ctx, item=None))

    # What the person chooses

    def choose_field(self, ctx: Any) -> None:
        """Another label field."""
        self._show(ctx, _open(ctx, field=ctx.params.get("value"), item=None))

    def choose_video(self, ctx: Any) -> None:
        """Another video (above the grid only)."""
        self._show(ctx, _open(ctx, video=ctx.params.get("value"), item=None))

    def choose_shown(self, ctx: Any) -> None:
        """Doubts only, repairs only, or everything."""
        self._show(ctx, _open(ctx, shown=ctx.params.get("value"), item=None))

    def choose_picture(self, ctx: Any) -> None:
        """Crops, film, or one frame."""
        self._show(ctx, _open(ctx, picture=ctx.params.get("value")))

    def choose_frame(self, ctx: Any) -> None:
        """The frame that is shown whole."""
        if ctx.params.get("value"):
            self._show(ctx, _open(ctx).at_frame(int(ctx.params["value"])))

    def choose_hands(self, ctx: Any) -> None:
        """The tracks or the frame that an edit is applied to: the buttons follow, the picture stays."""
        session = _open(ctx)
        ctx.panel.state.set(_STATE, session.state())
        self._shown = (ctx, session)

    def step(self, ctx: Any) -> None:
        """The next or previous item, or frame."""
        session = _open(ctx)
        by = int(ctx.params.get("by", 1))
        if ctx.params.get("what") == "frame":
            self._show(ctx, session.at_frame(session.frame + by))
        else:
            self._show(ctx, session.at_item(session.place + by))

    def look(self, ctx: Any) -> None:
        """The item of a row of the table."""
        session = _open(ctx)
        self._show(ctx, session.at_item(_first_row(session) + int(ctx.params.get("row") or 0)))

    def look_on_timeline(self, ctx: Any) -> None:
        """The item of a mark that was clicked."""
        key = str(ctx.params.get("id") or "")
        if not key:
            return
        session = _open(ctx, item=key)
        self._show(ctx, session if session.key == key else _open(ctx, item=key, shown="all"))

    def go_to_frame(self, ctx: Any) -> None:
        """Move the player of an image sequence to the item."""
        session = _open(ctx)
        if session.item is not None:
            ctx.trigger("set_frame_number", {"frame_number": session.item.start + 1})
        self._show(ctx, session)

    # What the person decides

    def accept(self, ctx: Any) -> None:
        """Right as it stands."""
        self._edit(ctx, lambda session: session.accept(), goes_on=True)

    def undo_repair(self, ctx: Any) -> None:
        """Take the repair back."""
        self._edit(ctx, lambda session: session.undo_repair())

    def redo_repair(self, ctx: Any) -> None:
        """Make a repair again that was taken back."""
        self._edit(ctx, lambda session: session.redo_repair())

    def next_open(self, ctx: Any) -> None:
        """The first item that nobody has settled."""
        self._show(ctx, _open(ctx).at_next_open())

    def swap(self, ctx: Any) -> None:
        """Exchange two tracks from a frame on."""
        if not self._announced(ctx, "swap"):
            self.swap_now(ctx)

    def swap_now(self, ctx: Any) -> None:
        """The same, after it was said that it takes a while."""
        self._edit(ctx, lambda session: session.swap())

    def merge(self, ctx: Any) -> None:
        """Make two tracks one."""
        if not self._announced(ctx, "merge"):
            self.merge_now(ctx)

    def merge_now(self, ctx: Any) -> None:
        """The same, after it was said that it takes a while."""
        self._edit(ctx, lambda session: session.merge())

    def split(self, ctx: Any) -> None:
        """Make the rest of a track a new one."""
        self._edit(ctx, lambda session: session.split())

    def lock(self, ctx: Any) -> None:
        """Fix a track, or let go of it."""
        self._edit(ctx, lambda session: session.lock())

    def take_back(self, ctx: Any) -> None:
        """Undo the newest edit."""
        self._edit(ctx, lambda session: session.take_back())

    def put_again(self, ctx: Any) -> None:
        """Redo what was undone."""
        self._edit(ctx, lambda session: session.put_again())

    def _announced(self, ctx: Any, action: str) -> bool:
        """Say that an edit takes a while, and have the App ask for it; False where it takes a moment only."""
        session = _open(ctx)
        if not session.tracks_anew(action):
            return False
        # What an event says is read when it is over. So this one is over at once, and the work is an event of its own.
        ctx.ops.notify(f"Working: {tracked_anew.effort(action, session.offer(action))}", variant="info")
        told = {name: ctx.params.get(name) for name in ("panel_id", "panel_state")}
        ctx.trigger(self.uri, {**told, "__method__": f"{action}_now"})
        self._show(ctx, session)
        return True

    def _edit(self, ctx: Any, change: Callable[[Session], str], *, goes_on: bool = False) -> None:
        from fiftyone_plugin.errors import InputError

        session = _open(ctx)
        try:
            text = change(session)
        except InputError as error:
            ctx.ops.notify(str(error), variant="error")
            self._show(ctx, session)
            return
        ctx.ops.notify(text, variant="success")
        ctx.ops.reload_samples()
        session = session.reloaded()
        self._show(ctx, session.at_next_open() if goes_on else session)

    def _show(self, ctx: Any, session: Session) -> None:
        """Hand the state to the browser, and with it the picture."""
        ctx.panel.state.set(_STATE, session.state())
        picture = session.draw()
        if session.picture == "film":
            ctx.panel.data.set("film", {"url": picture})
        else:
            ctx.panel.data.set("look", picture)
        # `render` follows in the same call; an instance may serve several people, so the event is kept with it.
        self._shown = (ctx, session)

    # The layout

    def render(self, ctx: Any) -> types.Property:
        """The panel, from top to bottom: choices, progress, timeline, item, actions, queue."""
        shown_to, session = getattr(self, "_shown", (None, None))
        if shown_to is not ctx:
            session = _open(ctx)
        panel = types.Object()
        _add_choices(panel, self, session)
        if session.notice:
            panel.md(session.notice, name="notice")
        if session.summary is not None:
            self._add_review(panel, session)
        return types.Property(panel, view=types.GridView(orientation="vertical", align_x="left", gap=1, pad=2))

    def _add_review(self, panel: types.Object, session: Session) -> None:
        drawn = timeline(session.summary, session.all_items, chosen=session.item)
        view = types.View(component=COMPONENT, composite_view=True, on_look=self.look_on_timeline, **drawn)
        panel.define_property("timeline", types.Object(), view=view)
        if session.item is not None:
            _add_item(panel, self, session)
        else:
            _add_actions(panel, self, session)
        _add_hands(panel, self, session)
        if session.items:
            _add_queue(panel, self, session)


def _is_echo(ctx: Any) -> bool:
    """Whether an event comes from an input that says what is shown: all of them speak up when they are drawn, too."""
    event, of, name = str(ctx.params.get("__method__") or "").partition("choose_")
    remembered = ctx.panel.state.get(_STATE)
    if event or not of or not remembered:
        return False
    if name == "hands":
        row, _, name = str(ctx.params.get("path") or "").partition(".")
        if name == "anew" or row != remembered["hands_path"]:
            return True  # no button says it; or an input of the item before
        remembered = remembered["hands"]
    return bool(ctx.params.get("value") == remembered.get(name))


def _open(ctx: Any, **chosen: Any) -> Session:
    # Not at the top: the plugin's entry runs at every operator call, and this brings the decoder and OpenCV along.
    from .review_session import open_session

    typed = ctx.params.get("panel_state") or {}
    return open_session(ctx, ctx.panel.state.get(_STATE) or {}, typed, **chosen)


def _add_choices(panel: types.Object, on: ReviewTracks, session: Session) -> None:
    row = panel.h_stack("choices", align_y="center", gap=2)
    if len(session.fields) > 1:
        _dropdown(row, "field", "Tracks", {name: name for name in session.fields}, session.field, on.choose_field)
    if session.videos:
        _dropdown(row, "video", "Video", session.videos, session.video, on.choose_video)
    if session.summary is not None:
        _dropdown(row, "shown", "Show", session.choices_shown, session.shown, on.choose_shown)
        done, total = session.progress
        row.md(f"**{done} of {total}** reviewed" if total else "nothing to review", name="progress")


def _dropdown(row: types.Object, name: str, label: str, values: Any, chosen: str, on_change: Any) -> None:
    view = types.DropdownView(label=label)
    for value, text in values.items():
        view.add_choice(value, label=text)
    row.enum(name, view.values(), default=chosen, view=view, on_change=on_change)


def _add_item(panel: types.Object, on: ReviewTracks, session: Session) -> None:
    item, names = session.item, session.names
    head = panel.h_stack("head", align_y="center", gap=1)
    head.btn(
        "previous",
        label="Previous",
        icon="chevron_left",
        on_click=on.step,
        params={"by": -1},
        variant="outlined",
        disabled=session.place == 0,
    )
    head.btn(
        "next",
        label="Next",
        icon="chevron_right",
        on_click=on.step,
        params={"by": 1},
        variant="outlined",
        disabled=session.place + 1 >= len(session.items),
    )
    place = f"{session.place + 1} of {len(session.items)}"
    head.md(f"**{words.title(item, names)}** · {place} · {words.state_text(item)}", name="title")
    lines = [f"**{words.question(item, names)}**"] if item.state == "open" else []
    lines += [words.verdict(item), words.evidence(item.terms), words.way_back(session.edits_since_undo)]
    panel.md("  \n".join(line for line in lines if line), name="words")
    _add_actions(panel, on, session)
    tabs = types.TabsView()
    for value, text in session.choices_picture.items():
        tabs.add_choice(value, label=text)
    panel.enum("picture", tabs.values(), default=session.picture, view=tabs, on_change=on.choose_picture)
    _add_picture(panel, on, session)
    if not session.can_seek and session.picture != "film":
        panel.md(words.CANNOT_SEEK, name="cannot_seek")


def _add_picture(panel: types.Object, on: ReviewTracks, session: Session) -> None:
    if session.picture == "film":
        panel.define_property("film", types.Object(), view=types.MediaPlayerView())
        return
    size = {"width": "100%"} if session.picture == "crops" else {"height": "420px"}
    panel.str("look", view=types.ImageView(alt="the tracks of this item before and after it", **size))
    if session.picture == "frame":
        row = panel.h_stack(f"frames_{session.frame}", align_y="center", gap=1)
        for name, label, icon, by in (("back", "Back", "chevron_left", -1), ("on", "On", "chevron_right", 1)):
            row.btn(
                f"frame_{name}",
                label=label,
                icon=icon,
                on_click=on.step,
                params={"what": "frame", "by": by},
                variant="outlined",
            )
        row.int("frame", default=session.frame, label="frame", min=1, view=types.FieldView(), on_change=on.choose_frame)


def _add_actions(panel: types.Object, on: ReviewTracks, session: Session) -> None:
    """What answers the item with one click, and the edits that need no item."""
    answers = _answers(session)
    if session.item is not None and session.can_seek:
        answers.append(("go_to_frame", "Go there", "my_location"))
    if answers:
        row = panel.btn_group("answers")
        for place, (name, label, icon) in enumerate(answers):
            variant = "outlined" if place else "contained"
            row.btn(name, label=label, icon=icon, on_click=getattr(on, name), variant=variant)
    changes = panel.btn_group("changes")
    for name, label, icon in _edits(session):
        reason = session.why_not(name)
        changes.btn(
            name,
            label=label,
            icon=icon,
            on_click=getattr(on, name),
            variant="outlined",
            disabled=bool(reason),
            title=reason or None,
        )


def _answers(session: Session) -> list[tuple[str, str, str]]:
    """What can be said of the item as it stands, the first thing first."""
    item = session.item
    if item is None:
        return []
    if item.state == "open":
        undo = [("undo_repair", "Undo repair", "undo")] if item.repair_id is not None else []
        return [("accept", "Accept", "check"), *undo]
    answers = [("redo_repair", "Redo repair", "redo")] if session.edits_since_undo == 0 else []
    answers += [("next_open", "Next to review", "arrow_forward")] if session.has_open else []
    takes_back = item.repair_id is not None and item.state != "undone"
    return answers + ([("undo_repair", "Undo repair", "undo")] if takes_back else [])


def _edits(session: Session) -> list[tuple[str, str, str]]:
    tracks, hands = session.tracks, session.hands
    first, other = (tracks.get(str(track_id), "") for track_id in (hands.track, hands.other))
    both = f"{first} and {other}"
    pair = [
        ("swap", f"Swap {both} from frame {hands.frame}", "swap_horiz"),
        ("merge", f"Merge {both}", "merge"),
    ]
    single = [
        ("split", f"Split {first} at frame {hands.frame}", "call_split"),
        ("lock", f"{'Unlock' if hands.track in session.locked else 'Lock'} {first}", "lock"),
    ]
    return (pair if first and other else []) + (single if first else [])


def _add_hands(panel: types.Object, on: ReviewTracks, session: Session) -> None:
    """What swap, merge, split and lock apply to: the item's tracks until somebody chooses others."""
    row = panel.h_stack(session.hands_path, align_y="center", gap=2)
    for name, label, chosen in (("track", "Track", session.hands.track), ("other", "and", session.hands.other)):
        view = types.DropdownView(label=label)
        for value, text in session.tracks.items():
            view.add_choice(value, label=text)
        row.enum(name, view.values(), default=str(chosen or ""), label=label, view=view, on_change=on.choose_hands)
    row.int(
        "frame",
        default=session.hands.frame,
        label="from frame",
        min=1,
        view=types.FieldView(),
        on_change=on.choose_hands,
    )
    _add_anew(panel, row, on, session)
    for name, label, icon, of in (
        ("take_back", "Undo last edit", "undo", session.done[-1:]),
        ("put_again", "Redo", "redo", session.undone[:1]),
    ):
        row.btn(
            name,
            label=label,
            icon=icon,
            on_click=getattr(on, name),
            variant="outlined",
            disabled=not of,
            title=of[0].text if of else "there is nothing",
        )


def _add_anew(panel: types.Object, row: types.Object, on: ReviewTracks, session: Session) -> None:
    """Whether masks are tracked anew, where swap or merge of what is in the hands leave something to do."""
    for action in ("merge", "swap"):
        offer = session.offer(action)
        if offer is None:
            continue
        is_on = not offer.why_not if session.hands.anew is None else session.hands.anew
        row.bool(
            "anew",
            default=is_on,
            label=tracked_anew.tick_label(action),
            view=types.CheckboxView(),
            on_change=on.choose_hands,
        )
        panel.md(f"{action.capitalize()}: {tracked_anew.effort(action, offer)}", name="anew_effort")
        return


def _add_queue(panel: types.Object, on: ReviewTracks, session: Session) -> None:
    table = types.TableView()
    for name, label in (
        ("rank", "#"),
        ("what", "What"),
        ("frames", "Frames"),
        ("sure", "Sure"),
        ("error", "Wrong frames to expect"),
        ("state", "State"),
    ):
        table.add_column(name, label=label)
    table.add_row_action("look", on.look, label="Look", icon="visibility", tooltip="Look at this one")
    panel.list(
        "queue", types.Object(), label="Queue", view=table, default=session.rows(_first_row(session), QUEUE_ROWS)
    )


def _first_row(session: Session) -> int:
    return session.place // QUEUE_ROWS * QUEUE_ROWS
