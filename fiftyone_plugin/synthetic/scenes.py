"""Scripted scenes for tests, benchmarks and the demo: every one a `SyntheticClip` with known identities.

Small scenes show one thing each (`crossing`, `hiding`, `leaving_and_returning`, `moving_camera`, `look_alikes`);
`flock` makes any number of different clips of graded difficulty. The same arguments give the same clip. Knows nothing
of trackers.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.synthetic.actors import Actor, Camera, Light, Look, Scene, Waypoint, positions, walk
from fiftyone_plugin.synthetic.clips import SyntheticClip

__all__ = [
    "FLOCK_LOOKS",
    "Actor",
    "Camera",
    "Light",
    "Look",
    "Scene",
    "SyntheticClip",
    "Waypoint",
    "crossing",
    "flock",
    "hiding",
    "leaving_and_returning",
    "look_alikes",
    "moving_camera",
    "walk",
]

WIDTH_PX, HEIGHT_PX = 320, 256

FLOCK_LOOKS = (
    Look(gain=1.02),
    Look(gain=0.8, mark_rgb=(0.85, 0.2, 0.2), mark_strength=1.0),
    Look(
        hue_deg=-8, mark_rgb=(0.15, 0.25, 0.8), mark_strength=1.0, mark_places=((-0.2, -0.1, 0.24), (0.4, 0.25, 0.15))
    ),
    Look(hue_deg=30, saturation=1.3, gain=0.9, mark_rgb=(0.95, 0.8, 0.15), mark_strength=1.0),
    Look(gain=0.62),
    Look(hue_deg=-30, gain=0.95, mark_rgb=(0.1, 0.1, 0.1), mark_strength=1.0),
    Look(gain=1.08, mark_rgb=(0.6, 0.15, 0.7), mark_strength=1.0, mark_places=((0.35, 0.2, 0.2), (-0.2, -0.2, 0.2))),
    Look(gain=0.85, mark_rgb=(0.1, 0.65, 0.65), mark_strength=1.0),
)
"""Looks that nobody mixes up."""

_EDGE_PX = 45.0
_ATTEMPTS = 50


def crossing(*, frames: int = 60, look_alike: float = 0.0) -> SyntheticClip:
    """Two sheep walk through each other's way; track 2 is nearer and covers track 1 for a moment."""
    looks = _looks(2, look_alike)
    speed = 200 / frames
    actors = (
        Actor(class_name="sheep", waypoints=walk((60, 140), (speed, 0), frames), look=looks[0], phase_rad=0.4),
        Actor(class_name="sheep", waypoints=walk((260, 150), (-speed, 0), frames), look=looks[1], phase_rad=2.1),
    )
    return SyntheticClip(Scene(name="crossing", actors=actors, frame_count=frames, seed=1))


def hiding(*, frames: int = 90, look_alike: float = 0.0) -> SyntheticClip:
    """Two sheep come from both sides, vanish behind a tree together and come out on the other side."""
    looks = _looks(2, look_alike)
    middle = frames // 2
    left = (Waypoint(0, 45, 126), Waypoint(middle - 5, 155, 126), Waypoint(middle + 5, 165, 126))
    right = (Waypoint(0, 275, 131), Waypoint(middle - 5, 165, 131), Waypoint(middle + 5, 155, 131))
    actors = (
        Actor(
            class_name="sheep", waypoints=(*left, Waypoint(frames, 275, 126)), size_px=44, look=looks[0], phase_rad=0.4
        ),
        Actor(
            class_name="sheep", waypoints=(*right, Waypoint(frames, 45, 131)), size_px=44, look=looks[1], phase_rad=2.1
        ),
        _tree(160, 138, size_px=120),
    )
    return SyntheticClip(Scene(name="hiding", actors=actors, frame_count=frames, seed=2))


