"""Synthetic clips of graded difficulty for the identity benchmark, walked through once and kept.

A condition is a way to draw flocks. For every clip the expensive part is done once per set of weights: plain
propagation, the walk that repair starts from, the walks of the methods that act while masks are propagated, and views.
What identity is settled from is what `pipeline.track` itself hands over (`pipeline.settle.Evidence`). Knows nothing of
scores.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache as cache_calls
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from fiftyone_plugin import pipeline
from fiftyone_plugin.benchmarks import identity_store as store
from fiftyone_plugin.benchmarks.identity_cases import Answer, Case
from fiftyone_plugin.benchmarks.identity_views import ViewTable
from fiftyone_plugin.benchmarks.identity_walks import rematching_walk, sam2mot_walk
from fiftyone_plugin.config import IdentityOptions, TrackingOptions
from fiftyone_plugin.detectors.prompt import parse_prompt
from fiftyone_plugin.detectors.prompted import PromptedDetector
from fiftyone_plugin.interfaces import FrameSource, Propagator
from fiftyone_plugin.pipeline.mend import mend
from fiftyone_plugin.pipeline.settle import Evidence, settle
from fiftyone_plugin.synthetic.actors import Actor
from fiftyone_plugin.synthetic.scenes import WIDTH_PX, SyntheticClip, flock
from fiftyone_plugin.types import Track

__all__ = ["CONDITIONS", "ONLINE", "Condition", "Walked", "walk_clip"]

PROMPT = "sheep. dog."

OnlineWalk = Callable[[FrameSource, PromptedDetector, Propagator], tuple[Track, ...]]

ONLINE: Mapping[str, tuple[str, OnlineWalk]] = {
    "IoU re-matching": ("rematch", rematching_walk),
    "SAM2MOT gates": ("sam2mot", sam2mot_walk),
}
"""Methods that act while masks are propagated, by name: name of the kept file, and the walk."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A way to draw clips."""

    about: str
    scene: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `synthetic.scenes.flock`."""
    away_frames: int = 0
    """So much longer is every absence, and the clip."""
    tree_scale: float = 1.0
    """So much larger is what animals pass behind."""
    is_distinguishable: bool = True
    """Whether the animals can be told apart by their looks."""

    def clip(self, seed: int, frames: int) -> SyntheticClip:
        """Draw one."""
        scene = flock(seed, frames=frames + self.away_frames, **self.scene).scene
        actors = tuple(
            replace(a, size_px=a.size_px * self.tree_scale) if a.is_scenery else _stays_away(a, self.away_frames)
            for a in scene.actors
        )
        return SyntheticClip(replace(scene, actors=actors))


CONDITIONS: Mapping[str, Condition] = {
    "crossings": Condition("nobody leaves, nothing to hide behind", {"absence": 0.0, "tree": False}),
    "distinct": Condition("every sheep looks different", {"look_alike": 0.0}),
    "usual": Condition("four sheep and a dog, a tree, some leave and return"),
    "alike": Condition("sheep that are hard to tell apart", {"look_alike": 0.7}),
    "identical": Condition("sheep that nobody can tell apart", {"look_alike": 1.0}, is_distinguishable=False),
    "light": Condition("changing light and a wandering shadow", {"light": 0.5}),
    "light+pose": Condition("changing light, turning animals with two different sides", {"light": 0.5, "pose": 0.7}),
    "camera": Condition("a panning, shaking camera", {"camera": 1.0}),
    "long hiding": Condition("a tree of twice the size", tree_scale=2.0),
    "long absence": Condition("absences of 30 frames and more", {"absence": 0.7}, away_frames=30),
    "crowd": Condition("eight sheep and a dog", {"sheep": 8}),
}
"""By name, from easy to hard within each kind."""


def _stays_away(actor: Actor, frames: int) -> Actor:
    """The same animal, but whenever it is outside the frame it stays there for so many frames more."""
    if not frames:
        return actor
    late = 0
    was_away = False
    points = [actor.waypoints[0]]
    for before, point in pairwise(actor.waypoints):
        is_away = all(p.x_px < 0 or p.x_px > WIDTH_PX for p in (before, point))
        late += frames if is_away and not was_away else 0
        was_away = is_away
        points.append(replace(point, frame=point.frame + late))
    return replace(actor, waypoints=tuple(points))


@dataclass(frozen=True, slots=True)
class Walked:
    """A clip and all that is needed to measure identity on it."""

    case: Case
    online: Mapping[str, tuple[Track, ...]]
    """Results of the methods that act while masks are propagated, by name."""
    true_case: Case
    """The true tracks as if they came from another tool: nothing is to be repaired."""
    is_stale: bool
    """The code of the walk has changed since."""
    clip: SyntheticClip
    options: TrackingOptions

    def finished(self) -> Answer:
        """All that `pipeline.track` makes of the evidence: identities, and gaps filled.

        Nothing of it is kept, since it depends on the identities.
        """
        models = pipeline.Backends.load(self.options)
        evidence = self.case.evidence
        settled = settle(evidence, self.options.identity)
        settled, _ = mend(self.clip.source, models.propagator, models.embedder, settled, evidence.galleries)
        return Answer(settled.tracks, settled.resolution.repairs, settled.resolution.decisions, settled.carried)


def walk_clip(
    name: str,
    seed: int,
    *,
    frames: int,
    embedder_name: str,
    cache: Path,
    online: Sequence[str] = tuple(ONLINE),
    is_refreshed: bool = False,
) -> Walked:
    """Walk through one clip, or read what was kept of it.

    Args:
        name: Of `CONDITIONS`.
        seed: Draws the clip.
        frames: Length.
        embedder_name: Of `registry.make_embedder`.
        cache: Folder.
        online: Which of `ONLINE` are wanted.
        is_refreshed: Walk again even if there is a file.
    """
    clip = CONDITIONS[name].clip(seed, frames)
    options = TrackingOptions(models=replace(TrackingOptions().models, embedder=embedder_name))
    label = f"{name.replace(' ', '-')}-{seed}-{frames}"
    shared = {
        "scene": hashlib.sha256(repr(clip.scene).encode()).hexdigest(),
        "prompt": PROMPT,
        "weights": store.weights_fingerprint(("grounding_dino", "sam2", "reid")),
    }
    walk_settings = _walk_settings(options)
    of_repair = {**shared, "options": walk_settings}
    of_others = {**shared, "options": {k: v for k, v in walk_settings.items() if k != "evidence"}}
    stale: list[bool] = []

    def kept(part: str, settings: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        path = cache / f"{label}-{part}-{store.fingerprint(settings)}.safetensors"
        found = None if is_refreshed else store.load(path)
        if found is None:
            began = time.perf_counter()
            found = {"value": make(), "code": _code_fingerprint()}
            store.save(path, found)
            print(f"{label}: {part} in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        stale.append(found["code"] != _code_fingerprint())
        return found["value"]

    def plain() -> tuple[Track, ...]:
        without = replace(options, identity=replace(options.identity, repair=False))
        return pipeline.track(clip.source, PROMPT, without).tracks

    def carried(walk: OnlineWalk) -> tuple[Track, ...]:
        models = pipeline.Backends.load(options)
        detector = PromptedDetector(models.detector, parse_prompt(PROMPT), options.detection)
        return walk(clip.source, detector, models.propagator)

    truth = kept("truth", shared, clip.ground_truth)
    propagated = kept("plain", of_others, plain)
    evidence = kept("evidence", of_repair, lambda: _evidence(clip, options))
    results = {
        name: kept(part, of_others, partial(carried, walk)) for name, (part, walk) in ONLINE.items() if name in online
    }
    is_walk_stale = any(stale[1:])
    views = ViewTable.make(label, clip.source, [truth, propagated], embedder_name, cache)
    case = Case(f"{name} {seed}", name, truth, evidence, propagated, views.all_views(propagated))
    true_case = Case(f"{name} {seed}", name, truth, Evidence(truth, views.galleries(truth), {}, views.camera))
    return Walked(case, results, true_case, is_walk_stale, clip, options)


def _evidence(clip: SyntheticClip, options: TrackingOptions) -> Evidence:
    seen: list[Evidence] = []
    pipeline.track(clip.source, PROMPT, options, on_evidence=seen.append)
    return seen[0] if seen else Evidence((), {}, {})


def _walk_settings(options: TrackingOptions) -> dict[str, Any]:
    """The options that a walk depends on; how identity is settled afterwards is none of them."""
    plain = replace(options, identity=IdentityOptions()).as_dict()
    return {k: v for k, v in plain.items() if k not in ("identity", "device")}


@cache_calls
def _code_fingerprint() -> str:
    """Of the modules that a walk runs through."""
    folder = Path(pipeline.__file__).parent
    names = ("associate", "backfill", "camera", "follow", "recorder", "views", "walk")
    return hashlib.sha256(b"".join((folder / f"{n}.py").read_bytes() for n in names)).hexdigest()[:16]
