"""Grounding DINO through the package groundingdino-py, with the weights of the transformers backend.

The package is the authors' own code. What it does not bring, or brings in a form that no longer runs, is replaced here:
its BERT wrapper (which needs methods that transformers 5 has dropped), its downloads, its fixed Swin sizes, two
position encodings of fixed width, and its image preprocessing. `groundingdino_names` translates the names of the
weights. Boxes and scores are those of `grounding_dino` (tests/detectors/test_groundingdino_py.py).
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertModel

from fiftyone_plugin.detectors.grounding_dino import Checkpoint, open_checkpoint, read_out
from fiftyone_plugin.detectors.groundingdino_names import translate_state_dict
from fiftyone_plugin.detectors.prompt import join_phrases
from fiftyone_plugin.errors import BackendError
from fiftyone_plugin.interfaces import PhraseBoxes
from fiftyone_plugin.weights import load_quietly, resolve_device

with warnings.catch_warnings():
    # The package imports timm by a path that timm has deprecated.
    warnings.simplefilter("ignore")
    from groundingdino.models.GroundingDINO import groundingdino as package
    from groundingdino.models.GroundingDINO import transformer as package_transformer
    from groundingdino.models.GroundingDINO.backbone.backbone import Joiner
    from groundingdino.models.GroundingDINO.backbone.position_encoding import PositionEmbeddingSineHW
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer
    from groundingdino.models.GroundingDINO.utils import get_sine_pos_embed
    from groundingdino.util.misc import NestedTensor

__all__ = ["GroundingDinoPackage", "build_model", "make"]

_NAME = "groundingdino-py"
_PACKAGE_WIDTH = 256
"""`d_model` that the package's position encodings are written for (transformer.py:482, utils.py:203)."""
_PACKAGE_MAX_TOKENS = 256
"""Fixed in the package (groundingdino.py:82)."""
_LOGIT_EPS = 1e-5
"""Where transformers cuts off before a logit (modeling_grounding_dino.py, `torch.special.logit`)."""
_PACKAGE = threading.RLock()


class _TextEncoder(nn.Module):
    """BERT as the package calls it: attention is masked per pair of tokens, and positions restart in every phrase."""

    def __init__(self, bert_model: Any) -> None:
        super().__init__()
        self.config = bert_model.config
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder

    def forward(
        self, *, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, **_: object
    ) -> dict[str, Tensor]:
        hidden = self.embeddings(input_ids=input_ids, position_ids=position_ids)
        may_see = attention_mask[:, None].to(torch.bool)
        bias = torch.zeros_like(may_see, dtype=hidden.dtype).masked_fill(~may_see, torch.finfo(hidden.dtype).min)
        return {"last_hidden_state": self.encoder(hidden, attention_mask=bias)[0]}


def _logit(probability: Tensor) -> Tensor:
    """The package cuts off at 1e-3 instead, which moves boxes that touch the image's border."""
    return torch.logit(probability, eps=_LOGIT_EPS)


@contextmanager
def _replaced(module: Any, **replacements: object) -> Iterator[None]:
    """Put other objects under a module's names; the package offers no other way in."""
    with _PACKAGE:
        originals = {name: getattr(module, name) for name in replacements}
        for name, value in replacements.items():
            setattr(module, name, value)
        try:
            yield
        finally:
            for name, value in originals.items():
                setattr(module, name, value)


def build_model(config: Any, tokenizer: Any) -> nn.Module:
    """Build the package's network, without weights, for a transformers configuration.

    Args:
        config: transformers' GroundingDinoConfig with a Swin backbone.
        tokenizer: The checkpoint's tokenizer; the package calls it itself.

    Raises:
        BackendError: The package cannot express the configuration.
    """
    _check_expressible(config)
    swin = config.backbone_config
    backbone = Joiner(
        SwinTransformer(
            patch_size=swin.patch_size,
            embed_dim=swin.embed_dim,
            depths=list(swin.depths),
            num_heads=list(swin.num_heads),
            window_size=swin.window_size,
            mlp_ratio=swin.mlp_ratio,
            qkv_bias=swin.qkv_bias,
            # transformers counts the patch embedding as a stage, the package does not.
            out_indices=tuple(index - 1 for index in swin.out_indices),
        ),
        PositionEmbeddingSineHW(
            config.d_model // 2,
            temperatureH=config.positional_embedding_temperature,
            temperatureW=config.positional_embedding_temperature,
            normalize=True,
        ),
    )
    backbone.num_channels = [swin.embed_dim * 2 ** (index - 1) for index in swin.out_indices]
    transformer = package_transformer.Transformer(
        d_model=config.d_model,
        nhead=config.encoder_attention_heads,
        num_queries=config.num_queries,
        num_encoder_layers=config.encoder_layers,
        num_decoder_layers=config.decoder_layers,
        dim_feedforward=config.encoder_ffn_dim,
        dropout=0.0,
        activation=config.activation_function,
        return_intermediate_dec=True,
        num_feature_levels=config.num_feature_levels,
        enc_n_points=config.encoder_n_points,
        dec_n_points=config.decoder_n_points,
        learnable_tgt_init=True,
        two_stage_type="standard",
        embed_init_tgt=config.embedding_init_target,
        use_text_enhancer=True,
        use_fusion_layer=True,
        use_text_cross_attention=True,
        text_dropout=0.0,
        fusion_dropout=0.0,
    )
    source = _TextSource(config.text_config, tokenizer)
    with _replaced(package, BertModelWarper=_TextEncoder, get_tokenlizer=source):
        model = package.GroundingDINO(
            backbone,
            transformer,
            num_queries=config.num_queries,
            iter_update=True,
            query_dim=4,
            num_feature_levels=config.num_feature_levels,
            nheads=config.encoder_attention_heads,
            two_stage_type="standard",
            dec_pred_bbox_embed_share=config.decoder_bbox_embed_share,
            two_stage_bbox_embed_share=config.two_stage_bbox_embed_share,
            two_stage_class_embed_share=False,
        )
    if config.d_model != _PACKAGE_WIDTH:
        _fit_position_encodings(model, config.d_model)
    return model  # type: ignore[no-any-return]


