"""The published weights of the `full` profile: what they are, where they come from, and on which terms.

    python -m models.weights list                   # what is there, what is missing, under which licence
    python -m models.weights fetch                  # download what `full` needs into the cache, ~/.cache/masc/weights
    python -m models.weights fetch clip-vit-l-14    # or others; what was cut off goes on where it stopped
    python -m models.weights verify                 # sizes, SHA-256, and whether each file fits its network
Without network: fetch elsewhere, copy the cache folder, and name the copy: --weights-dir COPY, or MASC_WEIGHTS=COPY.
Where a folder is named, files are looked for there and nowhere else, and nothing is downloaded, by `fetch` neither.
HF_ENDPOINT names a mirror of huggingface.co. A `FILE.sha256` beside a file, as sha256sum writes it, is compared with the
file whenever that is located; downloads leave one. No code in a weights file is ever run.
Exit code: 0 all is well, 1 something is missing or wrong (each with the reason), 2 bad usage.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import sys
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import requests
from tqdm import tqdm

from models import expert_class
from models.tensors import PAGE, MissingWeightsError, WeightsError, sha256_of

TIMEOUT = (10, 60)  # s, to connect and between two pieces
WAITS = (1, 2, 4)  # s, before the second, third and fourth try where a connection broke midway
CHUNK = 1 << 16  # bytes
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclass(frozen=True)
class Weights:
    """One published file.

    file: its name here; page: what people read; sha256, size in bytes: None where not published; tower: of CLIP, as timm
    calls it.
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

    @property
    def expert(self) -> str:
        """Whose weights they are."""
        return "clip" if self.tower else self.name


def huggingface(repo: str, file: str) -> str:
    """Where `file` of a model repository is downloaded, at huggingface.co or the mirror that HF_ENDPOINT names now."""
    return f"{(os.environ.get('HF_ENDPOINT') or 'https://huggingface.co').rstrip('/')}/{repo}/resolve/main/{file}"


def _hub(name: str, repo: str, file: str, *terms: str) -> Weights:
    return Weights(name, file, huggingface(repo, file), f"https://huggingface.co/{repo}", *terms)


def clip_tower(name: str, tower: str, repo: str, *terms: str) -> Weights:
    """The image tower of a CLIP, in timm's own format. tower: timm's name. repo: the model repository."""
    url, page = huggingface(repo, "model.safetensors"), f"https://huggingface.co/{repo}"
    return Weights(name, f"{repo.rpartition('/')[2]}.safetensors", url, page, *terms, tower=tower)


# Licence, commercial use, training data.
FAIRFACE = (
    "data CC BY 4.0; research",
    "not stated for the weights",
    "FairFace (Karkkainen & Joo, WACV 2021)",
)
INSIGHTFACE = ("InsightFace, non-commercial research", "no", "WebFace600K")
VGGFACE2 = (
    "code MIT; weights on VGGFace2's terms (non-commercial research)",
    "no",
    "VGGFace2 (Cao et al., FG 2018)",
)
PYFEAT = (
    "research, non-commercial",
    "no",
    "research sets of faces, expressions and action units; see the page",
)
CLIP = (
    "MIT (OpenAI's code and weights), Apache-2.0 (timm's conversion)",
    "yes, but OpenAI's model card advises against deployment, and against face recognition, without testing",
    "400 million image-text pairs (WIT, not published)",
)
DRIVE_ID = "11y0Wi3YQf21a_VcspUV4FwqzhMcfaVAB"
DRIVE_URL = f"https://drive.usercontent.google.com/download?id={DRIVE_ID}&export=download&confirm=t"
DRIVE_PAGE = f"https://drive.google.com/file/d/{DRIVE_ID}/view"
FACENET, VGG_FILE = (
    "https://github.com/timesler/facenet-pytorch/releases",
    "20180402-114759-vggface2.pt",
)
VIT_B, VIT_L = "vit_base_patch32_clip{}_224.openai", "vit_large_patch14_clip{}_224.openai"
QUICK = "_quickgelu"  # the activation these towers were trained with; the repositories' names are without
_ROWS = (
    Weights("fairface", "res34_fair_align_multi_7_20190809.pt", DRIVE_URL, DRIVE_PAGE, *FAIRFACE),
    _hub("arcface", "py-feat/arcface_r50", "arcface_r50.safetensors", *INSIGHTFACE),
    Weights(
        "facenet",
        VGG_FILE,
        f"{FACENET}/download/v2.2.9/{VGG_FILE}",
        f"{FACENET}/tag/v2.2.9",
        *VGGFACE2,
    ),
    _hub("pyfeat", "py-feat/face_multitask_v2", "face_multitask_v28.safetensors", *PYFEAT),
    clip_tower("clip-vit-b-32", VIT_B.format(QUICK), "timm/" + VIT_B.format(""), *CLIP),
    clip_tower("clip-vit-l-14", VIT_L.format(QUICK), "timm/" + VIT_L.format(""), *CLIP),
)
WEIGHTS: dict[str, Weights] = {row.name: row for row in _ROWS}
UNUSUAL = ("clip-vit-l-14",)  # what the full profile does not ask for unless told to


