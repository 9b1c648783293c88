"""Pack what a bare PyTorch machine lacks into outputs/gpu/carry, at most 45 MiB.

    python -m scripts.gpu_pack                      # packages and two photographs
    python -m scripts.gpu_pack --faces faces.zip    # also faces, by training/pack_faces.py
    python -m scripts.gpu_pack --start packed.safetensors    # also a state to train further from

Everything is copied from the environment that runs it; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
CARRIED = ROOT / "outputs" / "gpu" / "carry"
LARGEST = 45 << 20  # bytes
# What a bare PyTorch image holds, of the packages in this project's lock file; all else is carried.
BARE = frozenset(
    """annotated-doc anyio certifi charset-normalizer click cloudpickle contourpy cuda-bindings
cuda-pathfinder cuda-toolkit cycler einops execnet filelock fonttools fsspec h11 h5py hf-xet httpcore
httpx huggingface-hub idna imageio iniconfig jinja2 joblib kiwisolver lazy-loader markdown-it-py
markupsafe matplotlib mdurl mpmath narwhals networkx numpy opencv-python-headless packaging pandas
pillow pluggy pygments pyparsing pytest pytest-xdist python-dateutil pyyaml regex requests rich
safetensors scikit-image scikit-learn scipy seaborn setuptools shellingham six sympy threadpoolctl
tifffile torch torchvision tqdm triton typer typing-extensions urllib3""".split()  # noqa: SIM905  a list as it is printed
)
NATIVE = "nvidia-"  # packages of CUDA's libraries, which come with torch
CARRY = ("facenet-pytorch", "timm", "py-feat", "tyro", "docstring-parser", "typeguard")
UNUSED = ("*.pyc", "__pycache__", "tests", "RECORD", "*.so")
# Names that are imported and not used: no video is read, and py-feat's own package file imports
# half a minute of libraries.
STUBS = {
    "feat/__init__.py": "",
    "av/__init__.py": '"""In the place of PyAV: names that are imported; no video is read."""\n',
    "av/container/__init__.py": "class InputContainer: ...\n",
    "av/sidedata/__init__.py": "",
    "av/sidedata/sidedata.py": "class Type: ...\n",
    "av/stream.py": "class Disposition: ...\n",
    "av/video/__init__.py": "",
    "av/video/stream.py": "class VideoStream: ...\n",
    "torchcodec/__init__.py": "",
    "torchcodec/decoders.py": "class VideoDecoder: ...\n",
}


def tops(found: Distribution) -> list[Path]:
    """The files and folders of a package that lie directly in site-packages."""
    base = Path(str(found.locate_file("")))
    names = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "/")}
    return [
        base / name for name in sorted(names) if name != "__pycache__" and (base / name).exists()
    ]


def photographs() -> dict[str, Path]:
    skimage, matplotlib = (
        Path(find_spec(name).origin).parent for name in ("skimage", "matplotlib")
    )
    hopper = matplotlib / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    return {"astronaut.png": skimage / "data" / "astronaut.png", "hopper.jpg": hopper}


def pack(
    folder: Path = CARRIED, faces: Path | None = None, start: Path | None = None
) -> dict[str, int]:
    """Fill the folder anew; faces and a start that are not given stay as they are.

    Returns: bytes of each part. Raises: ValueError: larger than LARGEST; FileNotFoundError.
    """
    for given in (faces, start):
        if given and not given.is_file():
            raise FileNotFoundError(f"{given}: no such file")
    part = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    try:
        copy_all(part)
        for name, given in (("faces", faces), ("start", start)):
            for path in [given] if given else folder.glob(f"{name}.*"):
                shutil.copyfile(path, part / f"{name}{path.suffix}")
        sizes = {top.name: weight(top) for top in [*(part / "site").iterdir(), *part.iterdir()]}
        sizes.pop("site")
        if (total := weight(part)) > LARGEST:
            told = f"{total / 2**20:.1f} MiB, at most {LARGEST >> 20}"
            raise ValueError(f"{folder}: {told}: {sizes}")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return dict(sorted(sizes.items()))


def copy_all(part: Path) -> None:
    """Packages, what stands in the place of others, and photographs."""
    site = part / "site"
    for package in CARRY:
        for top in tops(distribution(package)):
            if top.is_dir():
                left = shutil.ignore_patterns(*UNUSED)
                shutil.copytree(top, site / top.name, ignore=left, dirs_exist_ok=True)
            else:
                shutil.copyfile(top, site / top.name)
    for name, text in STUBS.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name, path in photographs().items():
        shutil.copyfile(path, part / name)


def weight(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(file.stat().st_size for file in files)


def main(folder: Path, faces: Path | None, start: Path | None) -> None:
    sizes = pack(folder, faces, start)
    for name, size in sizes.items():
        print(f"{size / 2**20:8.2f} MiB  {name}")
    print(f"{sum(sizes.values()) / 2**20:8.2f} MiB  {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CARRIED)
    parser.add_argument("--faces", type=Path, help="training faces in one file")
    parser.add_argument("--start", type=Path, help="a trace network, or the state of its training")
    options = parser.parse_args()
    try:
        main(options.out, options.faces, options.start)
    except (OSError, ValueError) as error:
        sys.exit(f"gpu_pack: {error}")