def leaving_and_returning(*, frames: int = 90, look_alike: float = 0.0) -> SyntheticClip:
    """One sheep leaves to the right and returns lower down; another one stays, and leaves when the first is back."""
    looks = _looks(2, look_alike)
    out, back, again = frames * 3 // 10, frames * 5 // 10, frames * 7 // 10
    first = (
        Waypoint(0, 220, 110),
        Waypoint(out, WIDTH_PX + _EDGE_PX, 110),
        Waypoint(back, WIDTH_PX + _EDGE_PX, 185),
        Waypoint(frames, 190, 185),
    )
    second = (Waypoint(0, 80, 140), Waypoint(again, 70, 140), Waypoint(frames, -_EDGE_PX, 140))
    actors = (
        Actor(class_name="sheep", waypoints=first, look=looks[0], phase_rad=0.4),
        Actor(class_name="sheep", waypoints=second, look=looks[1], phase_rad=2.1),
    )
    return SyntheticClip(Scene(name="leaving-and-returning", actors=actors, frame_count=frames, seed=3))


def moving_camera(*, frames: int = 60, look_alike: float = 0.0) -> SyntheticClip:
    """`crossing`, filmed by a hand that pans to the right and back and shakes."""
    scene = crossing(frames=frames, look_alike=look_alike).scene
    pan = (Waypoint(0, -25, 0), Waypoint(frames // 2, 30, 8), Waypoint(frames, -25, -6))
    return SyntheticClip(replace(scene, name="moving-camera", camera=Camera(waypoints=pan, shake_px=2.0), seed=4))


def look_alikes(level: float, *, frames: int = 90) -> SyntheticClip:
    """Three sheep whose ways all cross, from clearly different (`level` 0) to indistinguishable (1)."""
    looks = _looks(3, level)
    speed = 210 / frames
    actors = (
        Actor(class_name="sheep", waypoints=walk((55, 120), (speed, 0.5), frames), look=looks[0], phase_rad=0.4),
        Actor(class_name="sheep", waypoints=walk((265, 150), (-speed, 0), frames), look=looks[1], phase_rad=2.1),
        Actor(
            class_name="sheep",
            waypoints=walk((110, 185), (speed * 0.45, -0.7), frames),
            look=looks[2],
            phase_rad=4.0,
        ),
    )
    return SyntheticClip(Scene(name=f"look-alikes-{level:g}", actors=actors, frame_count=frames, seed=5))


def flock(
    seed: int,
    *,
    sheep: int = 4,
    dogs: int = 1,
    frames: int = 120,
    look_alike: float = 0.3,
    absence: float = 0.5,
    camera: float = 0.0,
    light: float = 0.0,
    pose: float = 0.0,
    tree: bool = True,
    size_px: float | None = None,
) -> SyntheticClip:
    """A random flock: same-class animals cross, pass behind a tree, leave and return.

    Every clip of 100 frames and more with three or more sheep has at least two pairs of sheep that meet.

    On frame 0 everybody is inside the frame and, as long as there is room (up to six animals), in plain view.

    Args:
        seed: Any other number is another clip.
        sheep: Number of sheep, 1 or more.
        dogs: Number of dogs.
        frames: Length; animals keep walking to and fro as long as it lasts.
        look_alike: 0 clearly different sheep, 1 indistinguishable ones.
        absence: Probability in [0, 1] that an animal which comes to the edge leaves and returns instead of turning
            round; that part of the sheep leaves at the beginning, so that it returns within 120 frames.
        camera: 0 stands still; 1 pans by 60 pixels to and fro and shakes.
        light: 0 steady; 1 brightness, colour and a wandering shadow change so much that colours do not last (the
            bundled detector then misses every other animal; at 0.5 it hardly does).
        pose: 0 rigid; 1 animals turn back, stretch and show different marks on their two sides.
        tree: Whether there is something to hide behind.
        size_px: Size of a sheep; by default 52, less for more than six animals.

    Raises:
        OptionError: A setting is outside its range.
    """
    _check_flock(sheep=sheep, dogs=dogs, look_alike=look_alike, absence=absence, camera=camera, light=light, pose=pose)
    size = size_px if size_px is not None else 52.0 * min(1.0, float(np.sqrt(6 / (sheep + dogs))))
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng((seed, attempt))
        actors = _animals(rng, sheep, dogs, frames, size_px=size, look_alike=look_alike, absence=absence, pose=pose)
        if _meetings(actors[:sheep], frames, reach_px=0.6 * size) >= min(sheep - 1, 2):
            break
    if tree:
        actors.append(_tree_apart(rng, actors, size_px=1.7 * size))
    return SyntheticClip(
        Scene(
            name=f"flock-{seed}",
            actors=tuple(actors),
            frame_count=frames,
            camera=_pan(camera, frames, rng),
            light=Light(drift=light, shadow=light, period_frames=float(rng.uniform(60, 110))),
            seed=seed,
        )
    )


def _animals(
    rng: np.random.Generator,
    sheep: int,
    dogs: int,
    frames: int,
    *,
    size_px: float,
    look_alike: float,
    absence: float,
    pose: float,
) -> list[Actor]:
    """The animals of a flock, sheep first."""
    animals = sheep + dogs
    looks = _looks(sheep, look_alike, rng)
    leavers = int(np.ceil(absence * sheep))
    # two lanes for a small flock, so near that animals on different lanes touch too
    lane_count = max(2, -(-animals // 4))
    height = float(rng.uniform(42, 60)) if lane_count == 2 else min(34.0 * (lane_count - 1), 115.0)
    lanes = np.linspace(0, height, lane_count) + rng.uniform(95, 220 - max(height, 60))
    actors = []
    for number, (x, lane) in enumerate(_places(animals, lanes, rng)):
        is_sheep = number < sheep
        # all paces differ, so that nobody walks beside another for long
        pace_px = 2.2 + 2.4 * (number * 0.618 % 1)
        waypoints = _wander(
            rng, x, lane, lanes, frames, pace_px=pace_px, leaves_first=number < leavers, absence=absence
        )
        actors.append(
            Actor(
                class_name="sheep" if is_sheep else "dog",
                waypoints=waypoints,
                size_px=size_px * float(rng.uniform(0.93, 1.07)) * (1.0 if is_sheep else 0.95),
                look=looks[number] if is_sheep else Look(gain=float(rng.uniform(0.9, 1.05))),
                layer=int(rng.integers(0, 3)),
                pose_change=pose,
                phase_rad=float(rng.uniform(0, 2 * np.pi)),
            )
        )
    return actors


def _meetings(actors: list[Actor], frames: int, *, reach_px: float) -> int:
    """Pairs of animals that come so near to each other inside the frame."""
    index = np.arange(frames)
    centres = [positions(actor.waypoints, index) for actor in actors]
    inside = [(c[:, 0] > 10) & (c[:, 0] < WIDTH_PX - 10) for c in centres]
    return sum(
        bool(np.any((np.hypot(*(centres[a] - centres[b]).T) < reach_px) & inside[a] & inside[b]))
        for a, b in combinations(range(len(actors)), 2)
    )


def _tree_apart(rng: np.random.Generator, actors: list[Actor], *, size_px: float) -> Actor:
    """A tree on somebody's lane, as far from where everybody begins as it can be."""
    begins = [(actor.waypoints[0].x_px, actor.waypoints[0].y_px) for actor in actors]
    spots = [(x, y) for x in rng.uniform(80, WIDTH_PX - 80, 8) for _, y in begins]
    x, y = max(spots, key=lambda spot: min(np.hypot(spot[0] - a, spot[1] - b) for a, b in begins))
    return _tree(float(x), float(y) - 12, size_px=size_px)


def _check_flock(*, sheep: int, dogs: int, **levels: float) -> None:
    if sheep < 1 or dogs < 0 or sheep + dogs > 64:
        raise OptionError(f"sheep = {sheep}, dogs = {dogs}: must be 1 or more sheep and at most 64 animals")
    for name, value in levels.items():
        if not 0 <= value <= 1:
            raise OptionError(f"{name} = {value}: must lie in [0, 1]")


def _looks(count: int, look_alike: float, rng: np.random.Generator | None = None) -> list[Look]:
    """So many looks, alike to the degree `look_alike`."""
    if not 0 <= look_alike <= 1:
        raise OptionError(f"look_alike = {look_alike}: must lie in [0, 1]")
    order = np.arange(len(FLOCK_LOOKS)) if rng is None else rng.permutation(len(FLOCK_LOOKS))
    looks = [FLOCK_LOOKS[i] for i in order[:count]]
    while len(looks) < count and rng is not None:
        looks.append(
            Look(
                hue_deg=float(rng.uniform(-40, 40)),
                gain=float(rng.uniform(0.65, 1.1)),
                mark_rgb=(float(rng.random()), float(rng.random()), float(rng.random())),
                mark_strength=1.0,
                mark_places=tuple(
                    (float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.3, 0.4)), float(r)) for r in (0.25, 0.16)
                ),
            )
        )
    return [look.blended(Look(), look_alike) for look in looks]


def _tree(x_px: float, y_px: float, *, size_px: float) -> Actor:
    return Actor(class_name="tree", waypoints=(Waypoint(0, x_px, y_px),), size_px=size_px, layer=10, is_scenery=True)


def _places(count: int, lanes: np.ndarray, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Starting points (x, lane), filled lane by lane from the outer sides to the middle, in random order of lanes."""
    per_lane = -(-count // len(lanes))
    columns = np.linspace(60, WIDTH_PX - 60, per_lane)
    spots = [(float(x + rng.uniform(-8, 8)), float(lane)) for x in columns for lane in lanes]
    chosen = spots[:count]
    rng.shuffle(chosen)
    # those who leave first are the first ones: they begin near an edge, the others near the middle
    return sorted(chosen, key=lambda spot: -abs(spot[0] - WIDTH_PX / 2))


def _wander(
    rng: np.random.Generator,
    x: float,
    lane: float,
    lanes: np.ndarray,
    frames: int,
    *,
    pace_px: float,
    leaves_first: bool,
    absence: float,
) -> tuple[Waypoint, ...]:
    """To and fro between the edges until the clip is over, with some turns taken outside the frame."""
    outward = 1.0 if x > WIDTH_PX / 2 else -1.0
    direction = outward if leaves_first else -outward
    frame, waypoints = 0, [Waypoint(0, x, lane + float(rng.uniform(-7, 7)))]
    leaves = leaves_first
    while frame < frames:
        speed = pace_px * float(rng.uniform(0.9, 1.15))
        is_right = direction > 0
        inset = -_EDGE_PX if leaves else float(rng.uniform(35, 60))
        target = WIDTH_PX - inset if is_right else inset
        frame += max(2, round(abs(target - x) / speed))
        x, y = target, waypoints[-1].y_px + float(rng.uniform(-10, 10))
        waypoints.append(Waypoint(frame, x, y))
        if leaves:
            # come back after a while, often on another lane, sometimes from the other side
            frame += int(rng.integers(6, 20))
            waypoints.append(Waypoint(frame, x, y))
            if rng.random() < 0.3:
                x, is_right = WIDTH_PX - x, not is_right
            frame += 1
            y = float(rng.choice(lanes)) + float(rng.uniform(-7, 7))
            waypoints.append(Waypoint(frame, x, y))
        elif rng.random() < 0.5:
            y = float(rng.choice(lanes)) + float(rng.uniform(-7, 7))
            frame += max(4, round(abs(y - waypoints[-1].y_px) / 2.5))
            waypoints.append(Waypoint(frame, x + (-8 if is_right else 8), y))
            x = waypoints[-1].x_px
        direction = -1.0 if is_right else 1.0
        leaves = bool(rng.random() < absence)
    return tuple(waypoints)


def _pan(level: float, frames: int, rng: np.random.Generator) -> Camera:
    if level == 0:
        return Camera()
    period = int(rng.integers(50, 90))
    side = float(rng.choice([-1.0, 1.0])) * 30 * level
    points = [Waypoint(0, 0, 0)]
    for turn in range(1, frames // period + 2):
        points.append(Waypoint(turn * period, side * (1 if turn % 2 else -1), float(rng.uniform(-8, 8)) * level))
    return Camera(waypoints=tuple(points), shake_px=2.0 * level)