class _TextSource:
    """Stands in for the package's module that downloads a tokenizer and BERT by name."""

    def __init__(self, text_config: Any, tokenizer: Any) -> None:
        self._text_config = text_config
        self._tokenizer = tokenizer

    def get_tokenlizer(self, _: str) -> Any:
        return self._tokenizer

    def get_pretrained_language_model(self, _: str) -> Any:
        return BertModel(self._text_config)


def _check_expressible(config: Any) -> None:
    swin = config.backbone_config
    for is_met, what in (
        (swin.model_type == "swin", f"backbone {swin.model_type!r}: must be 'swin'"),
        (config.two_stage, "two_stage = False: must be True"),
        (config.position_embedding_type == "sine", f"position_embedding_type {config.position_embedding_type!r}"),
        (_PACKAGE_WIDTH % config.d_model == 0, f"d_model = {config.d_model}: must divide {_PACKAGE_WIDTH}"),
        (config.encoder_attention_heads == config.decoder_attention_heads, "encoder and decoder differ in their heads"),
        (config.encoder_ffn_dim == config.decoder_ffn_dim, "encoder and decoder differ in their width"),
    ):
        if not is_met:
            raise BackendError(f"{_NAME} cannot run this model ({what}): use grounding-dino instead")


def _fit_position_encodings(model: Any, width: int) -> None:
    """Make the encodings that the package computes 256 wide fit a narrower model."""

    def encode_text_positions(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        positions = kwargs.pop("position_ids")
        encoded = get_sine_pos_embed(positions[..., None], num_pos_feats=width, exchange_xy=False)
        return args, {**kwargs, "pos_text": encoded}

    # Frequencies are 10000^(-2j/n), each a pair of sine and cosine: those of a width n/k are every k-th of those of n.
    step = _PACKAGE_WIDTH // width

    def thin_out_box_positions(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        pairs = args[0].reshape(*args[0].shape[:-1], 4, -1, 2)
        return (pairs[..., ::step, :].flatten(-3),)

    model.transformer.encoder.register_forward_pre_hook(encode_text_positions, with_kwargs=True)
    model.transformer.decoder.ref_point_head.register_forward_pre_hook(thin_out_box_positions)


class GroundingDinoPackage:
    """The detector backend; made by `make`."""

    def __init__(self, checkpoint: Checkpoint, *, variant: str, device: str) -> None:
        self.name = f"{_NAME}:{variant}"
        self._checkpoint = checkpoint
        self._device = device
        with load_quietly(checkpoint.directory, used_by=_NAME):
            model = build_model(checkpoint.config, checkpoint.processor.tokenizer)
            stored = {name: tensor.float() for name, tensor in load_file(checkpoint.weights_file).items()}
            weights = translate_state_dict(stored, decoder_layers=checkpoint.config.decoder_layers)
            missing, unexpected = model.load_state_dict(weights, strict=False)
            wrong = [*unexpected, *(name for name in missing if not name.endswith("relative_position_index"))]
            if wrong:
                raise ValueError(f"{len(wrong)} tensors are missing or not known, such as {wrong[0]}")
        self._model = model.to(device).eval()

    @property
    def max_tokens(self) -> int:
        """Tokens that one text may have, special tokens included."""
        return min(self._checkpoint.max_tokens, _PACKAGE_MAX_TOKENS)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special tokens included."""
        return self._checkpoint.count_tokens(text)

    @torch.inference_mode()
    def detect(self, images_rgb: Sequence[NDArray[np.uint8]], phrases: Sequence[str]) -> list[PhraseBoxes]:
        """Score all queries of every image against every phrase; see `interfaces.Detector`."""
        if not images_rgb:
            return []
        batch = self._checkpoint.encode(images_rgb, phrases, device=self._device)
        samples = NestedTensor(batch.pixel_values, batch.pixel_mask == 0)
        with warnings.catch_warnings():
            # The package's calls of meshgrid and of CUDA's autocast are deprecated in torch.
            warnings.simplefilter("ignore")
            with _replaced(package, inverse_sigmoid=_logit), _replaced(package_transformer, inverse_sigmoid=_logit):
                answer = self._model(samples, captions=[join_phrases(phrases)] * len(images_rgb))
        return read_out(answer["pred_logits"], answer["pred_boxes"], batch, images_rgb)


def make(variant: str | None, device: str) -> GroundingDinoPackage:
    """Make the backend: ``bundled``, ``tiny``, ``base`` or a directory in transformers' format."""
    variant = variant or "bundled"
    return GroundingDinoPackage(open_checkpoint(variant, used_by=_NAME), variant=variant, device=resolve_device(device))
