"""What the published experts refuse, the names of CLIP's towers, and what importing py-feat must leave alone."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from models import BUNDLED, CLIP_MODEL, PROFILES, expert_class
from models.clip_image import ALIASES, published, tower_named
from models.ensemble import Ensemble, find_weights
from models.pyfeat import PyFeat, import_feat
from models.tensors import MissingWeightsError, WeightsError
from models.weights import UNUSUAL, WEIGHTS
from tests.official import FORMATS
from tests.test_tensors import Touch, refused

ROOT = Path(__file__).parent.parent
USUAL = [name for name in WEIGHTS if name not in UNUSUAL]
# A layer's weights in each file.
LAYERS = {
    "fairface": "layer3.2.conv1.weight",
    "arcface": "layer2.1.conv2.weight",
    "facenet": "repeat_1.2.branch1.0.conv.weight",
    "clip-vit-b-32": "blocks.5.attn.qkv.weight",
    "pyfeat": "backbone.stem_0.weight",
}


@pytest.fixture(autouse=True)
def _nowhere_else(monkeypatch):
    monkeypatch.setattr("models.weights._receive", lambda *_: pytest.fail("downloaded"))
    for name in ("MASC_WEIGHTS", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def built_from(monkeypatch):
    """Builds the expert of a row of `WEIGHTS` from tensors that have shapes only, as the network then has."""

    def build(name: str, shapes: dict[str, list[int]], **more: str) -> nn.Module:
        import_feat("multitask.inference")  # now: it makes tensors that are to be real ones
        expert = expert_class(WEIGHTS[name].expert)
        found = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        monkeypatch.setattr(f"{expert.__module__}.read_tensors", lambda path: found)
        with torch.device("meta"):
            return expert(Path("some/file"), **more)

    return build


def shapes_of(name: str) -> dict[str, list[int]]:
    return {key: shape for key, (_, shape) in FORMATS[name]["tensors"].items()}


def without(shapes: dict[str, list[int]], *keys: str) -> dict[str, list[int]]:
    return {key: shape for key, shape in shapes.items() if key not in keys}


@pytest.mark.parametrize("name", [name for name in USUAL if name != "pyfeat"])
def test_a_file_that_does_not_fit_is_refused(built_from, name):
    shapes, layer = shapes_of(name), LAYERS[name]
    assert built_from(name, shapes).weights == Path("some/file")
    for wrong, told in (
        (without(shapes, layer), f"1 missing ({layer})"),
        ({**shapes, "head.more": [1]}, "1 unexpected (head.more)"),
        ({**shapes, layer: [2, 3]}, f"1 misshapen ({layer}: (2, 3), not {tuple(shapes[layer])})"),
        (without(shapes, *list(shapes)[3:]), " missing ("),
    ):
        refused(WeightsError, ("some/file: does not fit ", told), built_from, name, wrong)


def test_what_the_official_files_lack_or_add_is_no_fault(built_from):
    arcface, facenet = shapes_of("arcface"), shapes_of("facenet")
    assert not [key for key in arcface if "num_batches" in key] and "logits.weight" in facenet
    assert built_from("arcface", {**arcface, "bn2.num_batches_tracked": []})
    assert built_from("facenet", without(facenet, "logits.weight", "logits.bias"))
    extra = {**shapes_of("fairface"), "logits.weight": [2, 2]}
    refused(
        WeightsError, ("some/file: ", "1 unexpected (logits.weight)"), built_from, "fairface", extra
    )
    lacks = without(shapes_of("fairface"), "bn1.num_batches_tracked")
    refused(
        WeightsError,
        ("some/file: ", "1 missing (bn1.num_batches_tracked)"),
        built_from,
        "fairface",
        lacks,
    )


@pytest.mark.parametrize("name", USUAL)
def test_a_file_that_was_cut_off_is_refused(official_weights, tmp_path, name):
    path = tmp_path / WEIGHTS[name].file
    with (official_weights / path.name).open("rb") as file:
        path.write_bytes(file.read(1_000_000))
    refused(WeightsError, (f"{path}: ", "fetch it again"), expert_class(WEIGHTS[name].expert), path)


def write_zeros(path: Path, shapes: dict[str, list[int]], metadata: dict[str, str] | None) -> Path:
    """A safetensors file of float32 zeros, which take no room on the disk."""
    header, end = {"__metadata__": metadata} if metadata else {}, 0
    for key, shape in shapes.items():
        header[key] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [end, end + 4 * math.prod(shape)],
        }
        end += 4 * math.prod(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def test_a_file_that_does_not_fit_pyfeat_is_refused(tmp_path):
    path, shapes, layer = tmp_path / WEIGHTS["pyfeat"].file, shapes_of("pyfeat"), LAYERS["pyfeat"]
    metadata = FORMATS["pyfeat"]["metadata"]
    assert PyFeat(write_zeros(path, shapes, metadata)).weights == path
    config = json.loads(metadata["config"])
    for wrong, header, told in (
        (without(shapes, layer), metadata, "1 missing, 0 unexpected"),
        ({**shapes, "more": [1]}, metadata, "0 missing, 1 unexpected"),
        ({**shapes, layer: [96, 3, 2, 2]}, metadata, layer),
        (shapes, None, "not a whole multitask network"),
        (shapes, {"other": "{}"}, "not a whole multitask network"),
        (shapes, {"config": "{"}, "not a whole multitask network"),
        (shapes, {"config": "[]"}, "not a whole multitask network"),
        (shapes, {"config": json.dumps({**config, "n_au": 24})}, "not a whole multitask network"),
    ):
        refused(WeightsError, (f"{path}: ", told), PyFeat, write_zeros(path, wrong, header))


def test_an_earlier_network_of_pyfeat_is_refused(tmp_path):
    library = import_feat("multitask.inference")
    config = {**json.loads(FORMATS["pyfeat"]["metadata"]["config"]), "n_au": 24}
    known = {
        key: value
        for key, value in config.items()
        if key in library.ModelV2Config.__dataclass_fields__
    }
    with torch.device("meta"):
        net = library.MEGraphAUv2(library.ModelV2Config(**known, pretrained=False))
    shapes = {key: list(value.shape) for key, value in net.state_dict().items()}
    path = write_zeros(tmp_path / "earlier.safetensors", shapes, {"config": json.dumps(config)})
    refused(WeightsError, (f"{path}: has outputs ", "AU45", "another version?"), PyFeat, path)


def test_pyfeat_unpickles_nothing(tmp_path):
    library, marker = import_feat("multitask.inference"), tmp_path / "marker"
    files = {
        WEIGHTS["pyfeat"].file: "not a whole multitask network",
        "face_multitask_v28.pt": "only safetensors are read",
    }
    for file, reason in files.items():
        torch.save({"config": {}, "model": Touch(marker)}, tmp_path / file)
        refused(WeightsError, [f"{tmp_path / file}: {reason}"], PyFeat, tmp_path / file)
        assert not marker.exists()
    with suppress(Exception):
        library.MultitaskModel(weights_path=str(tmp_path / file))
    assert marker.exists(), "the trap works"


# Through an ensemble.


@pytest.fixture
def none_is_built(monkeypatch):
    monkeypatch.setattr(
        "models.ensemble.expert_class", lambda name: pytest.fail(f"{name} was built")
    )


def ensemble_of(folder: Path | None, *names: str) -> Ensemble:
    return Ensemble(names, weights_dir=folder)


def test_a_file_that_differs_from_its_sha256_note(official_weights, tmp_path, none_is_built):
    names, file = ("arcface", "facenet"), WEIGHTS["facenet"].file
    for name in names:
        (tmp_path / WEIGHTS[name].file).symlink_to(official_weights / WEIGHTS[name].file)
    assert list(find_weights(names, tmp_path, CLIP_MODEL)) == list(names)
    (tmp_path / f"{file}.sha256").write_text(f"{'0' * 64}  {file}\n")
    told = f"{tmp_path / file}: SHA-256 is ", f"expected {'0' * 64} ({file}.sha256)"
    refused(WeightsError, told, ensemble_of, tmp_path, *names)


def test_all_missing_files_are_reported_before_any_work(official_weights, tmp_path, none_is_built):
    (tmp_path / WEIGHTS["arcface"].file).symlink_to(official_weights / WEIGHTS["arcface"].file)
    missing = [f"{tmp_path / WEIGHTS[name].file}: missing" for name in ("fairface", "pyfeat")]
    refused(MissingWeightsError, missing, ensemble_of, tmp_path, "fairface", "arcface", "pyfeat")


def test_a_folder_that_is_not_there(tmp_path, monkeypatch, none_is_built):
    for origin, folder in (("--weights-dir", tmp_path / "mine"), ("MASC_WEIGHTS", None)):
        monkeypatch.setenv("MASC_WEIGHTS", str(tmp_path / "other"))
        with pytest.raises(FileNotFoundError) as caught:
            ensemble_of(folder, *PROFILES["full"])
        named = folder or tmp_path / "other"
        assert (
            str(caught.value)
            == f"{named}: named by {origin}, but no such folder; create it, or name another"
        )


def test_the_folder_of_the_environment(official_weights, monkeypatch):
    monkeypatch.setenv("MASC_WEIGHTS", str(official_weights))
    (expert,) = ensemble_of(None, "fairface").experts
    assert expert.weights == official_weights / WEIGHTS["fairface"].file
    found = find_weights(PROFILES["full"], None, CLIP_MODEL)
    assert set(found.values()) == {
        *(official_weights / WEIGHTS[name].file for name in USUAL),
        BUNDLED["traces"],
    }


# Names of CLIP's towers.


def test_names_of_towers():
    assert ALIASES["ViT-B/32"] == "vit_base_patch32_clip_quickgelu_224.openai"
    assert ALIASES["ViT-L/14"] == "vit_large_patch14_clip_quickgelu_224.openai"
    assert ALIASES["ViT-B/16"] == "vit_base_patch16_clip_quickgelu_224.openai"
    for name in ALIASES:
        assert tower_named(name) == tower_named(ALIASES[name]) == ALIASES[name]
    assert (
        published("ViT-B/32") is WEIGHTS["clip-vit-b-32"]
        and published("ViT-L/14") is WEIGHTS["clip-vit-l-14"]
    )
    assert tower_named("vit_base_patch16_clip_224.laion2b") == "vit_base_patch16_clip_224.laion2b"
    for plain in ("vit_base_patch32_clip_224.openai", "vit_large_patch14_clip_336.openai"):
        quick = plain.replace("_clip_", "_clip_quickgelu_")
        for asked in (tower_named, published):
            refused(
                ValueError,
                (f"--clip-model {plain}: ", "another GELU", f"use {quick}"),
                asked,
                plain,
            )
    for name in (
        "ViT-B-32",
        "vit_base_patch32_clip_224",  # of which training?
        "vit_base_patch16_clip_quickgelu_224.laion2b",
        "vit_base_patch16_clip_224.laion2b_ft_in1k",  # classifies ImageNet
        "resnet34.a1_in1k",
        "resnet50_clip.openai",  # no vision transformer
    ):
        told = (
            f"--clip-model {name}: timm lists no such tower; give ViT-B/32, ViT-L/14, ViT-B/16 or one of ",
            ".list_pretrained(",
        )
        refused(ValueError, told, tower_named, name)


def test_the_source_of_another_tower():
    tower = "vit_base_patch16_clip_224.laion2b"
    entry = published(tower)
    assert entry.tower == tower and entry.expert == "clip" and entry.licence == "apache-2.0"
    assert entry.url == f"https://huggingface.co/timm/{tower}/resolve/main/model.safetensors"
    assert entry.page == f"https://huggingface.co/timm/{tower}"
    assert entry.file == f"{tower}.safetensors" and entry.file not in {
        row.file for row in WEIGHTS.values()
    }


def test_one_tower_has_two_sources():
    assert published("ViT-B/16") is WEIGHTS["clip-vit-b-16"] and published("ViT-B/16").package
    entry = published(ALIASES["ViT-B/16"])
    assert entry.page == "https://huggingface.co/timm/vit_base_patch16_clip_224.openai"
    assert entry.file == "vit_base_patch16_clip_224.openai.safetensors" and not entry.package


def test_the_larger_tower(built_from):
    from timm import create_model

    with torch.device("meta"):
        net = create_model(ALIASES["ViT-L/14"], pretrained=False)
    shapes = shapes_of("clip-vit-l-14")
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == shapes
    expert = built_from("clip-vit-l-14", shapes, tower="ViT-L/14")
    assert expert.outputs["embedding"].size == 768 and expert.crop.px == 224
    refused(
        WeightsError, ["some/file: does not fit "], built_from, "clip-vit-l-14", shapes
    )  # the usual tower


IMPORT = """
import json, os, sys, warnings
import torch
from models.pyfeat import import_feat

def state():
    names = sorted(vars(sys.modules["__main__"]))
    return [dict(os.environ), [str(one) for one in warnings.filters], names, torch.get_num_threads()]

def both():
    before = state()
    print(import_feat("multitask.inference").__name__, file=sys.stderr)
    return before, state()

warnings.filterwarnings("error", message="mine")
print(json.dumps(both()))
"""


def test_importing_pyfeat_leaves_the_process_as_it_was():
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", IMPORT]
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    before, after = json.loads(ran.stdout)
    assert "feat.multitask.inference" in ran.stderr and len(before[1]) > 1 and after == before
