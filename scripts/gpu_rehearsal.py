"""The visit of scripts/gpu_visit.py on a CPU, tiny, as on a bare machine: what is missing there?

    python -m scripts.gpu_rehearsal                              # all experts; some minutes
    python -m scripts.gpu_rehearsal --experts lite traces facenet

Runs in an environment that holds only the packages of a bare PyTorch machine (links to those
installed here), what `python -m scripts.gpu_pack` packed and this repository, without network.
Fails where a step has an error, other than that it needs CUDA, or has no row.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import Distribution, distributions
from pathlib import Path

import preprocessing_pipeline as pipeline
from benchmarks.gpu.pictures import draw_all
from benchmarks.gpu.worker import read_rows
from scripts.gpu_pack import BARE, NATIVE, ROOT, pack, tops
from scripts.gpu_report import errors
from training import pack_faces

SECONDS = 1500
FACES = 16  # drawn to train on; half of them are real
# No network in any process of the environment: only sockets of this machine connect.
SITECUSTOMIZE = """
import socket

def refused(*arguments, **more):
    raise OSError("no network in a rehearsal")

class Socket(socket.socket):
    def connect(self, address):
        return super().connect(address) if self.family == socket.AF_UNIX else refused()

    connect_ex = connect

socket.socket, socket.getaddrinfo = Socket, refused
"""


def bare_packages() -> list[Distribution]:
    """Those of `BARE`, and what they need here: other versions may need other packages."""
    found = {canonical(each.metadata["Name"]): each for each in distributions()}
    names = [name for name in found if name in BARE or name.startswith(NATIVE)]
    for name in names:  # grows meanwhile
        for need in found[name].requires or ():
            other = canonical(re.match(r"[\w.-]+", need)[0])
            if "extra ==" not in need and other in found and other not in names:
                names.append(other)
    return [found[name] for name in names]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def bare_environment(folder: Path) -> Path:
    """Make one. Returns: its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for found in bare_packages():
        for top in tops(found):
            if not (site / top.name).exists():
                (site / top.name).symlink_to(top)
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    return folder / "bin" / "python"


def training_faces(folder: Path) -> Path:
    """A few faces, packed as for a visit."""
    draw_all(folder / "drawn", FACES, 1)
    shutil.rmtree(folder / "drawn" / "fake")
    where = {"data_root": folder / "drawn", "out": folder / "dump"}
    dump = pipeline.main(pipeline.Config(**where, experts=("lite",), device="cpu"))
    pack_faces.pack(pack_faces.Config(features=(dump,), out=folder / "faces.zip"))
    return folder / "faces.zip"


def without_network() -> list[str]:
    """A prefix that takes a process off the network, where this user may."""
    command = ["unshare", "-n"]
    try:
        able = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        able = False
    return command if able else []


def rehearse(out: Path, experts: list[str], carried: Path) -> int:
    """Pack, and visit. Returns the visit's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        pack(carried, training_faces(Path(folder)))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "OUT", "MASC"))}
    clean["OMP_NUM_THREADS"] = "1"  # beside other work, threads on tiny sizes wait for each other
    with tempfile.TemporaryDirectory() as folder:
        python = bare_environment(Path(folder) / "bare")
        command = [*without_network(), str(python), "-m", "scripts.gpu_visit", "--device", "cpu"]
        command += ["--small", "--out", str(out), "--carried", str(carried)]
        command += ["--seconds", str(SECONDS)]
        command += ["--experts", *experts] if experts else []
        home = {"HOME": folder, "XDG_CACHE_HOME": f"{folder}/cache"}  # nothing fetched before
        return subprocess.run(command, cwd=ROOT, env=clean | home, check=False).returncode


def wrong(rows: list[dict], steps: list[str]) -> list[str]:
    """What a rehearsal must not show: failures, and steps without a row."""
    seen = {row["step"] for row in rows}
    late = [row["step"] for row in rows if row.get("skipped") == "no time left"]
    return (
        errors(rows)
        + [f"{step}: no time left" for step in late]
        + [f"{step}: no row" for step in steps if step not in seen]
    )


def planned() -> list[str]:
    """The names of all steps."""
    from benchmarks.gpu.plan import STEPS

    return [*(step.name for step in STEPS), "tests", "train", "end"]


def main(out: Path, experts: list[str]) -> int:
    code = rehearse(out, experts, out / "carry")
    found = wrong(read_rows(out / "visit.json"), planned())
    if code or found:
        print(f"\nThe rehearsal failed, exit code {code}:", *found, sep="\n  ")
        return 1
    print("\nThe rehearsal went well: nothing is missing on a bare machine.")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "gpu" / "rehearsal")
    parser.add_argument("--experts", nargs="*", default=[], help="some instead of all")
    options = parser.parse_args()
    sys.exit(main(options.out.resolve(), options.experts))
