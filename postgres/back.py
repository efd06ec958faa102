"""A dump back into a server: under another name first, and renamed when all of it is there."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping

from postgres import cluster, load, properties
from tools.base.errors import BackupError, ConfigError
from tools.base.result import Result, Status
from tools.date_str_utils import count


def database(
    target: cluster.Cluster,
    name: str,
    facts: Mapping[str, str],
    again: Callable[[], Iterator[bytes]],
    *,
    overwrite: bool,
    tablespaces: bool,
) -> Result:
    """Load a dump into the database `name`, its tables into their tablespaces where wanted.

    It is loaded into a new one with a name of its own and counted there, then renamed; the old
    one is dropped last, when the new one takes connections. On any failure nothing is left, and
    what was there is as it was. What the server rejects is left out and named; rows never are.
    Raises StoreError, ConfigError.
    """
    target = cluster.elsewhere(target, name)  # nobody may be in it when it is renamed
    there = cluster.exists(target, name)
    if there and not overwrite and not cluster.is_empty(target, name):
        raise ConfigError(
            f"database {name} is not empty",
            "Choose another name with --to-database, or use --overwrite to replace the whole "
            "database.",
        )
    new, old = (f"nc_{word}_{uuid.uuid4().hex[:12]}" for word in ("new", "old"))
    with load.opened(target, facts, again) as dump, _dropped_on_error(target, new):
        loaded = load.loaded(target, new, dump, tablespaces=tablespaces)
        number, rows = cluster.counts(target, new)
        with _swapped(target, name, new, old if there else ""):
            warnings = (*loaded.warnings, *loaded.left_out.warnings())
            warnings += properties.owned(target, name, facts)
            warnings += properties.applied(target, name, dump.head)
    if there:
        warnings += _dropped(target, old)
    return Result(
        Status.INCOMPLETE if warnings else Status.OK,
        f"database {name}: {count(number, 'table')}, {count(rows, 'row')}",
        loaded.left_out.hint(),
        items=1,
        bytes=int(facts.get("size", "0")),
        warnings=warnings,
    )


@contextlib.contextmanager
def _dropped_on_error(target: cluster.Cluster, name: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(BackupError):
            _drop(target, name)
        raise


@contextlib.contextmanager
def _swapped(target: cluster.Cluster, name: str, new: str, old: str) -> Iterator[None]:
    """The new database gets the name, and what had it another; on an exception they swap back."""
    if old:
        target.sql(_renamed(name, old))
    try:
        target.sql(_renamed(new, name))
        try:
            yield
        except BaseException:
            target.sql(_renamed(name, new))
            raise
    except BaseException:
        if old:
            target.sql(_renamed(old, name))
        raise


def _renamed(name: str, to: str) -> str:
    return f"ALTER DATABASE {cluster.identifier(name)} RENAME TO {cluster.identifier(to)}"


def _dropped(target: cluster.Cluster, old: str) -> tuple[str, ...]:
    """Drop what was overwritten; a warning where it stays."""
    try:
        _drop(target, old)
    except BackupError as error:
        return (f"the replaced database was not dropped, it is {old}: {error.hint or error}",)
    return ()


def _drop(target: cluster.Cluster, name: str) -> None:
    """Drop a database, a template too, if it is there."""
    if cluster.exists(target, name):
        with contextlib.suppress(BackupError):  # only an owner may; DROP then says why not
            target.sql(f"ALTER DATABASE {cluster.identifier(name)} IS_TEMPLATE false")
    target.sql(f"DROP DATABASE IF EXISTS {cluster.identifier(name)}")
