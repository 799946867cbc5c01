from __future__ import annotations

import numpy as np
import pytest
import torch

from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.synthetic.renderer import NO_OWNER
from fiftyone_plugin.synthetic.sprites import load_sprites, opaque_fractions
from fiftyone_plugin.synthetic.vocabulary import class_named, sprite_classes
from fiftyone_plugin.synthetic.world import (
    SLOTS,
    SceneMix,
    World,
    class_indices,
    owner_boxes,
    owner_masks,
    sample_scenes,
)


def test_vocabulary_names_every_sprite_of_the_atlas_once() -> None:
    indices = [i for entry in sprite_classes() for i in entry.sprite_indices]
    assert indices == list(range(len(load_sprites())))
    names = [entry.name for entry in sprite_classes()]
    assert len(set(names)) == len(names) == 412


def test_class_named_finds_synonyms_and_names_the_stranger() -> None:
    assert class_named("lamb") == class_named("sheep")
    with pytest.raises(KeyError, match="'zeppelin'"):
        class_named("zeppelin")


def test_held_out_classes_are_in_no_training_scene() -> None:
    scenes = sample_scenes(np.random.default_rng(0), 200)
    assert not set(scenes.class_indices.ravel().tolist()) & set(class_indices(held_out=True).tolist())
    assert len(class_indices(held_out=True)) == 36


def test_sprites_are_mostly_neither_empty_nor_full() -> None:
    assert 0.1 < float(np.median(opaque_fractions())) < 0.9
    assert float(opaque_fractions().min()) > 0.02


def test_scenes_same_seed_are_equal() -> None:
    world = World(height_px=64, width_px=80)
    times = np.array([[0.0, 3.0], [10.0, 11.5]])
    first, second = (world.render(sample_scenes(np.random.default_rng(7), 2), times) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_images_lie_in_range_and_owners_are_active_slots() -> None:
    world = World(height_px=96, width_px=96)
    scenes = sample_scenes(np.random.default_rng(3), 4, mix=SceneMix(size_px=(20, 40)))
    images, owners = world.render(scenes, np.random.default_rng(3).uniform(0, 200, (4, 3)))
    assert images.shape == (4, 3, 3, 96, 96)
    assert images.min() >= 0
    assert images.max() <= 1
    for scene in range(4):
        seen = set(owners[scene].unique().tolist()) - {NO_OWNER}
        assert seen <= set(np.flatnonzero(scenes.is_active[scene]).tolist())


def test_group_members_share_class_and_picture() -> None:
    scenes = sample_scenes(np.random.default_rng(1), 50)
    for sprites, grouped in zip(scenes.looks.sprite_indices, scenes.is_grouped, strict=True):
        assert len(set(sprites[grouped].tolist())) == 1


def test_leaving_probability_of_one_makes_objects_leave() -> None:
    def outside_share(probability: float) -> float:
        mix = SceneMix(leaving_probability=probability)
        scenes = sample_scenes(np.random.default_rng(5), 40, mix=mix)
        poses = scenes.poses(np.tile(np.arange(0, 200, 5.0), (40, 1)), height_px=256, width_px=256)
        x = poses.centres_px[..., 0]
        return float(((x < -15) | (x > 271)).mean())

    assert outside_share(1.0) > 3 * outside_share(0.0)


def test_visible_area_never_exceeds_whole_area_by_much() -> None:
    world = World()
    scenes = sample_scenes(np.random.default_rng(11), 3)
    times = np.full((3, 1), 20.0)
    _, owners = world.render(scenes, times)
    visible = owner_masks(owners).flatten(-2).sum(-1).numpy()
    whole = world.whole_areas_px(scenes, times)
    # the edge of a scaled sprite may move by a pixel
    assert np.all(visible <= whole * 1.15 + 20)


def test_owner_boxes_are_tight_and_zero_for_the_unseen() -> None:
    owners = torch.full((10, 12), NO_OWNER, dtype=torch.uint8)
    owners[2:5, 3:9] = 4
    boxes = owner_boxes(owner_masks(owners))
    assert boxes.shape == (SLOTS, 4)
    assert boxes[4].tolist() == [3, 2, 9, 5]
    assert boxes[0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("setting", [{"same_class": (3, 2)}, {"objects": (0, 4)}, {"leaving_probability": 1.5}])
def test_scene_mix_out_of_range_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(setting))):
        SceneMix(**setting)  # type: ignore[arg-type]
