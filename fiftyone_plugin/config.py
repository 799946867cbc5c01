"""Settings: one small frozen group per stage, with units and ranges, checked where they are made.

Knows nothing of models or files. `TrackingOptions` bundles the groups; presets name the models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from fiftyone_plugin.errors import BackendError, OptionError

__all__ = [
    "PRESETS",
    "SPEED_PRESETS",
    "AssociationOptions",
    "DetectionOptions",
    "EvidenceOptions",
    "IdentityOptions",
    "ModelChoice",
    "PropagationOptions",
    "TrackingOptions",
    "check_counts",
    "parse_counts",
    "preset",
    "speed_preset",
]


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise OptionError(f"{name} = {value}: must lie in [{low}, {high}]")


def _check_at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise OptionError(f"{name} = {value}: must be {low} or more")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which backends a run uses, each as ``NAME`` or ``NAME:VARIANT`` (see `registry`)."""

    detector: str = "grounding-dino:bundled"
    propagator: str = "sam2:bundled"
    embedder: str = "colour+reid:bundled"


PRESETS: Mapping[str, ModelChoice] = {
    "bundled": ModelChoice(),
    "fast": ModelChoice("grounding-dino:tiny", "sam2:tiny", "dinov2:small"),
    "accurate": ModelChoice("grounding-dino:base", "sam2:large", "dinov2:base"),
}
"""`bundled` knows only the procedural world it was trained in; the others are downloaded from the hub once."""


def preset(name: str) -> ModelChoice:
    """The models of a preset.

    Raises:
        BackendError: No preset of that name.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise BackendError(f"models = {name!r}: must be one of {', '.join(PRESETS)}") from None


@dataclass(frozen=True, slots=True)
class DetectionOptions:
    """How detections are taken from a detector's answers."""

    box_threshold: float = 0.3
    """Smallest score of a detection, in [0, 1]."""
    text_threshold: float = 0.25
    """Smallest score of the phrase a detection is given, in [0, 1]."""
    max_nms_iou: float = 0.5
    """Of two detections of one phrase that overlap more than this, the lower one goes; in [0, 1]."""
    batch_frames: int = 4
    """Frames a detector sees at once."""

    def __post_init__(self) -> None:
        _check_range("box_threshold", self.box_threshold, 0.0, 1.0)
        _check_range("text_threshold", self.text_threshold, 0.0, 1.0)
        _check_range("max_nms_iou", self.max_nms_iou, 0.0, 1.0)
        _check_at_least("batch_frames", self.batch_frames, 1)


@dataclass(frozen=True, slots=True)
class AssociationOptions:
    """When the detector looks again, and what becomes of what it sees."""

    redetect_every_frames: int = 16
    """Frames between two looks; 0 looks at the first frame only."""
    min_match_iou: float = 0.5
    """Smallest box IoU of a detection and the track that explains it, in [0, 1]."""
    min_untracked_fraction: float = 0.5
    """Smallest part of a seed's mask that no track covers, in [0, 1] (SAM2MOT, arXiv 2504.04519, section 3.2)."""
    confirm_within_frames: int = 4
    """A new object must be seen again by the detector so many frames later, or it is not started; 0 trusts one look."""
    release_after_frames: int = 240
    """A track that was absent for so long is no longer propagated; its gallery still recognises it. 0 never lets go.
    Without repair nothing is let go."""
    max_tracks: int = 64
    """Live tracks at once; more detections are left out, with a warning."""

    def __post_init__(self) -> None:
        _check_at_least("redetect_every_frames", self.redetect_every_frames, 0)
        _check_range("min_match_iou", self.min_match_iou, 0.0, 1.0)
        _check_range("min_untracked_fraction", self.min_untracked_fraction, 0.0, 1.0)
        _check_at_least("confirm_within_frames", self.confirm_within_frames, 0)
        _check_at_least("release_after_frames", self.release_after_frames, 0)
        _check_at_least("max_tracks", self.max_tracks, 1)


@dataclass(frozen=True, slots=True)
class PropagationOptions:
    """How masks are carried: what speed is bought with. Measured effects of each: `docs/engine.md`."""

    image_scale: float = 1.0
    """Side of the square image that the model sees, relative to what it was trained with, in [0.25, 2]."""
    frame_stride: int = 1
    """Objects are carried to every n-th frame only; masks between are interpolated."""
    memory_frames: int | None = None
    """Latest frames whose maps a track looks back at, besides its seeds, 1 or more; None is all the model knows (6)."""
    max_memory_overlap: float = 1.0
    """A frame in which other boxes cover more than this part of an object's box does not enter its memory, in [0, 1]; 1
    remembers all, as SAM 2 does. No setting helped on drawn flocks: `docs/benchmark-identity.md`."""
    objects_per_batch: int = 16
    """Objects that go through the networks at once; more are run in groups. Halved when the GPU's memory is full."""
    encode_batch_frames: int = 8
    """Frames that a GPU encodes at once, ahead of their use."""
    graphs: bool = True
    """Record the work of a GPU as CUDA graphs."""
    kernels: bool = True
    """Use own Triton kernels for the memory attention, where a GPU can run them."""

    def __post_init__(self) -> None:
        _check_range("image_scale", self.image_scale, 0.25, 2.0)
        _check_at_least("frame_stride", self.frame_stride, 1)
        if self.memory_frames is not None:
            _check_at_least("memory_frames", self.memory_frames, 1)
        _check_range("max_memory_overlap", self.max_memory_overlap, 0.0, 1.0)
        _check_at_least("objects_per_batch", self.objects_per_batch, 1)
        _check_at_least("encode_batch_frames", self.encode_batch_frames, 1)


