"""One way from a dataclass to a command line, for all scripts.

The fields of a script's `Config` are its options, and the texts below the fields are their help.
`data_root: Path` becomes `--data-root` (`--data_root` is understood too), a `bool` is a switch, a
`tuple` takes several values. So an option is spelled the same in every script.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, TypeVar, get_args, get_type_hints

import tyro
from tqdm import tqdm

BAD_INPUT = 2  # the exit code of a mistake in the command, or of input that cannot be used
Config = TypeVar("Config")


class _BesideProgressBars(logging.Handler):
    """To standard error, above a progress bar that may be there."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        tqdm.write(level + record.getMessage(), file=sys.stderr)


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
) -> int:
    """Fill `config` from the command line and call `main` with it.

    Args:
        main: does the work; returns an exit code, or anything else for success.
        config: a dataclass.
        description: shown by --help; the script's docstring.
        arguments: instead of those of the process.
        name: of the command, instead of the script's.

    Returns:
        The exit code; `BAD_INPUT` where `main` raises an OSError or a ValueError, whose text is
        printed without a traceback.
    """
    name = name or Path(sys.argv[0]).name
    set_up_logging()
    filled = tyro.cli(
        _with_short_help(config),
        prog=name,
        description=description,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    options = {field.name: getattr(filled, field.name) for field in fields(config)}
    try:
        result = main(config(**options))
    except (OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return BAD_INPUT
    return result if isinstance(result, int) else 0
