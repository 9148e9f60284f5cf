"""Reading a run card and its changes from the command line, with errors in one line."""

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from tda_jax import heap, hosts, places
from tda_jax.errors import InputError
from tda_jax.places import Place

_COMPILED_AFTER = 0.2  # seconds of compiling from which a program is kept


def start(
    main: Callable[[Any], Any],
    card: str,
    short: Mapping[str, str] = MappingProxyType({}),
    buckets: Collection[str] = (),
) -> None:
    """Runs an entry point on a card; an error is one line and status 1.

    Args:
        main: called with the card, a ConfigDict.
        card: the card's file where the flag `--config` names no other.
        short: flags that stand for settings: {"workdir": "config.workdir"} reads `--workdir=DIR`
            and `--workdir DIR` as `--config.workdir`.
        buckets: settings that may be a URL; it is refused for others.
    """
    heap.few_arenas()
    sys.argv = [sys.argv[0], *(_spelled_out(arg, short) for arg in sys.argv[1:])]
    with _known_settings(sys.argv):
        config = config_flags.DEFINE_config_file("config", card)

    def parse(argv: Sequence[str]) -> list[str]:
        with _known_settings(argv):
            return app.parse_flags_with_usage(list(argv))

    def body(argv: Sequence[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # of libraries: bars and results suffice
        if len(argv) > 1:
            raise SystemExit(
                f"error: unknown arguments {argv[1:]}; settings are given as --config.name=value"
            )
        try:
            _refuse_urls(config.value, buckets)
            main(config.value)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            hosts.leave(1)

    app.run(body, flags_parser=parse)


def _spelled_out(arg: str, short: Mapping[str, str]) -> str:
    """An argument, with the setting's own name in place of a short flag."""
    found = re.fullmatch(r"--?([\w-]+)(=.*)?", arg, re.DOTALL)
    if found is None or found[1] not in short:
        return arg
    return f"--{short[found[1]]}{found[2] or ''}"


def refuse_keys(config: ConfigDict, wanted: ConfigDict, card: str) -> None:
    """Refuses a card that lacks a setting, or has one that nothing reads.

    Args:
        config: as it was given.
        wanted: the card with its defaults; what is an empty mapping there may hold anything.
        card: where it stands, for the message.

    Raises:
        InputError: names the setting.
    """
    where, given = f"{card} has each setting with its default", _names(config, wanted)
    known = _names(wanted, wanted)
    if missing := sorted(known - given):
        raise InputError(f"the card has no setting {missing[0]!r}; {where}")
    if unknown := sorted(given - known):
        raise InputError(f"the card has a setting {unknown[0]!r} that nothing reads; {where}")


def _refuse_urls(config: ConfigDict, buckets: Collection[str] = (), path: str = "") -> None:
    """A URL that is taken for a folder would make one of that name, here."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            _refuse_urls(value, buckets, f"{path}{name}.")
        if f"{path}{name}" in buckets:
            continue
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and places.is_url(text):
                raise InputError(
                    f"{path}{name} = {text!r} is a URL, and is to be a folder; copy the bucket, "
                    "or, for what is only read, give the folder that it is mounted at"
                )


def _names(config: ConfigDict, wanted: ConfigDict, path: str = "") -> set[str]:
    """The settings of a card by their full names."""
    found: set[str] = set()
    for name in config:
        below = wanted.get(name) if isinstance(wanted, ConfigDict) else None
        nested = isinstance(below, ConfigDict) and len(below) > 0
        if nested and isinstance(config[name], ConfigDict):
            found |= _names(config[name], below, f"{path}{name}.")
        else:
            found.add(f"{path}{name}")
    return found


def keep_compiled(folder: Place) -> None:
    """Keeps compiled programs in a folder, so that a second run has not to compile them.

    Of a bucket nothing is kept: JAX would need another library to reach it.
    """
    if places.is_url(folder):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _COMPILED_AFTER)


def hosts_of(config: ConfigDict) -> hosts.Hosts:
    """Joins the other processes that a card's `hosts` names, before any other use of JAX.

    Raises:
        InputError: see `hosts.join`.
    """
    own = config.hosts
    return hosts.join(own.coordinator, own.count, own.index)


def warn(message: str) -> None:
    """Says on stderr what may be wrong."""
    print(f"warning: {message}", file=sys.stderr)


@contextmanager
def _known_settings(argv: Sequence[str]) -> Iterator[None]:
    """Says in one line which setting on the command line the card lacks, or that it is no file."""
    try:
        yield
    except AttributeError as error:  # how config_flags refuses a setting
        words = str(error).replace("\\n", " ").replace("\\", "")  # a message quoted in a message
        name, *more = re.findall(r"['\"]([\w.]+)['\"]", words) or [""]
        given = [arg for arg in argv if re.match(rf"--?(no)?config\.([\w.]+\.)?{name}(=|$)", arg)]
        if not name or not given:
            raise
        near = f"did you mean {more[0]!r}?" if more else "the card's file lists them all"
        raise SystemExit(f"error: {given[0]}: the card has no setting {name!r}; {near}") from error
    except OSError as error:
        reason = " ".join(str(error).split())
        raise SystemExit(f"error: the card cannot be read: {reason}; mend --config=FILE") from error
