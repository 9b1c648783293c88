"""CLIP's image tower out of an ONNX file whose matrices are integers of 8 bits."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from models.tensors import MissingWeightsError

# Names that Hugging Face's `transformers` gives to the parts of the tower, and timm's.
NAMES = {
    r"^vision_model\.": "",
    r"^embeddings\.class_embedding$": "cls_token",
    r"^embeddings\.position_embedding\.weight$": "pos_embed",
    r"^embeddings\.patch_embedding\.": "patch_embed.proj.",
    r"^pre_layrnorm\.": "norm_pre.",  # spelt so there
    r"^post_layernorm\.": "norm.",
    r"^visual_projection\.": "head.",
    r"^encoder\.layers\.": "blocks.",
    r"\.self_attn\.out_proj\.": ".attn.proj.",
    r"\.self_attn\.": ".attn.",
    r"\.layer_norm(\d)\.": r".norm\1.",
}


def read_onnx(path: Path) -> dict[str, torch.Tensor]:
    """float32 tensors under timm's names: (integer - zero point) * scale, per output channel.

    Between the matrices the file's own network rounds to 8 bits too; what is read here does not.
    Raises: MissingWeightsError: no such file, or no library that reads it.
    """
    if not path.is_file():
        raise MissingWeightsError(f"{path}: no such file; see python -m models.weights list")
    try:
        import onnx
    except ImportError as error:
        raise MissingWeightsError(f"{path}: to read it, pip install onnx") from error
    graph = onnx.load(path).graph
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    found = {name: value for name, value in stored.items() if name.startswith("vision_model.")}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            matrix = node.input[1].removesuffix("_quantized")
            steps = stored[f"{matrix}_quantized"].astype("int16") - stored[f"{matrix}_zero_point"]
            module = node.name.strip("/").removesuffix("/MatMul_quant").replace("/", ".")
            found[f"{module}.weight"] = (steps * stored[f"{matrix}_scale"]).T
    return _joined({_renamed(name): torch.tensor(value) for name, value in found.items()})


def _renamed(name: str) -> str:
    for pattern, by in NAMES.items():
        name = re.sub(pattern, by, name)
    return name


def _joined(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm has one matrix for query, key and value, and a batch axis before learned tokens."""
    for name in [name for name in tensors if ".q_proj." in name]:
        parts = [tensors.pop(name.replace(".q_proj.", f".{each}_proj.")) for each in "qkv"]
        tensors[name.replace(".q_proj.", ".qkv.")] = torch.cat(parts)
    tensors["cls_token"] = tensors["cls_token"].view(1, 1, -1)
    tensors["pos_embed"] = tensors["pos_embed"][None]
    tensors["head.bias"] = tensors["head.weight"].new_zeros(len(tensors["head.weight"]))
    return tensors
