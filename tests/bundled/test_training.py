from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fiftyone_plugin.bundled.training import (
    evaluate_detector,
    evaluate_embedder,
    evaluate_propagator,
    make_atlas,
    train_detector,
    train_embedder,
    train_propagator,
)
from fiftyone_plugin.bundled.training.detector_model import build_detector, build_processor
from fiftyone_plugin.bundled.training.detector_prompts import (
    CLASS_TOKEN,
    END_TOKEN,
    PERIOD_TOKEN,
    Prompter,
    build_vocabulary,
    phrase_table,
    plural,
)
from fiftyone_plugin.bundled.training.propagator_model import build_propagator
from fiftyone_plugin.bundled.training.training_loop import Trainer, TrainingSettings
from fiftyone_plugin.embedders.reid_network import ReidNetwork
from fiftyone_plugin.errors import InputError, OptionError
from fiftyone_plugin.synthetic.sprites import load_sprites
from fiftyone_plugin.synthetic.vocabulary import sprite_classes
from fiftyone_plugin.synthetic.world import World, sample_scenes
from fiftyone_plugin.weights import BUNDLED_DIRECTORY

Main = Callable[[Sequence[str] | None], int]


@pytest.mark.parametrize(
    ("main", "folder"),
    [
        pytest.param(train_embedder.main, "reid", id="embedder"),
        pytest.param(train_propagator.main, "sam2", id="propagator", marks=pytest.mark.slow),
        pytest.param(train_detector.main, "grounding_dino", id="detector", marks=pytest.mark.slow),
    ],
)
def test_smoke_training_writes_weights_of_the_bundled_layout(main: Main, folder: str, tmp_path: Path) -> None:
    assert main(["--smoke", "--output", str(tmp_path / folder)]) == 0
    written = load_file(tmp_path / folder / "model.safetensors")
    bundled = load_file(BUNDLED_DIRECTORY / folder / "model.safetensors")
    assert {n: (v.shape, v.dtype) for n, v in written.items()} == {n: (v.shape, v.dtype) for n, v in bundled.items()}
    assert all(torch.isfinite(v).all() for v in written.values() if v.is_floating_point())
    for name in ("config.yaml", "tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        file = BUNDLED_DIRECTORY / folder / name
        if file.exists():
            assert (tmp_path / folder / name).exists()


def short_run(tmp_path: Path, **changes: object) -> TrainingSettings:
    values: dict[str, object] = {
        "steps": 10,
        "batch": 1,
        "learning_rate": 0.1,
        "warm_up_steps": 1,
        "constant_part": 0.5,
        "output": tmp_path,
        "device": "cpu",
    }
    return TrainingSettings(**{**values, **changes})  # type: ignore[arg-type]


def test_learning_rate_rises_stays_and_falls(tmp_path: Path) -> None:
    plan = short_run(tmp_path, steps=100, warm_up_steps=10)
    rates = [plan.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[10:50] == [0.1] * 40
    assert all(b < a for a, b in pairwise(rates[50:]))
    assert 0.002 <= rates[-1] < 0.003


def test_learning_rate_falls_with_the_clock_when_time_is_short(tmp_path: Path) -> None:
    plan = TrainingSettings(
        steps=1000, batch=1, learning_rate=1.0, warm_up_steps=1, constant_part=0.0, output=tmp_path, minutes=1
    )
    assert plan.done_at(10, 0.0) == 0.01
    assert plan.done_at(10, 30.0) == 0.5
    assert plan.done_at(10, 90.0) == 1.0
    assert plan.learning_rate_at(10, seconds=30.0) == pytest.approx(0.51)
    with pytest.raises(OptionError, match="--minutes -1"):
        TrainingSettings(
            steps=1, batch=1, learning_rate=1.0, warm_up_steps=1, constant_part=0.0, output=tmp_path, minutes=-1
        )


@pytest.mark.parametrize(
    ("main", "folder"),
    [
        pytest.param(train_embedder.main, "reid", id="embedder"),
        pytest.param(train_propagator.main, "sam2", id="propagator", marks=pytest.mark.slow),
        pytest.param(train_detector.main, "grounding_dino", id="detector", marks=pytest.mark.slow),
    ],
)
def test_training_goes_on_from_given_weights(main: Main, folder: str, tmp_path: Path) -> None:
    start = BUNDLED_DIRECTORY / folder
    assert main(["--smoke", "--weights", str(start), "--output", str(tmp_path / folder)]) == 0
    # two steps of warm-up move an average of .999 by next to nothing
    written, bundled = load_file(tmp_path / folder / "model.safetensors"), load_file(start / "model.safetensors")
    assert all(torch.allclose(v.float(), bundled[n].float(), atol=1e-3) for n, v in written.items())
    with pytest.raises(OptionError, match="--weights"):
        main(["--smoke", "--weights", str(tmp_path / "nowhere"), "--output", str(tmp_path / "other")])


def test_no_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--steps 0"):
        short_run(tmp_path, steps=0)


def fit(trainer: Trainer, model: torch.nn.Linear, until: int) -> None:
    while trainer.step < until:
        trainer.update((model(torch.ones(1, 2)) - 3).square().sum(), {})


def test_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    def begin(name: str) -> tuple[Trainer, torch.nn.Linear]:
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        plan = short_run(tmp_path, state=tmp_path / name)
        return Trainer(model, plan, weight_decay=0.1, is_exempt=lambda n, p: p.ndim < 2), model

    whole, model = begin("whole")
    fit(whole, model, 10)
    broken, model = begin("broken")
    fit(broken, model, 4)
    broken.save_state(tmp_path / "broken")
    resumed, model = begin("broken")
    assert resumed.step == 4
    fit(resumed, model, 10)
    for name, value in whole.averaged_weights.items():
        torch.testing.assert_close(resumed.averaged_weights[name], value, rtol=0, atol=0)


def test_step_with_infinite_gradient_changes_nothing(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    trainer = Trainer(model, short_run(tmp_path), weight_decay=0.0, is_exempt=lambda n, p: True)
    before = model.weight.detach().clone()
    trainer.update(model(torch.full((1, 1), torch.inf)).sum() * 0, {})
    assert torch.equal(model.weight, before)


# --- the losses: what was trained with them is far better than chance


def test_bundled_embedder_has_a_low_contrastive_loss() -> None:
    torch.manual_seed(0)
    windows, identities = train_embedder.draw_crops(World(), np.random.default_rng(4), 3)
    trained = ReidNetwork()
    trained.load_state_dict(load_file(BUNDLED_DIRECTORY / "reid" / "model.safetensors"))
    with torch.inference_mode():
        losses = [float(train_embedder.contrastive_loss(net(windows), identities)) for net in (ReidNetwork(), trained)]
    assert losses[1] < 0.6 * losses[0]


def test_contrastive_loss_without_any_pair_is_zero() -> None:
    embeddings = torch.nn.functional.normalize(torch.rand(3, 8), dim=1)
    assert float(train_embedder.contrastive_loss(embeddings, torch.arange(3))) == 0


def test_bundled_propagator_has_a_low_loss_and_follows() -> None:
    model = build_propagator().eval()
    plan = train_propagator.ClipPlan(frames=3, prompt="box", second_prompt_frame=0, clicks=1)
    torch.manual_seed(0)
    clips = train_propagator.draw_clips(World(), np.random.default_rng(3), 6, plan.frames)
    assert clips is not None
    images, scene_of, masks = clips

    def last_frame() -> tuple[float, float]:
        with torch.inference_mode():
            answers = train_propagator.unroll(model, images, scene_of, masks, plan)
            assert [len(a) for a in answers] == [2, 1, 1]
            loss, parts = train_propagator.frame_losses(answers[-1], masks[:, -1])
        return float(loss), float(parts["iou"])

    untrained = last_frame()
    weights = load_file(BUNDLED_DIRECTORY / "sam2" / "model.safetensors")
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    trained = last_frame()
    assert trained[0] < 0.7 * untrained[0]
    assert trained[1] > 0.5 > untrained[1]


@pytest.mark.parametrize("prompt", ["mask", "box", "point"])
def test_clip_with_every_kind_of_prompt_unrolls(prompt: str) -> None:
    model = build_propagator().eval()
    plan = train_propagator.ClipPlan(frames=2, prompt=prompt, second_prompt_frame=1, clicks=0)
    clips = train_propagator.draw_clips(World(), np.random.default_rng(1), 2, 2)
    assert clips is not None
    with torch.inference_mode():
        answers = train_propagator.unroll(model, *clips, plan)
    assert len(answers[0]) == (0 if prompt == "mask" else 1)


def test_bundled_detector_has_a_low_loss() -> None:
    from transformers import GroundingDinoForObjectDetection

    world, rng = World(), np.random.default_rng(2)
    scenes = sample_scenes(rng, 4)
    prompts = Prompter(build_processor().tokenizer).prompt(rng, scenes.class_indices, scenes.is_active)
    pixels, targets = train_detector.draw_pictures(world, scenes, prompts, np.full((4, 1), 5.0))
    trained = GroundingDinoForObjectDetection.from_pretrained(
        BUNDLED_DIRECTORY / "grounding_dino", dtype=torch.float32, local_files_only=True
    )
    losses = []
    for model in (build_detector(), trained):
        with torch.inference_mode():
            logits, boxes = train_detector.predict_all_layers(
                model.eval(), pixels, torch.as_tensor(prompts.token_ids), targets.attention
            )
            losses.append(float(train_detector.detection_loss(logits, boxes, targets)[0]))
    assert losses[1] < 0.4 * losses[0]


def test_detection_loss_of_the_perfect_answer_is_nearly_zero() -> None:
    boxes = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.7, 0.6, 0.3, 0.1]]])
    targets = train_detector.Targets(
        boxes=boxes,
        is_wanted=torch.tensor([[True, True]]),
        phrase_of_slot=torch.tensor([[1, 0]]),
        phrase_tokens=torch.tensor([[[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]]),
        attention=torch.ones(1, 4, dtype=torch.int64),
    )
    # the answers come in another order than the targets
    answer = boxes[:, [1, 0]][None]
    logits = torch.full((1, 1, 2, 4), -12.0)
    logits[0, 0, 0, 1] = logits[0, 0, 1, 2] = 12.0
    assert float(train_detector.detection_loss(logits, answer, targets)[0]) < 1e-3
    swapped = logits[:, :, [1, 0]]
    assert float(train_detector.detection_loss(swapped, answer, targets)[0]) > 1


def test_generalised_iou_of_known_boxes() -> None:
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    b = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [4.0, 0.0, 6.0, 2.0]])
    torch.testing.assert_close(train_detector.generalised_iou(a, b), torch.tensor([1.0, 1 / 3, -1 / 3]))


