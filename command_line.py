"""One way from a dataclass to a command line, for all scripts.

The fields of a script's `Config` are its options, and the texts below the fields are their help.
`data_root: Path` becomes `--data-root` (`--data_root` is understood too), a `bool` is a switch, a
`tuple` takes several values. So an option is spelled the same in every script.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar, get_args, get_type_hints

import tyro
from tqdm import tqdm

from data.names import for_screen

FULL = 1  # the exit code where memory or a disk is full
BAD_INPUT = 2  # ... of a mistake in the command, or of input that cannot be used
BY_SIGNAL = 128  # plus the number of the signal that ended it: 130 for Ctrl-C, as shells say it
MOMENT = 5  # seconds in which Ctrl-C again says nothing new
Config = TypeVar("Config")


class Stopped(KeyboardInterrupt):
    """A signal that asks a program to end. What works for Ctrl-C works for it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _BesideProgressBars(logging.Handler):
    """To standard error, above a progress bar that may be there; each message on one line."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        with suppress(OSError):  # nobody reads it, or its disk is full: the work goes on
            tqdm.write(level + for_screen(record.getMessage()), file=sys.stderr)


def set_up_logging(level: int = logging.INFO) -> None:
    """Show what the scripts log on standard error; results go to standard output."""
    logging.basicConfig(level=logging.WARNING, handlers=[_BesideProgressBars()], force=True)
    logging.getLogger("masc").setLevel(level)


def _with_short_help(config: type[Config]) -> type[Config]:
    """The same options, without "{None}|" and "(default: None)" in their help."""
    options = {}
    for name, hint in get_type_hints(config, include_extras=True).items():
        if any(getattr(config, name, 0) is empty for empty in (None, False, (), "")):
            kind, *more = get_args(hint) or (None,)
            metavar = kind.__name__.upper() if more == [type(None)] and type(kind) is type else None
            options[name] = Annotated[hint, tyro.conf.arg(help_behavior_hint="", metavar=metavar)]
    defaults = {name: getattr(config, name) for name in options}
    defaults |= {"__annotations__": options, "__post_init__": lambda self: None}  # checked by `run`
    made = type(config.__name__, (config,), defaults)
    return dataclass(frozen=config.__dataclass_params__.frozen)(made)


def run(
    main: Callable[[Config], int | Path | None],
    config: type[Config],
    description: str | None,
    arguments: Sequence[str] | None = None,
    name: str | None = None,
    stopped: str = "",
) -> int:
    """Fill `config` from the command line and call `main` with it.

    Args:
        main: does the work; returns an exit code, or anything else for success.
        config: a dataclass.
        description: shown by --help; the script's docstring.
        arguments: instead of those of the process.
        name: of the command, instead of the script's.
        stopped: what to say after Ctrl-C or SIGTERM.

    Returns:
        The exit code. Without a traceback, and but for a closed pipe with one line that says why:
        `FULL` for memory and disks, `BAD_INPUT` for any other OSError or ValueError of `main`,
        `BY_SIGNAL` and its number for Ctrl-C, SIGTERM, and a reader of the output that left.
    """
    name = name or Path(sys.argv[0]).name
    set_up_logging()
    _open_screen()
    try:
        filled = tyro.cli(
            _with_short_help(config),
            prog=name,
            description=description,
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        options = {field.name: getattr(filled, field.name) for field in fields(config)}
        with _signals_raise(), warnings.catch_warnings():
            if not sys.warnoptions:  # those of libraries; ours are logged
                warnings.simplefilter("ignore")
            result = main(config(**options))
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt as error:
        code, text = BY_SIGNAL + getattr(error, "number", signal.SIGINT), f"stopped. {stopped}"
    except (OSError, ValueError, MemoryError, RuntimeError) as error:
        code, text = _code_and_words(error)
        if code is None:
            raise
    finally:
        _close_screen()
    if text:
        with suppress(OSError):  # nobody reads standard error either
            lines = map(for_screen, text.strip().split("\n"))
            print(f"{name}: " + "\n  | ".join(lines), file=sys.stderr)
    return code


def _code_and_words(error: Exception) -> tuple[int | None, str]:
    """The exit code, and what to print; None for an error that is a fault of ours."""
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return BY_SIGNAL + signal.SIGPIPE, ""
    if isinstance(error, OSError):
        named = error.filename and for_screen(os.fsdecode(error.filename))
        text = f"{named}: {error.strerror}" if named else str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return FULL if full or error.errno == errno.ENOMEM else BAD_INPUT, text
    if isinstance(error, ValueError):
        return BAD_INPUT, str(error)
    from models.base import out_of_memory  # late: it imports torch

    return FULL if out_of_memory(error) else None, f"not enough memory: {error}"


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and a closed terminal raise `Stopped`; a signal that is ignored (nohup) stays so."""
    process = os.getpid()

    def stop(number: int, _: object) -> NoReturn:
        if os.getpid() != process:  # a forked child ends at once
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Stopped(number)

    stopped = []

    def interrupt(*_: object) -> None:
        # Another one within moments would abort the process while threads end their work.
        if not stopped or time.monotonic() - stopped[-1] > MOMENT:
            stopped.append(time.monotonic())
            raise KeyboardInterrupt

    def swallowed(found: sys.UnraisableHookArgs) -> None:
        """A signal in the middle of a destructor, where no error gets out, comes once more."""
        if isinstance(found.exc_value, KeyboardInterrupt):
            stopped.clear()
            number = getattr(found.exc_value, "number", signal.SIGINT)
            again = threading.Timer(0.01, os.kill, (process, number))
            again.daemon = True
            again.start()
        else:
            hook(found)

    before, hook = {}, sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
        sys.unraisablehook = swallowed
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            ends = stopped and number == signal.SIGINT  # the process ends
            signal.signal(number, signal.SIG_IGN if ends else handler)


def _open_screen() -> None:
    """What the screen's encoding lacks is escaped; a stream that the caller closed goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        if isinstance(getattr(sys, name), TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _close_screen() -> None:
    """What cannot be written is dropped here: Python would complain when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _nobody_reads() -> bool:
    """Whether the reader of standard output has left: `command | head`."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
