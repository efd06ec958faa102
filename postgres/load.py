"""A dump into a new database: at once, or in steps where rows or single objects are rejected."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from postgres import cluster, paths, refused
from tools.base.errors import BackupError, StoreError
from tools.flow import process, stream

_PROVIDERS = {"i": "ICU", "b": "BUILTIN"}  # pg_database.datlocprovider; "c" is the old way
_NO_TABLESPACE = re.compile(r'(?:tablespace|"default_tablespace":) "(.*?)"')
_LISTED = 1 << 20  # bytes of a dump in which its list is looked for first
# Kinds of entries whose second try does not repeat a part that succeeded.
_WHOLE_KINDS = ("INDEX ", "CONSTRAINT ", "CHECK CONSTRAINT ", "MATERIALIZED VIEW DATA ", "COMMENT ")
_KEYS = ("INDEX", "CONSTRAINT")  # what a foreign key needs of the table that it refers to
_FOREIGN = "FK CONSTRAINT "
_LINE = re.compile(r"(\d+); \d+ \d+ ([A-Z]+)")  # of the list of a dump


@dataclass(frozen=True)
class Dump:
    """A stored dump.

    facts: of its manifest: how the database was made, which program dumped it
    again: its bytes, anew from the beginning
    head:  a file with its beginning: the list and every definition, though not all rows
    """

    facts: Mapping[str, str]
    again: Callable[[], Iterator[bytes]]
    head: Path

    @property
    def search_path(self) -> str:
        """What sessions in the source had."""
        return self.facts.get("search_path", paths.USUAL)


@contextlib.contextmanager
def opened(
    target: cluster.Cluster, facts: Mapping[str, str], again: Callable[[], Iterator[bytes]]
) -> Iterator[Dump]:
    """Read the beginning of a dump into a private file: pg_restore takes all but rows from it."""
    with tempfile.TemporaryDirectory(prefix="nc-dump-") as folder:
        head = Path(folder, "head")
        _write_head(target, head, again)
        yield Dump(facts, again, head)


def _write_head(target: cluster.Cluster, head: Path, again: Callable[[], Iterator[bytes]]) -> None:
    """Write as much of a dump as its list needs; all of it where pg_restore reads no list."""
    size, wanted = 0, _LISTED
    with head.open("wb", buffering=0) as file, stream.closed(again()) as chunks:
        for chunk in chunks:
            size += file.write(chunk)
            if size >= wanted:
                wanted *= 4
                with contextlib.suppress(BackupError):
                    listed(target, head)
                    return


def listed(target: cluster.Cluster, head: Path) -> list[str]:
    """The list of a dump (pg_restore --list). Raises BackupError where it is not whole."""
    words = [target.programs.beside("pg_restore"), "--list", str(head)]
    out = b"".join(process.output(words, env=target.environment(), failure=StoreError))
    return out.decode("utf-8", "replace").split("\n")


@dataclass
class Loaded:
    """What came of a load: what was left out, and what is not as it was."""

    left_out: refused.Refused
    warnings: tuple[str, ...] = ()


def loaded(target: cluster.Cluster, name: str, dump: Dump, *, tablespaces: bool) -> Loaded:
    """Make the database `name` and load the dump into it. Raises StoreError, and leaves it there.

    Where a tablespace is missing, it is loaded without tablespaces. Where rows are rejected, it
    is loaded once more without CHECK constraints, which are put back when all rows are there.
    """
    warnings: tuple[str, ...] = ()
    load = _at_once
    while True:
        target.sql(f"DROP DATABASE IF EXISTS {cluster.identifier(name)}")
        more = [] if tablespaces else ["--no-tablespaces"]
        try:
            _create(target, name, dump.facts, tablespaces=tablespaces)
            done = load(target, name, dump, more)
        except BackupError as error:
            missing = _NO_TABLESPACE.search(error.hint)
            if tablespaces and missing:
                tablespaces = False
                warnings = (
                    f"tablespace {missing[1]} does not exist: everything is in the default "
                    "tablespace",
                )
            elif isinstance(error, refused.RowsError) and load is _at_once:
                load = _in_steps
            else:
                raise
        else:
            return dataclasses.replace(done, warnings=(*warnings, *done.warnings))


def _create(
    target: cluster.Cluster, name: str, facts: Mapping[str, str], *, tablespaces: bool
) -> None:
    """Make the database as it was made in the source."""
    words = {"encoding": "ENCODING", "collate": "LC_COLLATE", "ctype": "LC_CTYPE"}
    if facts.get("provider") in _PROVIDERS:
        provider = _PROVIDERS[facts["provider"]]
        words |= {"locale": f"LOCALE_PROVIDER {provider} {provider}_LOCALE"}
        words |= {"icu_rules": "ICU_RULES"}
    texts = ((word, facts.get(key, "").replace("'", "''")) for key, word in words.items())
    made = "".join(f" {word} '{text}'" for word, text in texts if text)
    if facts.get("tablespace") and tablespaces:
        made += f" TABLESPACE {cluster.identifier(facts['tablespace'])}"
    target.sql(f"CREATE DATABASE {cluster.identifier(name)} TEMPLATE template0{made}")


def _at_once(target: cluster.Cluster, name: str, dump: Dump, more: Sequence[str]) -> Loaded:
    """Load all of it; then try again what failed and may succeed in another way."""
    with stream.closed(dump.again()) as chunks:
        said = restored(target, name, chunks, *more, made_by=dump.facts.get("tool", ""))
    done = Loaded(said)
    if said.left_out:
        _foreign_keys(target, name, dump, done)
        _second_try(target, name, dump, done)
    return done


def _in_steps(target: cluster.Cluster, name: str, dump: Dump, more: Sequence[str]) -> Loaded:
    """Load tables, then rows without CHECK constraints, then those and the rest.

    Functions find their tables by the search_path of the source meanwhile.
    """
    said = refused.Refused()
    restored(target, name, None, *more, "--section=pre-data", str(dump.head), said=said)
    with paths.lenient(target, name, dump.search_path) as lenient:
        lenient.without_checks()
        with stream.closed(dump.again()) as chunks:
            restored(target, name, chunks, *more, "--section=data", said=said)
        done = Loaded(said, lenient.with_checks())
        restored(target, name, None, *more, "--section=post-data", str(dump.head), said=said)
        _foreign_keys(target, name, dump, done)
    if said.left_out:
        _second_try(target, name, dump, done)
    return done


def restored(
    target: cluster.Cluster,
    name: str,
    chunks: Iterator[bytes] | None,
    *words: str,
    said: refused.Refused | None = None,
    made_by: str = "",
) -> refused.Refused:
    """Run pg_restore into a database; what it reports is added to `said`. Raises StoreError."""
    program = target.programs.beside("pg_restore")
    where = f"--dbname={cluster.conninfo(name)}"
    step = refused.Refused()
    try:
        stream.drained(
            process.output(
                [program, "--verbose", *words, *target.words(), where],  # it names entries then
                given=b"" if chunks is None else step.watched(chunks),
                allowed=step.went_on,
                notice=step.take,
                env=target.environment(),
                failure=StoreError,
            )
        )
        step.judge()
    except StoreError as error:
        if refused.UNSUPPORTED in error.hint:
            raise _too_old(target, program, made_by) from None
        raise
    if said is None:
        return step
    said.left_out += step.left_out
    return said


def _too_old(target: cluster.Cluster, program: str, made_by: str) -> StoreError:
    """The error for a pg_restore that does not know the format of the dump."""
    own = cluster.version(target, program)
    major = cluster.major(made_by)
    wanted = f"version {major} or later" if major else "the version that made the dump"
    return StoreError(
        f"{program}: {own} is older than the dump{f' ({made_by})' if made_by else ''}",
        f"Install the PostgreSQL client programs of {wanted}, and set PSQLDUMP of the section to "
        "them, or put their folder first in PATH.",
    )


# --- what failed, in another way


def _second_try(target: cluster.Cluster, name: str, dump: Dump, done: Loaded) -> None:
    """Make what failed once more, with functions that find their tables by search_path.

    What is made then is named all the same: it depends on a search_path, and no plain
    pg_restore would make it.
    """
    failed = done.left_out.left_out
    wanted = [one for one in failed if one.entry and one.about.startswith(_WHOLE_KINDS)]
    if not wanted:
        return
    try:
        with paths.lenient(target, name, dump.search_path):
            second = _entries(target, name, dump, {one.entry for one in wanted})
    except BackupError as error:
        done.warnings += (f"failed objects could not be retried: {error.hint or error}",)
        return
    still = {one.entry for one in second.left_out}
    for one in wanted:
        if one.entry not in still:
            failed.remove(one)
            if not one.about.startswith("COMMENT "):
                line = f"{one.why}: {one.command} (created with the search_path of the source)"
                done.warnings += (line,)


def _entries(
    target: cluster.Cluster, name: str, dump: Dump, wanted: Collection[str]
) -> refused.Refused:
    """Restore single entries of a dump, in its order; their errors are in what is returned."""
    chosen = dump.head.with_name(f"list-{uuid.uuid4().hex[:8]}")
    found = (one[1] for one in map(_LINE.match, listed(target, dump.head)) if one)
    chosen.write_text("".join(f"{one};\n" for one in found if one in wanted), encoding="ascii")
    return restored(target, name, None, f"--use-list={chosen}", str(dump.head))


def _foreign_keys(target: cluster.Cluster, name: str, dump: Dump, done: Loaded) -> None:
    """Make foreign keys that rows violate, NOT VALID: they hold for new rows.

    The server itself writes their definitions: they are made in an empty database first.
    """
    failed = done.left_out.left_out
    wanted = {one.entry for one in failed if one.about.startswith(_FOREIGN)}
    if not wanted:
        return
    scratch = f"nc_keys_{uuid.uuid4().hex[:12]}"
    try:
        _create(target, scratch, dump.facts, tablespaces=False)
        with contextlib.suppress(StoreError):
            restored(
                target, scratch, None, "--no-tablespaces", "--section=pre-data", str(dump.head)
            )
            keys = [found for found in map(_LINE.match, listed(target, dump.head)) if found]
            _entries(target, scratch, dump, {f[1] for f in keys if f[2] in _KEYS} | wanted)
        for holder, table, key, definition in _definitions(target, scratch):
            _not_valid(target, name, done, (holder, table, key, definition))
    finally:
        target.sql(f"DROP DATABASE IF EXISTS {cluster.identifier(scratch)}")


def _definitions(target: cluster.Cluster, database: str) -> list[list[str]]:
    """Each foreign key of a database: its table (with schema, and without), name, definition."""
    columns = ("conrelid::regclass", "relname", "conname", "pg_get_constraintdef(c.oid)")
    rows = target.sql(
        "SET search_path = ''",
        f"SELECT {', '.join(map(cluster.hexed, columns))} FROM pg_constraint c "
        "JOIN pg_class r ON r.oid = conrelid WHERE contype = 'f' AND conparentid = 0",
        database=database,
        columns=len(columns),
    )
    return [[cluster.text(word) for word in row] for row in rows]


def _not_valid(target: cluster.Cluster, name: str, done: Loaded, key: Sequence[str]) -> None:
    """Make one foreign key NOT VALID, and say so; where that fails too, it stays left out."""
    holder, table, called, definition = key
    statement = f"ALTER TABLE {holder} ADD CONSTRAINT {cluster.identifier(called)} {definition}"
    failed = done.left_out.left_out
    about = f"{_FOREIGN}{table} {called} "
    one = next((one for one in failed if one.about.startswith(about)), None)
    if one is None:
        return
    with contextlib.suppress(BackupError):
        target.sql(f"{statement} NOT VALID", database=name)
        failed.remove(one)
        done.warnings += (f"{one.why}: foreign key {called} of {holder} is now NOT VALID",)