# --- the words


def test_vocabulary_is_that_of_the_bundled_tokenizer() -> None:
    from transformers import AutoTokenizer

    bundled = AutoTokenizer.from_pretrained(BUNDLED_DIRECTORY / "grounding_dino", local_files_only=True)
    assert bundled.get_vocab() == build_vocabulary()
    assert build_processor().tokenizer.encode("two sheep. a dog.") == bundled.encode("two sheep. a dog.")


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("dog", "dogs"),
        ("sheep", "sheep"),
        ("pony", "ponies"),
        ("fox", "foxes"),
        ("race car", "race cars"),
        ("dress", "dresses"),
    ],
)
def test_plural(one: str, many: str) -> None:
    assert plural(one) == many


def test_phrase_table_keeps_unseen_classes_apart() -> None:
    seen, everything = phrase_table(), phrase_table(held_out=True)
    assert "llama" not in seen
    assert "llama" in everything
    held_out = {i for i, entry in enumerate(sprite_classes()) if entry.is_held_out}
    assert not held_out & set().union(*seen.values())
    assert seen["animal"] < everything["animal"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_prompts_name_exactly_what_they_point_at(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = sample_scenes(rng, 2)
    batch = PROMPTER.prompt(rng, scenes.class_indices, scenes.is_active)
    table, classes = phrase_table(), sprite_classes()
    for row in range(2):
        ids = batch.token_ids[row][batch.attention[row] == 1]
        assert ids[0] == CLASS_TOKEN
        assert ids[-1] == END_TOKEN
        for number in range(len(batch.phrase_tokens[row])):
            places = np.flatnonzero(batch.phrase_tokens[row, number])
            is_meant = batch.phrase_of_slot[row] == number
            assert not (is_meant & ~scenes.is_active[row]).any()
            if not len(places):
                assert not is_meant.any()
                continue
            assert batch.token_ids[row, places[-1] + 1] == PERIOD_TOKEN
            text = PROCESSOR.tokenizer.decode(batch.token_ids[row, places])
            fitting = {p for p in table if text in (p, plural(p), f"a {p}", f"an {p}", f"the {p}")}
            for slot in np.flatnonzero(is_meant):
                index = int(scenes.class_indices[row, slot])
                assert any(index in table[p] for p in fitting), (text, classes[index].name)


PROCESSOR = build_processor()
PROMPTER = Prompter(PROCESSOR.tokenizer)


# --- the atlas


@pytest.mark.parametrize("name", [c.name for c in sprite_classes() if c.is_shape])
def test_drawn_shape_is_the_atlas_sprite(name: str) -> None:
    (entry,) = [c for c in sprite_classes() if c.name == name]
    drawn, bundled = make_atlas.draw_shape(name), load_sprites()[entry.sprite_indices[0]]
    assert np.abs(drawn[3].astype(int) - bundled[3]).mean() < 4


def test_atlas_without_the_font_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fonts-noto-color-emoji"):
        make_atlas.main(["--font", str(tmp_path / "no.ttf"), "--output", str(tmp_path / "atlas.npz")])


# --- the evaluations


def test_average_precision_of_known_answers() -> None:
    assert evaluate_detector.average_precision([(0.9, 0.8), (0.8, 0.9)], 2, min_iou=0.5) == 1
    # right, wrong, right of two: precision 1 up to recall 1/2, then 2/3
    answers = [(0.9, 0.8), (0.7, 0.1), (0.5, 0.6)]
    assert evaluate_detector.average_precision(answers, 2, min_iou=0.5) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert evaluate_detector.average_precision([], 2, min_iou=0.5) == 0


def test_true_box_is_given_only_once() -> None:
    box = np.array([[0, 0, 10, 10]], np.float32)
    twice = np.repeat(box, 2, axis=0)
    label = np.zeros(2, np.int64)
    answers = evaluate_detector.match_by_score(twice, np.array([0.6, 0.9], np.float32), label, box, label[:1])
    assert answers == [(pytest.approx(0.9), 1.0), (pytest.approx(0.6), 0.0)]
    other = evaluate_detector.match_by_score(box, np.array([0.9], np.float32), label[:1] + 1, box, label[:1])
    assert other[0][1] == 0


def test_track_on_another_object_counts_as_swapped() -> None:
    true, other = np.zeros((2, 20, 12, 12), np.bool_)
    true[:15, :6, :6] = True
    other[:, 6:, 6:] = True
    found = np.concatenate([true[:10], other[10:]])
    score = evaluate_propagator.score_track(found, true, other[None])
    assert score.first_iou == 1
    assert score.mean_iou == pytest.approx(10 / 15)
    assert score.false_presence == 1
    assert score.is_swapped
    assert score.ends_on_other
    right = evaluate_propagator.score_track(true, true, other[None])
    assert (right.mean_iou, right.false_presence, right.is_swapped) == (1, 0, False)


def test_roc_auc_of_separated_mixed_and_tied_scores() -> None:
    high, low = np.array([0.8, 0.9], np.float32), np.array([0.1, 0.2, 0.3], np.float32)
    assert evaluate_embedder.roc_auc(high, low) == 1
    assert evaluate_embedder.roc_auc(low, high) == 0
    assert evaluate_embedder.roc_auc(high, high) == 0.5


@pytest.mark.parametrize(
    ("main", "arguments", "lines"),
    [
        pytest.param(evaluate_embedder.main, ["--scenes", "2"], 12, id="embedder"),
        pytest.param(evaluate_detector.main, ["--pictures", "2"], 5, id="detector"),
    ],
)
def test_evaluation_runs(main: Main, arguments: list[str], lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--device", "cpu"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == lines


@pytest.mark.slow
def test_propagator_evaluation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_propagator.main(["--clips", "1", "--device", "cpu"]) == 0
    assert '"tracks"' in capsys.readouterr().out.splitlines()[-1]