def folder_for(weights_dir: Path | None) -> Path | None:
    """The folder that is named: `weights_dir`, else MASC_WEIGHTS, else None. Raises: FileNotFoundError: no such folder."""
    named = weights_dir or os.environ.get("MASC_WEIGHTS")
    folder = Path(named).expanduser() if named else None
    if folder and not folder.is_dir():
        origin = "--weights-dir" if weights_dir else "MASC_WEIGHTS"
        raise FileNotFoundError(
            f"{folder}: named by {origin}, but no such folder; make it, or name another"
        )
    return folder


def cache_folder() -> Path:
    """Where downloads go. Not made here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "masc" / "weights"


def locate(entry: Weights, weights_dir: Path | None = None) -> Path:
    """The file, checked: in the folder that is named (see `folder_for`), else in the cache, else downloaded into the cache.

    Raises: MissingWeightsError; WeightsError, see `check`; FileNotFoundError for a folder that does not exist.
    """
    folder = folder_for(weights_dir)
    path = (folder or cache_folder()) / entry.file
    if not path.is_file():
        if folder:
            raise _missing(entry, path, "nothing is downloaded where a folder is named")
        _download(entry, path)
    check(entry, path)
    return path


def check(entry: Weights, path: Path) -> None:
    """Compare with the entry's size and SHA-256 and with `<file>.sha256`, where known. Raises: WeightsError: differs."""
    note = path.with_name(f"{path.name}.sha256")
    known = {"published": entry.sha256}
    if note.is_file():
        words = note.read_text(encoding="utf-8", errors="replace").split()
        known[note.name] = _sha256_in(words[0]) if words else None
        if not known[note.name]:
            raise WeightsError(
                f"{note}: expected a line as sha256sum writes it; delete it or write it anew"
            )
    if wrong := _difference(path, entry.size, known):
        raise WeightsError(
            f"{path}: {wrong}; delete it (and {note.name}) and fetch it again, or see {entry.page}"
        )


def _difference(path: Path, size: int | None, known: dict[str, str | None]) -> str:
    """In words; empty where there is none. known: who says it -> SHA-256."""
    if size not in (None, path.stat().st_size):
        return f"{path.stat().st_size} bytes, expected {size}"
    found = sha256_of(path) if any(known.values()) else None
    wrong = [
        f"{digest} ({origin})" for origin, digest in known.items() if digest not in (None, found)
    ]
    return f"SHA-256 is {found}, expected {wrong[0]}" if wrong else ""


def _sha256_in(text: str) -> str | None:
    """Of a word or an ETag, quoted or not; None where it is something else."""
    text = text.strip('W/"').lower()
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def _missing(entry: Weights, path: Path, reason: str) -> MissingWeightsError:
    return MissingWeightsError(
        f"{path}: not there, and {reason}\n  source:  {entry.url}\n  page:    {entry.page}\n"
        f"  licence: {entry.licence}; commercial use: {entry.commercial}\n"
        f"  by hand: put the file into {path.parent} as {entry.file},\n"
        "           or into a folder of your own that --weights-dir or MASC_WEIGHTS names"
    )


