"""Names of Grounding DINO's weights: those of transformers' files to those of the package groundingdino-py.

Pure renaming and joining of tensors. Reads the names that transformers *stores* (they are the same in every version),
not those its modules happen to have in memory. Read off both state dicts; transformers' own conversion script goes the
other way (convert_grounding_dino_to_hf.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["translate_state_dict"]

_PROJECTIONS = ("query", "key", "value")
_IS_PROJECTION = re.compile(r"(?P<module>.+)\.(?P<part>query|key|value)\.(?P<kind>weight|bias)")
_BOX_HEAD = re.compile(r"(?:model\.decoder\.)?bbox_embed\.(?P<layer>\d+)\.(?P<rest>.+)")
# Stored by transformers, but no part of the network that is run.
_UNUSED = re.compile(
    r".*\.relative_position_index|model\.text_backbone\.(pooler\..+|embeddings\.position_ids)"
    r"|model\.backbone\.conv_encoder\.model\.(swin\.)?layernorm\..+"
)

_SWIN = r"model\.backbone\.conv_encoder\.model\."
_SWIN_BLOCK = _SWIN + r"encoder\.layers\.(\d+)\.blocks\.(\d+)\."
_TEXT = r"model\.encoder\.layers\.(\d+)\.text_enhancer_layer\."
_FUSION = r"model\.encoder\.layers\.(\d+)\.fusion_layer\."
_IMAGE = r"model\.encoder\.layers\.(\d+)\.deformable_layer\."
_DECODER = r"model\.decoder\.layers\.(\d+)\."

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (_SWIN + r"embeddings\.patch_embeddings\.projection\.", r"backbone.0.patch_embed.proj."),
        (_SWIN + r"embeddings\.norm\.", r"backbone.0.patch_embed.norm."),
        (_SWIN_BLOCK + r"attention\.self\.relative_", r"backbone.0.layers.\1.blocks.\2.attn.relative_"),
        (_SWIN_BLOCK + r"attention\.self\.in_proj_", r"backbone.0.layers.\1.blocks.\2.attn.qkv."),
        (_SWIN_BLOCK + r"attention\.output\.dense\.", r"backbone.0.layers.\1.blocks.\2.attn.proj."),
        (_SWIN_BLOCK + r"layernorm_before\.", r"backbone.0.layers.\1.blocks.\2.norm1."),
        (_SWIN_BLOCK + r"layernorm_after\.", r"backbone.0.layers.\1.blocks.\2.norm2."),
        (_SWIN_BLOCK + r"intermediate\.dense\.", r"backbone.0.layers.\1.blocks.\2.mlp.fc1."),
        (_SWIN_BLOCK + r"output\.dense\.", r"backbone.0.layers.\1.blocks.\2.mlp.fc2."),
        (_SWIN + r"encoder\.layers\.(\d+)\.downsample\.", r"backbone.0.layers.\1.downsample."),
        (_TEXT + r"self_attn\.", r"transformer.encoder.text_layers.\1.self_attn."),
        (_TEXT + r"fc([12])\.", r"transformer.encoder.text_layers.\1.linear\2."),
        (_TEXT + r"layer_norm_before\.", r"transformer.encoder.text_layers.\1.norm1."),
        (_TEXT + r"layer_norm_after\.", r"transformer.encoder.text_layers.\1.norm2."),
        (_FUSION + r"vision_param", r"transformer.encoder.fusion_layers.\1.gamma_v"),
        (_FUSION + r"text_param", r"transformer.encoder.fusion_layers.\1.gamma_l"),
        (_FUSION + r"layer_norm_vision\.", r"transformer.encoder.fusion_layers.\1.layer_norm_v."),
        (_FUSION + r"layer_norm_text\.", r"transformer.encoder.fusion_layers.\1.layer_norm_l."),
        (_FUSION + r"attn\.(values_|out_)?vision_proj\.", r"transformer.encoder.fusion_layers.\1.attn.\2v_proj."),
        (_FUSION + r"attn\.(values_|out_)?text_proj\.", r"transformer.encoder.fusion_layers.\1.attn.\2l_proj."),
        (_IMAGE + r"self_attn\.", r"transformer.encoder.layers.\1.self_attn."),
        (_IMAGE + r"self_attn_layer_norm\.", r"transformer.encoder.layers.\1.norm1."),
        (_IMAGE + r"fc([12])\.", r"transformer.encoder.layers.\1.linear\2."),
        (_IMAGE + r"final_layer_norm\.", r"transformer.encoder.layers.\1.norm2."),
        (_DECODER + r"self_attn\.", r"transformer.decoder.layers.\1.self_attn."),
        (_DECODER + r"self_attn_layer_norm\.", r"transformer.decoder.layers.\1.norm2."),
        (_DECODER + r"encoder_attn_text\.", r"transformer.decoder.layers.\1.ca_text."),
        (_DECODER + r"encoder_attn_text_layer_norm\.", r"transformer.decoder.layers.\1.catext_norm."),
        (_DECODER + r"encoder_attn\.", r"transformer.decoder.layers.\1.cross_attn."),
        (_DECODER + r"encoder_attn_layer_norm\.", r"transformer.decoder.layers.\1.norm1."),
        (_DECODER + r"fc([12])\.", r"transformer.decoder.layers.\1.linear\2."),
        (_DECODER + r"final_layer_norm\.", r"transformer.decoder.layers.\1.norm3."),
        (r"model\.decoder\.layer_norm\.", r"transformer.decoder.norm."),
        (r"model\.decoder\.reference_points_head\.", r"transformer.decoder.ref_point_head."),
        (r"model\.encoder_output_bbox_embed\.", r"transformer.enc_out_bbox_embed."),
        (r"model\.enc_output", r"transformer.enc_output"),
        (r"model\.level_embed", r"transformer.level_embed"),
        (r"model\.query_position_embeddings\.", r"transformer.tgt_embed."),
        (r"model\.input_proj_vision\.", r"input_proj."),
        (r"model\.text_backbone\.", r"bert."),
        (r"model\.text_projection\.", r"feat_map."),
    )
)
_SWIN_NORM = re.compile(_SWIN + r"hidden_states_norms\.stage(\d+)\.(.+)")


def translate_state_dict(stored: Mapping[str, Tensor], *, decoder_layers: int) -> dict[str, Tensor]:
    """Rename the weights of transformers' `GroundingDinoForObjectDetection` for the package's `GroundingDINO`.

    Args:
        stored: Tensors under the names of the safetensors file.
        decoder_layers: Number of layers; heads that a file stores once and shares are given to each.

    Returns:
        Everything but the package's `relative_position_index` buffers, which it computes itself.

    Raises:
        ValueError: A name is unknown, or a query, key or value is missing.
    """
    translated: dict[str, Tensor] = {}
    box_heads: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _join_projections(stored).items():
        if _UNUSED.fullmatch(name):
            continue
        if head := _BOX_HEAD.fullmatch(name):
            box_heads.setdefault(int(head["layer"]), {})[head["rest"]] = tensor
        else:
            translated[_translate(name)] = tensor
    for layer in range(decoder_layers):
        for rest, tensor in box_heads.get(layer, box_heads[0]).items():
            # The package registers the same heads twice.
            translated[f"bbox_embed.{layer}.{rest}"] = tensor
            translated[f"transformer.decoder.bbox_embed.{layer}.{rest}"] = tensor
    return translated


def _translate(name: str) -> str:
    if norm := _SWIN_NORM.fullmatch(name):
        # transformers counts the patch embedding as a stage, the package does not.
        return f"backbone.0.norm{int(norm[1]) - 1}.{norm[2]}"
    for pattern, replacement in _RULES:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    raise ValueError(f"weight {name!r}: groundingdino-py has no counterpart")


def _join_projections(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stack separate query, key and value weights into one ``in_proj``, except in BERT, which keeps them apart."""
    joined: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        part = _IS_PROJECTION.fullmatch(name)
        if part is None or name.startswith("model.text_backbone."):
            joined[name] = tensor
        elif part["part"] == _PROJECTIONS[0]:
            parts = [stored.get(f"{part['module']}.{which}.{part['kind']}") for which in _PROJECTIONS]
            if any(p is None for p in parts):
                raise ValueError(f"weight {name!r}: its query, key and value are not all there")
            joined[f"{part['module']}.in_proj_{part['kind']}"] = torch.cat([p for p in parts if p is not None])
    return joined
