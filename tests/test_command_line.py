"""From a dataclass to a command line: spelling, help, exit codes, and what is printed where."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from command_line import BAD_INPUT, FULL, Stopped, run


@dataclass(frozen=True)
class Toy:
    data_root: Path
    """Folder of the dataset."""
    drop: tuple[str, ...] = ()
    """Groups to leave out."""
    limit: int | None = None
    """Only so many."""
    fpr: float = 0.05
    """Of the threshold."""
    one_class: bool = False
    """Real faces only."""

    def __post_init__(self) -> None:
        if not 0 < self.fpr < 1:
            raise ValueError(f"--fpr lies between 0 and 1 (given: {self.fpr})")


def toy(*arguments, main=lambda config: None) -> int:
    return run(main, Toy, "Does it.", arguments, "toy.py")


@pytest.mark.parametrize("option", ["--data-root", "--data_root"])
def test_options_fill_the_dataclass(option):
    found = []
    more = ("--drop", "a", "b", "--one-class", "--limit", "3")
    assert toy(option, "faces", *more, main=found.append) == 0
    assert found == [Toy(Path("faces"), ("a", "b"), 3, 0.05, True)]


def test_help_shows_texts_and_only_defaults_that_say_something(capsys):
    with pytest.raises(SystemExit) as stopped:
        toy("--help")
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and "Does it." in text and "Groups to leave out." in text
    assert "--limit INT" in text and "--data-root PATH" in text and "(default: 0.05)" in text
    assert "None" not in text and "(default: )" not in text and "False" not in text


@pytest.mark.parametrize("arguments", [(), ("--data-root", "x", "--limt", "3"), ("--data-root",)])
def test_a_mistake_in_the_command_is_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        toy(*arguments)
    assert stopped.value.code == BAD_INPUT and capsys.readouterr().err


def test_errors_of_the_user_are_one_line(capsys):
    def refuse(config: Toy) -> None:
        raise FileNotFoundError(f"{config.data_root}: no such folder")

    assert toy("--data-root", "gone", main=refuse) == BAD_INPUT
    assert capsys.readouterr().err == "toy.py: gone: no such folder\n"
    assert toy("--data-root", "x", "--fpr", "2") == BAD_INPUT
    assert capsys.readouterr().err == "toy.py: --fpr lies between 0 and 1 (given: 2.0)\n"


def test_other_errors_are_not_hidden():
    def broken(config: Toy) -> None:
        raise KeyError("a fault of ours")

    with pytest.raises(KeyError):
        toy("--data-root", "x", main=broken)


def test_exit_codes_of_main_are_kept_and_progress_goes_to_standard_error(capsys):
    def main(config: Toy) -> int:
        logging.getLogger("masc").info("half way")
        logging.getLogger("masc").warning("few faces")
        print("result")
        return 3

    assert toy("--data-root", "x", main=main) == 3
    assert toy("--data-root", "x", main=lambda config: config.data_root) == 0
    assert capsys.readouterr() == ("result\n", "half way\nwarning: few faces\n")


@pytest.mark.parametrize(
    "error, code",
    [
        (KeyboardInterrupt(), 130),
        (Stopped(signal.SIGTERM), 143),
        (OSError(errno.ENOSPC, "No space left on device", "a\nb.csv"), FULL),
        (OSError(errno.EROFS, "Read-only file system", "a.csv"), BAD_INPUT),
        (MemoryError(), FULL),
        (RuntimeError("CUDA out of memory"), FULL),
        (ValueError("a\x1b[31m"), BAD_INPUT),
    ],
)
def test_every_end_has_a_code_and_one_line(error, code, capsys):
    def ends(config: Toy) -> None:
        raise error

    assert toy("--data-root", "x", main=ends) == code
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and printed.startswith("toy.py: ") and "\x1b" not in printed


@pytest.mark.parametrize("shell, code", [("| head -1", 141), ("> /dev/full", 1), (">&-", 0)])
def test_a_screen_that_is_gone_leaves_no_traceback(shell, code):
    """Neither while it works nor when Python ends."""
    script = (
        "import sys; from dataclasses import make_dataclass; from command_line import run;"
        "sys.exit(run(lambda _: [print('x' * 99) for _ in range(9999)] and 0, "
        "make_dataclass('C', []), '', [], 'toy'))"
    )
    command = f"set -o pipefail; '{sys.executable}' -c \"$0\" {shell} >&2"
    command = command if "|" in shell else command.replace(" >&2", "")
    done = subprocess.run(["bash", "-c", command, script], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_sigterm_is_told_like_ctrl_c(capsys):
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        end = lambda config: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        assert toy("--data-root", "x", main=end) == 143
        assert capsys.readouterr().err == "toy.py: stopped.\n"
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


CTRL_C_TWICE = """
import os, signal, sys, threading
from dataclasses import make_dataclass
from command_line import run

def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)

def main(_):
    try:
        ctrl_c()
    finally:
        ctrl_c()
        print("tidied", flush=True)

class Late:
    def __del__(self):  # while Python ends
        ctrl_c()

late = Late()
code = run(main, make_dataclass("C", []), "", [], "toy")
ctrl_c()
threading._register_atexit(ctrl_c)
sys.exit(code)
"""


def test_ctrl_c_again_does_not_disturb_the_stop():
    """Neither the tidying up, nor the end of Python with its threads."""
    done = subprocess.run([sys.executable, "-c", CTRL_C_TWICE], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "tidied\n", "toy: stopped.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_destructor_is_not_lost(number):
    """Python prints and forgets what is raised there, as while a card is drawn."""
    script = (
        "import os, sys, time; from dataclasses import make_dataclass; from command_line import run\n"
        "class Gone:\n"
        f"    def __del__(self): os.kill(os.getpid(), {number:d})\n"
        "def main(_):\n    gone = Gone(); del gone; time.sleep(60)\n"
        "sys.exit(run(main, make_dataclass('C', []), '', [], 'toy'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + number, "toy: stopped.\n")


def test_other_errors_in_destructors_are_told_as_before(capsys, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Gone:
        def __del__(self):
            raise KeyError

    def main(config: Toy) -> None:
        Gone()

    assert toy("--data-root", "x", main=main) == 0
    assert [found.exc_type for found in told] == [KeyError]