def _download(entry: Weights, path: Path) -> None:
    """Download to `<file>.partial`, check, note the SHA-256, rename; others that want to, wait. Raises: as `locate`."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_file():
                return
            print(
                f"{entry.file}: from {entry.url} into {path.parent} ({entry.licence})",
                file=sys.stderr,
            )
            published, begun = _receive_all(entry, partial)
            if wrong := _difference(
                partial, entry.size, {"in our table": entry.sha256, "by its source": published}
            ):
                partial.unlink()
                also = ", and so was the part that an earlier download had left" if begun else ""
                cure = f"it was discarded{also}; fetch it again, or see {entry.page}"
                raise WeightsError(f"{path}: from {entry.url} came something else: {wrong}; {cure}")
            path.with_name(f"{path.name}.sha256").write_text(
                f"{sha256_of(partial)}  {path.name}\n", encoding="utf-8"
            )
            partial.replace(path)
    except OSError as error:
        reason = (
            f"no connection, or it broke ({type(error).__name__})"
            if isinstance(error, BROKEN)
            else error
        )
        kept = partial.stat().st_size if partial.is_file() else 0
        more = f"; {kept} bytes are kept, and the next try goes on from there" if kept else ""
        raise _missing(entry, path, f"it could not be downloaded: {reason}{more}") from error


def _receive_all(entry: Weights, partial: Path) -> tuple[str | None, bool]:
    """`_receive`, resumed where the connection breaks midway."""
    for wait in WAITS:
        try:
            return _receive(entry, partial)
        except BROKEN:
            if not partial.exists():
                raise
            time.sleep(wait)
    return _receive(entry, partial)


def _receive(entry: Weights, partial: Path) -> tuple[str | None, bool]:
    """Append to `partial` what it lacks; what came is kept whatever happens. Raises: OSError, as requests' exceptions are.

    Returns: the SHA-256 of the whole that the source publishes, and whether a part had been there.
    """
    offset = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with requests.get(entry.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status, answered = response.status_code, response.headers
        begins = answered.get("Content-Range", "").startswith(f"bytes {offset}-")
        if offset and (status == 416 or (status == 206 and not begins)):
            partial.unlink()  # longer than the file, or not continued: begin anew
            return _receive(entry, partial)
        if status not in (200, 206):
            raise OSError(f"HTTP {status} {response.reason}")
        offset = offset if status == 206 else 0
        chunks = response.iter_content(CHUNK)
        first = next(chunks, b"")
        if "text/html" in answered.get("Content-Type", "").lower() or (
            not offset and PAGE.match(first)
        ):
            raise OSError("a web page came instead of the file (a quota, or something to confirm?)")
        published, size = (
            None,
            offset + int(answered.get("Content-Length", -offset)),
        )  # 0: not known
        for each in (
            *response.history,
            response,
        ):  # Hugging Face says it where it redirects to its storage
            published = published or _sha256_in(each.headers.get("X-Linked-ETag", ""))
            size = int(each.headers.get("X-Linked-Size", size))
        bar = tqdm(
            total=size or None,
            initial=offset,
            desc=entry.file,
            unit="B",
            unit_scale=True,
            disable=None,
        )
        with partial.open("ab" if offset else "wb") as file, bar:
            for chunk in chain([first], chunks):
                bar.update(file.write(chunk))
            file.flush()
            os.fsync(file.fileno())
    if partial.stat().st_size < size:
        raise requests.ConnectionError(f"ended after {partial.stat().st_size} of {size} bytes")
    return published, offset > 0


def verify(entry: Weights, path: Path) -> str:
    """That the file at `path` is there, is `entry`'s, can be read, and fits the network it is for. Returns: its SHA-256.

    Raises: as `locate`.
    """
    if not path.is_file():
        raise _missing(entry, path, "nothing is downloaded to verify it; `fetch` does that")
    check(entry, path)
    expert_class(entry.expert)(path, **({"tower": entry.tower} if entry.tower else {}))
    return sha256_of(path)


def main(arguments: list[str]) -> int:
    """Do what the command line says. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.prog = "python -m models.weights"
    parser.add_argument("verb", choices=("list", "fetch", "verify"))
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(WEIGHTS)} (default: all but the last)"
    )
    parser.add_argument(
        "--weights-dir",
        type=Path,
        metavar="DIR",
        help="a folder of your own (default: MASC_WEIGHTS)",
    )
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.names if name not in WEIGHTS]:
        parser.error(f"unknown name {', '.join(unknown)}; the names are {', '.join(WEIGHTS)}")
    try:
        folder = folder_for(args.weights_dir)
    except FileNotFoundError as error:
        parser.error(str(error))
    failed = []
    usual = [name for name in WEIGHTS if args.verb == "list" or name not in UNUSUAL]
    for entry in [WEIGHTS[name] for name in args.names or usual]:
        path = (folder or cache_folder()) / entry.file
        try:
            if args.verb == "list":
                text = f"{'there' if path.is_file() else 'missing'}: {path}"
                for what in ("licence", "commercial", "trained_on", "page"):
                    text += f"\n{'':14} {what.replace('_', ' '):10}  {getattr(entry, what)}"
            else:
                text = (
                    locate(entry, folder)
                    if args.verb == "fetch"
                    else f"{verify(entry, path)}  {path}"
                )
            print(f"{entry.name:14} {text}")
        except (OSError, ValueError) as error:
            failed.append(entry.name)
            print(f"{entry.name}: {error}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} missing or wrong: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