SPEED_PRESETS: Mapping[str, PropagationOptions] = {
    "speed": PropagationOptions(image_scale=0.75, frame_stride=2, memory_frames=3),
    "balanced": PropagationOptions(memory_frames=3),
    "quality": PropagationOptions(),
}
"""What to give up for speed; `quality` is SAM 2 as it is published. Measured in `docs/engine.md`."""


def speed_preset(name: str) -> PropagationOptions:
    """The propagation settings of a preset.

    Raises:
        OptionError: No preset of that name.
    """
    try:
        return SPEED_PRESETS[name]
    except KeyError:
        raise OptionError(f"preset = {name!r}: must be one of {', '.join(SPEED_PRESETS)}") from None


@dataclass(frozen=True, slots=True)
class EvidenceOptions:
    """Which crops say who somebody is.

    Masks that the propagator scored count by how clean they are, however poor. Of masks that nobody scored, or boxes,
    only clean ones count: those are what the limits on overlap, border and area ratio are for.
    """

    min_object_score: float = 0.0
    """Smallest object score, a logit."""
    max_overlap: float = 0.05
    """Unscored masks: largest part that other tracks cover, in [0, 1]; see `embedders.evidence.coverage`."""
    border_px: int = 2
    """Unscored masks: a box nearer to the frame's border than this is cut off by it."""
    min_area_px: int = 64
    """Smallest mask area."""
    min_area_ratio: float = 0.6
    """Unscored masks: smallest area relative to the usual one, in [0, 1]; upside down, it limits growth."""
    every_frames: int = 1
    """A crop is taken from every n-th frame."""

    def __post_init__(self) -> None:
        _check_range("max_overlap", self.max_overlap, 0.0, 1.0)
        _check_at_least("border_px", self.border_px, 0)
        _check_at_least("min_area_px", self.min_area_px, 1)
        _check_range("min_area_ratio", self.min_area_ratio, 0.0, 1.0)
        _check_at_least("every_frames", self.every_frames, 1)


@dataclass(frozen=True, slots=True)
class IdentityOptions:
    """When identities are repaired."""

    repair: bool = True
    """False: propagation as it is, byte for byte."""
    min_margin: float = 0.5
    """Smallest log-odds (nats) that decide an encounter; below it the encounter is left to a person."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Known number of objects by phrase ("there are exactly 3 sheep"); decides between links that are in doubt."""
    mend_masks: bool = False
    """Fill gaps in tracks, once identities are settled: objects are propagated into them anew, from both sides."""

    def __post_init__(self) -> None:
        _check_range("min_margin", self.min_margin, 0.0, 1e6)
        for phrase, count in self.counts.items():
            _check_at_least(f"count of {phrase!r}", count, 1)


def parse_counts(text: str, *, name: str = "counts") -> dict[str, int]:
    """Known numbers of objects by class, from what a person wrote, such as ``sheep=3, dog=1``.

    Args:
        text: Parts separated by commas; empty for none.
        name: What the error calls it.

    Raises:
        OptionError: A part is not CLASS=N.
    """
    counts: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        phrase, _, number = map(str.strip, part.rpartition("="))
        if not phrase or not number.isdecimal() or int(number) < 1:
            raise OptionError(f"{name} {part!r}: must be CLASS=N with N 1 or more, for example sheep=3")
        counts[" ".join(phrase.lower().split())] = int(number)
    return counts


def check_counts(counts: Mapping[str, int], phrases: Sequence[str]) -> None:
    """Make sure that numbers are known of classes that are looked for only.

    Raises:
        OptionError: There is one of another class.
    """
    for phrase in counts:
        if phrase not in phrases:
            raise OptionError(f"count of {phrase!r}: must be of one of the classes {', '.join(phrases)}")


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """Everything a run can be told, besides the source and the prompt."""

    models: ModelChoice = field(default_factory=ModelChoice)
    detection: DetectionOptions = field(default_factory=DetectionOptions)
    association: AssociationOptions = field(default_factory=AssociationOptions)
    propagation: PropagationOptions = field(default_factory=PropagationOptions)
    evidence: EvidenceOptions = field(default_factory=EvidenceOptions)
    identity: IdentityOptions = field(default_factory=IdentityOptions)
    start: int = 0
    """0-based first frame."""
    stop: int | None = None
    """Frame after the last; None is the end of the video."""
    device: str = "auto"
    """``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return _plain(self)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value
