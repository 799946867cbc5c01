"""SAM 2.1 of the `sam2` package as `Sam2VideoModel` of transformers: the same architecture with the same weights.

Works for every size, the bundled one and random weights included, because it reads all sizes off the given model. Knows
nothing of videos or timing.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

__all__ = ["as_transformers", "renamed"]

_MLP = r"(iou_prediction_head|output_hypernetworks_mlps\.\d|pred_obj_score_head|obj_ptr_proj)\.layers\."
_RENAMINGS = (
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"mask_downsampler\.encoder\.12\.", "mask_downsampler.final_conv."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv", ".pointwise_conv"),
    (r"\.gamma$", ".scale"),
    (_MLP + "0", r"\1.proj_in"),
    (_MLP + "2", r"\1.proj_out"),
    (_MLP + "1", r"\1.layers.0"),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"\.norm(\d?)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.out_proj\.", ".o_proj."),
    (r"^sam_mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"^sam_mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"^sam_mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
)
"""Applied one after the other; read off the parameter names of both models."""


def as_transformers(model: Any) -> Any:
    """Build transformers' model with the sizes and the weights of this one, ready for inference.

    Args:
        model: A `SAM2Base` in float32 whose switches are those of SAM 2.1; it is left as it is.

    Raises:
        RuntimeError: A weight has no place there, or a place no weight.
    """
    from transformers import Sam2VideoModel

    made = Sam2VideoModel(_config(model))
    made.load_state_dict(renamed(model.state_dict()))
    return made.eval().requires_grad_(False)


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `SAM2Base` under the names that they have in transformers."""
    found: dict[str, Tensor] = {}
    points = []
    for name, value in weights.items():
        if ".point_embeddings." in name:
            points.append(value)
            continue
        layer = re.search(r"mask_downsampler\.encoder\.(\d+)\.", name)
        if layer and layer[1] != "12":
            place, is_norm = divmod(int(layer[1]), 3)
            name = name.replace(layer[0], f"mask_downsampler.layers.{place}.{'layer_norm' if is_norm else 'conv'}.")
        for pattern, replacement in _RENAMINGS:
            name = re.sub(pattern, replacement, name)
        found[name] = value
    found["prompt_encoder.point_embed.weight"] = torch.cat(points)
    found["shared_image_embedding.positional_embedding"] = found["prompt_encoder.shared_embedding.positional_embedding"]
    return found


def _config(model: Any) -> Any:
    from transformers import Sam2VideoConfig
    from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig, Sam2VisionConfig
    from transformers.models.sam2_video.configuration_sam2_video import (
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
    )

    trunk, side, hidden = model.image_encoder.trunk, model.image_size, model.hidden_dim
    ends = [trunk.blocks[end] for end in trunk.stage_ends]
    widths = [block.dim_out for block in ends]
    depths = [b - a for a, b in zip([-1, *trunk.stage_ends], trunk.stage_ends, strict=False)]
    layers = model.memory_attention.layers
    fuser = model.memory_encoder.fuser.layers
    decoder = model.sam_mask_decoder
    backbone = Sam2HieraDetConfig(
        hidden_size=widths[0],
        num_attention_heads=ends[0].attn.num_heads,
        image_size=[side, side],
        window_positional_embedding_background_size=list(trunk.window_pos_embed_bkg_spatial_size),
        blocks_per_stage=depths,
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[block.attn.num_heads for block in ends],
        window_size_per_stage=list(trunk.window_spec),
        global_attention_blocks=list(trunk.global_att_blocks),
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[side // step, side // step] for step in (4, 8, 16)],
        fpn_hidden_size=hidden,
    )
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=hidden, image_size=side),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=hidden,
            mlp_dim=decoder.transformer.layers[0].mlp.layers[0].out_features,
            num_attention_heads=decoder.transformer.num_heads,
            iou_head_hidden_dim=decoder.iou_prediction_head.layers[0].out_features,
        ),
        image_size=side,
        memory_attention_hidden_size=hidden,
        memory_attention_num_layers=len(layers),
        memory_attention_feed_forward_hidden_size=layers[0].linear1.out_features,
        memory_attention_rope_feat_sizes=[side // 16, side // 16],
        memory_encoder_hidden_size=hidden,
        memory_encoder_output_channels=model.mem_dim,
        mask_downsampler_embed_dim=hidden,
        memory_fuser_num_layers=len(fuser),
        memory_fuser_embed_dim=hidden,
        memory_fuser_intermediate_dim=fuser[0].pwconv1.out_features,
    )
