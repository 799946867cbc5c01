"""Video files, through PyAV: exact frame numbers, true presentation times, and a clear word about damage.

A frame's index is its position in presentation order. Reading may start midway without decoding all that lies before,
but only where the container's packets prove which frame is which; otherwise decoding starts at frame 0.
Damage is what the decoder reports: H.264 and MPEG-4 decoders notice nearly all of it, HEVC and VP9 decoders paint over
flipped bits without a word.
Knows nothing of folders or of what the frames are for.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.errors import VideoError
from fiftyone_plugin.types import Frame, IntArray, VideoInfo
from fiftyone_plugin.video.images import check_range
from fiftyone_plugin.video.read_ahead import read_ahead

__all__ = ["VideoFileSource"]

READ_AHEAD_FRAMES = 4
"""Decoded frames that wait for the model; a 4K frame is 25 MB."""

RUN_UP_FRAMES = 8
"""Frames decoded before a start midway; they must come exactly as the packets announced them."""

ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc", "av1", "libdav1d", "vp9", "mjpeg", "prores", "dnxhd", "ffv1", "png"})
"""Codecs whose packets are frames, one to one. Others (MPEG-4 with packed B-frames, VP8 with hidden frames) are read
from frame 0."""

TEXT_AS_VIDEO = frozenset({"tty", "concat", "hls", "dash", "lrc", "srt", "webvtt", "ass"})
"""FFmpeg formats that turn text into pictures, or files into lists of other files."""

CLAIM_TOLERANCE_SECONDS = 1.0
"""A duration in a header is rounded and may count the sound; less missing than this is not worth a warning."""


class _DamageError(Exception):
    """Decoding cannot go on; the message is the reason."""


class _InexactSeekError(Exception):
    """What came after a seek is not what the packets announced."""


@dataclass(frozen=True, slots=True)
class _PacketIndex:
    """The frames of the stream as its packets announce them."""

    pts: IntArray
    """int64 (F,), presentation times in units of the stream's time base, increasing; empty unless `is_exact`."""
    key_ranks: IntArray
    """Indices of the frames at which decoding can start, increasing."""
    frame_count: int
    hidden_count: int
    """Packets that carry no frame to be shown, such as those that an edit list cuts away."""
    is_exact: bool
    """Every packet has its own presentation time, and is one frame."""

    def follows(self, previous_pts: int | None, pts: int | None) -> bool:
        """Whether `pts` is known to belong to the frame after the one shown at `previous_pts`."""
        if not self.is_exact or previous_pts is None or pts is None:
            return False
        rank = int(np.searchsorted(self.pts, previous_pts)) + 1
        return rank < len(self.pts) and int(self.pts[rank]) == pts

    def entry_rank(self, start: int) -> int:
        """The frame at which to begin decoding in order to reach `start`; 0 where nothing better is certain."""
        if not self.is_exact:
            return 0
        early = self.key_ranks[self.key_ranks <= start - RUN_UP_FRAMES]
        return int(early[-1]) if len(early) else 0


class VideoFileSource:
    """The first video stream of a file."""

    def __init__(self, path: str | Path, *, source: str | None = None) -> None:
        """Read the packets of the whole file, and decode its first frame.

        Args:
            path: A file in any container that FFmpeg reads.
            source: Name for messages and results; the path by default.

        Raises:
            VideoError: It is not a video, or no frame of it can be decoded.
        """
        self._path = Path(path)
        self._name = source or str(path)
        self._warnings: list[str] = []
        try:
            self._open_first_frame()
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(f"{self._name}: is not a video that can be read ({_reason(error)})") from None

    def _open_first_frame(self) -> None:
        with self._open() as container:
            stream = _video_stream(container, self._name)
            self._index = _index_packets(container, stream)
            claimed_seconds, claimed_count = _claims(container, stream, self._index)
            rate = float(stream.average_rate or stream.guessed_rate or 25)
        with self._open() as container:
            stream = _video_stream(container, self._name)
            try:
                first = next(_decode(container, stream, self._index))
            except (StopIteration, _DamageError) as error:
                reason = f" ({error})" if str(error) else ""
                raise VideoError(f"{self._name}: no frame of it can be decoded{reason}") from None
            height, width = _to_rgb(first).shape[:2]
        if self._index.is_exact:
            # A recording that begins in the middle of a group of pictures: its first packets never become frames.
            lead = int(np.searchsorted(self._index.pts, first.pts if first.pts is not None else 0))
            keys = self._index.key_ranks - lead
            self._index = replace(
                self._index,
                pts=self._index.pts[lead:],
                key_ranks=keys[keys >= 0],
                frame_count=self._index.frame_count - lead,
            )
        self._claimed_seconds = claimed_seconds
        self._claimed_count = max(claimed_count, self._index.frame_count)
        self._frame_limit = max(self._index.frame_count, 1)
        self._end: int | None = None
        self._info = VideoInfo(self._name, width, height, self._frame_limit, rate)

    @property
    def info(self) -> VideoInfo:
        """What is known so far; `frame_count` is corrected once the video was decoded to its end."""
        return self._info

    @property
    def warnings(self) -> tuple[str, ...]:
        """Where the video had to stop, if it had to."""
        return tuple(self._warnings)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield the frames ``[start, stop)``; `stop` may lie behind the end.

        Damage ends the iteration: the frames before it are kept, and `warnings` says where it lies.

        Raises:
            FrameRangeError: `start` is not inside the video, or `stop` is not after `start`.
        """
        last = check_range(start, stop, frame_count=self._frame_limit, source=self._name)
        # The packets may have been miscounted, so an open end means the end of the stream.
        return read_ahead(self._read(start, last if stop is not None else None), capacity=READ_AHEAD_FRAMES)

    def _read(self, start: int, stop: int | None) -> Generator[Frame, None, None]:
        if self._end is not None and start >= self._end:
            return
        entry = self._index.entry_rank(start)
        if entry:
            try:
                yield from self._walk(entry, start, stop)
                return
            except _InexactSeekError:
                self._index = replace(self._index, is_exact=False)
        yield from self._walk(0, start, stop)

    def _walk(self, entry: int, start: int, stop: int | None) -> Generator[Frame, None, None]:
        """Decode from the frame `entry` on, and yield what lies in the range."""
        index = self._index
        number = entry
        previous: int | None = None
        seconds = 0.0
        with self._open() as container:
            stream = _video_stream(container, self._name)
            if entry:
                container.seek(int(index.pts[entry]), stream=stream)
            try:
                for frame in _decode(container, stream, index):
                    if entry and previous is None:
                        if frame.pts is not None and frame.pts < index.pts[entry]:
                            continue
                        if frame.pts != index.pts[entry]:
                            raise _InexactSeekError
                    if previous is not None and not index.follows(previous, frame.pts):
                        if entry and number <= start:
                            raise _InexactSeekError
                        if entry:
                            raise _DamageError("a frame is missing")
                        # The packets do not tell the frames after all; counting from 0 needs no packets.
                        self._index = index = replace(index, is_exact=False)
                    previous = frame.pts if index.is_exact else None
                    seconds = self._seconds(number, frame, stream)
                    if number >= start:
                        yield self._to_frame(number, seconds, frame)
                    number += 1
                    if number == stop:
                        return
            except _DamageError as damage:
                reason = str(damage)
            else:
                reason = ""
        if entry and number <= start:
            raise _InexactSeekError  # nothing was yielded yet: walk from frame 0, and see what is true
        self._ends_at(number, seconds, reason)

    def _open(self) -> Any:
        # "file:" keeps a name such as "a:b.mp4" from being read as a protocol, and the white list keeps a file that
        # is a list of other places from being followed there.
        return av.open(
            f"file:{self._path}",
            metadata_errors="replace",
            options={"protocol_whitelist": "file", "err_detect": "explode"},
        )

    def _seconds(self, number: int, frame: Any, stream: Any) -> float:
        if frame.pts is None or stream.time_base is None:
            return number / self._info.frames_per_second
        return float(frame.pts * stream.time_base)

    def _to_frame(self, number: int, seconds: float, frame: Any) -> Frame:
        image = _to_rgb(frame)
        if image.shape[:2] != (self._info.height_px, self._info.width_px):
            raise _DamageError(f"the frame size changes to {image.shape[1]}x{image.shape[0]}")
        return Frame(number, seconds, image)

    def _ends_at(self, number: int, seconds: float, damage: str) -> None:
        """Note that the video really ends before frame `number`, whose predecessor is shown at `seconds`."""
        end = seconds + 1 / self._info.frames_per_second
        missing = self._claimed_count - number
        if not damage and missing > 0:
            # A file that was cut off between two packets ends without an error.
            is_cut = self._claimed_seconds is None or self._claimed_seconds - end > CLAIM_TOLERANCE_SECONDS
            damage = "the file ends early" if is_cut or number < self._index.frame_count else ""
        if damage:
            about = f" of about {self._claimed_count}" if missing > 0 else ""
            line = f"{self._name}: stops at frame {number}{about} ({end:.1f} s): {damage}"
            if line not in self._warnings:
                self._warnings.append(line)
        self._end = number
        self._info = replace(self._info, frame_count=number)


def _video_stream(container: Any, name: str) -> Any:
    """The best video stream that is not a cover picture, ready to decode.

    Raises:
        VideoError: There is none.
    """
    formats = set(container.format.name.split(","))
    pictures = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & pictures and s.codec_context is not None]
    if not streams or formats & TEXT_AS_VIDEO:
        raise VideoError(f"{name}: holds no video ({container.format.long_name}): give a video file")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    # One thread: a damaged packet is then reported when it is decoded, not some frames later, and which frames were
    # kept does not depend on the number of cores. Decoding runs beside the model anyway.
    stream.codec_context.thread_count = 1
    # Without it, decoders paint over damage and say nothing.
    stream.codec_context.options = {"err_detect": "explode"}
    return stream


def _index_packets(container: Any, stream: Any) -> _PacketIndex:
    """Read all packets without decoding them."""
    shown: list[int] = []
    keys: list[int] = []
    count = hidden = 0
    is_exact = stream.codec_context.name in ONE_FRAME_PER_PACKET
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                hidden += packet.pts is not None
                continue
            count += 1
            if packet.pts is None:
                is_exact = False
                continue
            shown.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    except av.error.FFmpegError:
        pass  # decoding will meet it again, and tell
    pts = np.unique(np.asarray(shown, np.int64))
    if not is_exact or len(pts) != count:
        return _PacketIndex(np.zeros(0, np.int64), np.zeros(0, np.int64), count, hidden, False)
    return _PacketIndex(pts, np.searchsorted(pts, np.unique(np.asarray(keys, np.int64))), count, hidden, True)


def _claims(container: Any, stream: Any, index: _PacketIndex) -> tuple[float | None, int]:
    """What the headers say: the duration they give (None where they count frames), and the number of frames."""
    if stream.frames:
        return None, int(stream.frames) - index.hidden_count
    seconds: float | None = None
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif "DURATION" in stream.metadata:
        seconds = _clock(stream.metadata["DURATION"])
    elif container.duration is not None and len(container.streams) == 1:
        seconds = container.duration / av.time_base
    if seconds is None or not stream.average_rate:
        return None, index.frame_count
    return seconds, round(seconds * float(stream.average_rate))


def _clock(text: str) -> float | None:
    """Matroska's ``HH:MM:SS.fraction`` in seconds."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _decode(container: Any, stream: Any, index: _PacketIndex) -> Generator[Any, None, None]:
    """Yield decoded frames in presentation order.

    Raises:
        _DamageError: At the first damage after the first good frame; what lies before it has been yielded.
    """
    last: Any = None
    damaged_pts: int | None = None
    reason = ""
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                damaged_pts, reason = packet.pts, "the file ends in the middle of a frame"
                break
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                damaged_pts, reason = packet.pts, _reason(error)
                if last is None:
                    continue  # a recording may begin with frames whose references it lacks
                break
            for frame in frames:
                if frame.is_corrupt and last is None:
                    continue
                if frame.is_corrupt:
                    raise _DamageError("damaged data")
                yield frame
                last = frame
        else:
            if last is None and reason:
                raise _DamageError(reason)
            return
    except av.error.FFmpegError as error:
        damaged_pts, reason = None, _reason(error)
    # Good frames may still wait in the decoder for their turn; take those that are certain.
    previous = last.pts if last is not None else None
    for frame in _flush(stream):
        is_behind = damaged_pts is not None and frame.pts is not None and frame.pts >= damaged_pts
        if frame.is_corrupt or is_behind or not index.follows(previous, frame.pts):
            break
        yield frame
        previous = frame.pts
    raise _DamageError(reason)


def _flush(stream: Any) -> list[Any]:
    try:
        return list(stream.codec_context.decode(None))
    except av.error.FFmpegError:
        return []


def _to_rgb(frame: Any) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), turned upright as the container's display matrix says (quarter turns only)."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns))


def _reason(error: BaseException) -> str:
    """The error in one line, without path and function."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = str(text).splitlines()[0]
    return {"Invalid data found when processing input": "damaged data"}.get(line, line)
