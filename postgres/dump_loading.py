"""Load a dump into a new database: at once, or in steps if rows or single objects are rejected."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from postgres import pg_server, remains, replaced_code, restore_errors, search_path
from tools.base import removal
from tools.base.errors import BackupError, StoreError
from tools.flow import process, stream
from tools.flow.facts import PostgresFacts

_PROVIDERS = {"i": "ICU", "b": "BUILTIN"}  # pg_database.datlocprovider; "c" needs no option
_NO_TABLESPACE = re.compile(r'(?:tablespace|"default_tablespace":) "(.*?)"')
_LIST_SIZE = 1 << 20  # bytes of a dump that are read for its list first
# Kinds of entries that can be restored again as a whole.
RETRYABLE = ("INDEX ", "CONSTRAINT ", "CHECK CONSTRAINT ", "MATERIALIZED VIEW DATA ", "COMMENT ")
_KEYS = ("INDEX ", "CONSTRAINT ")  # what a foreign key needs on the referenced table
_FOREIGN = "FK CONSTRAINT "
_LINE = re.compile(r"(\d+); \d+ \d+ (.*)")  # of the list of a dump


@dataclass(frozen=True)
class Dump:
    """A stored dump.

    facts: of its manifest: properties of the database, version of pg_dump
    again: returns its bytes from the beginning
    head:  file with its beginning: the list and every definition, but not all rows
    """

    facts: PostgresFacts
    again: Callable[[], Iterator[bytes]]
    head: Path

    @property
    def search_path(self) -> str:
        """Return the search_path of sessions in the source."""
        return self.facts.search_path or search_path.DEFAULT


@contextlib.contextmanager
def open_dump(
    target: pg_server.PostgresConnection,
    facts: PostgresFacts,
    again: Callable[[], Iterator[bytes]],
) -> Iterator[Dump]:
    """Write the beginning of a dump to a private file, from which pg_restore reads definitions."""
    with removal.private(Path(tempfile.gettempdir()), "nc-dump-") as folder:
        head = folder / "head"
        _write_head(target, head, again)
        yield Dump(facts, again, head)


def _write_head(
    target: pg_server.PostgresConnection, head: Path, again: Callable[[], Iterator[bytes]]
) -> None:
    """Write as much of a dump as its list needs; all of it if pg_restore cannot read a list."""
    size, limit = 0, _LIST_SIZE
    with head.open("wb", buffering=0) as file, stream.closed(again()) as chunks:
        for chunk in chunks:
            size += file.write(chunk)
            if size >= limit:
                limit *= 4
                with contextlib.suppress(BackupError):
                    list_entries(target, head)
                    return


def list_entries(target: pg_server.PostgresConnection, head: Path, *options: str) -> list[str]:
    """Return the list of a dump (pg_restore --list). Raises BackupError if it is incomplete."""
    command = [target.programs.sibling("pg_restore"), "--list", *options, str(head)]
    out = b"".join(process.output(command, env=target.environment(), failure=StoreError))
    return out.decode("utf-8", "replace").split("\n")


@dataclass
class LoadResult:
    """The result of a load: what was left out or changed.

    remaining: entries of the dump that must be restored last; note: for the message
    """

    left_out: restore_errors.RestoreErrors
    warnings: tuple[str, ...] = ()
    remaining: tuple[str, ...] = ()
    note: str = ""


# Loads a dump into a database, with these options of pg_restore.
Load = Callable[[pg_server.PostgresConnection, str, Dump, Sequence[str]], LoadResult]


def load_database(
    target: pg_server.PostgresConnection,
    name: str,
    dump: Dump,
    *,
    tablespaces: bool,
    ways: tuple[Load, Load] | None = None,
) -> LoadResult:
    """Create the database `name` and load the dump into it.

    If a tablespace is missing, it is loaded without tablespaces. If rows are rejected, it is
    loaded again without CHECK constraints, which are added when all rows are loaded. Raises
    StoreError; the database is not dropped then. ways: how to load it, with CHECK constraints
    and without
    """
    warnings: tuple[str, ...] = ()
    load, lenient = ways or (_load_at_once, _load_in_steps)
    while True:
        target.sql(f"DROP DATABASE IF EXISTS {pg_server.quote_identifier(name)}")
        options = [] if tablespaces else ["--no-tablespaces"]
        try:
            _create(target, name, dump.facts, tablespaces=tablespaces)
            result = load(target, name, dump, options)
        except BackupError as error:
            missing = missing_tablespace(error)
            if tablespaces and missing:
                tablespaces = False
                warnings = (
                    f"tablespace {missing} does not exist: everything is in the default tablespace",
                )
            elif isinstance(error, restore_errors.RowsError) and load is not lenient:
                load = lenient
            elif not isinstance(error, restore_errors.BlockedError):
                raise
        else:
            return dataclasses.replace(result, warnings=(*warnings, *result.warnings))


def missing_tablespace(error: BackupError) -> str:
    """Return the name of the tablespace that is missing; "" if that is not the error."""
    match = _NO_TABLESPACE.search(error.hint)
    return match[1] if match else ""


def _create(
    target: pg_server.PostgresConnection, name: str, facts: PostgresFacts, *, tablespaces: bool
) -> None:
    """Create the database with its properties in the source."""
    keywords = {"encoding": "ENCODING", "collate": "LC_COLLATE", "ctype": "LC_CTYPE"}
    if facts.provider in _PROVIDERS:
        provider = _PROVIDERS[facts.provider]
        keywords |= {"locale": f"LOCALE_PROVIDER {provider} {provider}_LOCALE"}
        keywords |= {"icu_rules": "ICU_RULES"}
    texts = ((word, getattr(facts, key).replace("'", "''")) for key, word in keywords.items())
    clauses = "".join(f" {word} '{text}'" for word, text in texts if text)
    if facts.tablespace and tablespaces:
        clauses += f" TABLESPACE {pg_server.quote_identifier(facts.tablespace)}"
    remains.create_database(target, name, f"TEMPLATE template0{clauses}")
    quoted = pg_server.quote_identifier(name)
    target.sql(f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC")  # until it is complete


def _load_at_once(
    target: pg_server.PostgresConnection, name: str, dump: Dump, options: Sequence[str]
) -> LoadResult:
    """Load the whole dump; then retry failed objects in another way."""
    with stream.closed(dump.again()) as chunks:
        errors = run_pg_restore(target, name, chunks, *options, made_by=dump.facts.tool)
    result = LoadResult(errors)
    if errors.left_out:
        add_foreign_keys(target, name, dump, result)
        retry_failed(target, name, dump, result)
    return result


def _load_in_steps(
    target: pg_server.PostgresConnection, name: str, dump: Dump, options: Sequence[str]
) -> LoadResult:
    """Load tables, then rows without CHECK constraints, then those and the rest.

    Functions use the search_path of the source meanwhile.
    """
    errors = restore_errors.RestoreErrors()
    run_pg_restore(
        target, name, None, *options, "--section=pre-data", str(dump.head), errors=errors
    )
    with search_path.lenient_functions(target, name, dump.search_path) as lenient:
        lenient.drop_checks()
        with stream.closed(dump.again()) as chunks:
            run_pg_restore(target, name, chunks, *options, "--section=data", errors=errors)
        result = LoadResult(errors, lenient.add_checks())
        run_pg_restore(
            target, name, None, *options, "--section=post-data", str(dump.head), errors=errors
        )
        add_foreign_keys(target, name, dump, result)
    if errors.left_out:
        retry_failed(target, name, dump, result)
    return result


def run_pg_restore(
    target: pg_server.PostgresConnection,
    name: str,
    chunks: Iterator[bytes] | None,
    *options: str,
    errors: restore_errors.RestoreErrors | None = None,
    made_by: str = "",
    selected: Collection[str] | None = None,
) -> restore_errors.RestoreErrors:
    """Run pg_restore on a database; its errors are added to `errors`. Raises StoreError.

    selected: the entries that the options select; None for any
    """
    program = target.programs.sibling("pg_restore")
    database_option = f"--dbname={pg_server.conninfo(name)}"
    step = restore_errors.RestoreErrors(selected)
    try:
        stream.drained(
            process.output(
                [
                    program,
                    "--verbose",
                    *options,
                    *target.arguments(),
                    database_option,
                ],  # it names entries then
                stdin_data=b"" if chunks is None else step.guard(chunks),
                allowed=step.completed,
                notice=step.take,
                env=target.environment(),
                failure=StoreError,
            )
        )
        step.raise_on_data_loss()
    except StoreError as error:
        if restore_errors.UNSUPPORTED in error.hint:
            raise _too_old_error(target, program, made_by) from None
        raise
    if errors is None:
        return step
    errors.left_out += step.left_out
    return errors


def _too_old_error(target: pg_server.PostgresConnection, program: str, made_by: str) -> StoreError:
    """Return the error for a pg_restore that does not support the format of the dump."""
    version = pg_server.tool_version(target, program)
    major = pg_server.major_version(made_by)
    required = f"version {major} or later" if major else "the version that made the dump"
    return StoreError(
        f"{program}: {version} is older than the dump{f' ({made_by})' if made_by else ''}",
        f"Install the PostgreSQL client programs of {required}, and set PSQLDUMP of the section to "
        "them, or put their folder first in PATH.",
    )


# --- objects that failed


def retry_failed(
    target: pg_server.PostgresConnection,
    name: str,
    dump: Dump,
    result: LoadResult,
    retryable: tuple[str, ...] = RETRYABLE,
    skipped: Collection[str] = (),
) -> None:
    """Restore failed objects again, with functions that use the search_path of the source.

    skipped: entries that are not restored again.

    Objects that succeed then are still warnings, because plain pg_restore cannot create them.
    """
    failed = result.left_out.left_out
    if not failed:
        return
    labels = entry_labels(target, dump)
    retried = [
        one
        for one in failed
        if labels.get(one.entry, "").startswith(retryable) and one.entry not in skipped
    ]
    if not retried:
        return
    try:
        with search_path.lenient_functions(target, name, dump.search_path):
            second = restore_entries(target, name, dump, {one.entry for one in retried})
    except BackupError as error:
        result.warnings += (f"failed objects could not be retried: {error.hint or error}",)
        return
    still = {one.entry for one in second.left_out}
    for one in retried:
        if one.entry not in still:
            failed.remove(one)
            if not labels[one.entry].startswith("COMMENT "):
                line = f"{one.reason}: {one.command} (created with the search_path of the source)"
                result.warnings += (line,)


def restore_entries(
    target: pg_server.PostgresConnection, name: str, dump: Dump, selected: Collection[str]
) -> restore_errors.RestoreErrors:
    """Restore single entries of a dump in its order; return their errors."""
    entries = [entry for entry in entry_labels(target, dump) if entry in selected]
    return restore_list(target, name, dump, entries)


def entry_labels(target: pg_server.PostgresConnection, dump: Dump) -> dict[str, str]:
    """Return the number and label of each entry of a dump, in its order.

    An error has only a part of the label, and it may be forged by a name or message of the dump.
    """
    matches = map(_LINE.match, list_entries(target, dump.head))
    return {match[1]: match[2] for match in matches if match}


def restore_list(
    target: pg_server.PostgresConnection,
    name: str,
    dump: Dump,
    selected: Collection[str],
    *options: str,
    chunks: Iterator[bytes] | None = None,
) -> restore_errors.RestoreErrors:
    """Restore entries of a dump in this order; return their errors. chunks: its bytes"""
    list_file = dump.head.with_name(f"list-{uuid.uuid4().hex[:8]}")
    list_file.write_text("".join(f"{one};\n" for one in selected), encoding="ascii")
    source = () if chunks is not None else (str(dump.head),)
    options = (*options, f"--use-list={list_file}", *source)
    return run_pg_restore(target, name, chunks, *options, selected=selected)


def add_foreign_keys(
    target: pg_server.PostgresConnection, name: str, dump: Dump, result: LoadResult
) -> None:
    """Add foreign keys that rows violate as NOT VALID: they apply to new rows.

    They are created in an empty database first, so that the server returns their definitions.
    """
    failed = result.left_out.left_out
    if not failed:
        return
    labels = entry_labels(target, dump)
    failed_keys = {one.entry for one in failed if labels.get(one.entry, "").startswith(_FOREIGN)}
    if not failed_keys:
        return
    scratch = f"{remains.KEYS}_{uuid.uuid4().hex[:12]}"
    try:
        _create(target, scratch, dump.facts, tablespaces=False)
        with contextlib.suppress(StoreError), replaced_code.replaced(target, scratch):
            run_pg_restore(
                target, scratch, None, "--no-tablespaces", "--section=pre-data", str(dump.head)
            )
            keys = {entry for entry, label in labels.items() if label.startswith(_KEYS)}
            restore_entries(target, scratch, dump, keys | failed_keys)
        for owner_table, table, key, definition in _definitions(target, scratch):
            _add_not_valid(target, name, result, (owner_table, table, key, definition))
    finally:
        target.sql(f"DROP DATABASE IF EXISTS {pg_server.quote_identifier(scratch)}")


def _definitions(target: pg_server.PostgresConnection, database: str) -> list[list[str]]:
    """Return each foreign key of a database: table with and without schema, name, definition."""
    columns = ("conrelid::regclass", "relname", "conname", "pg_get_constraintdef(c.oid)")
    rows = target.sql(
        "SET search_path = ''",
        f"SELECT {', '.join(map(pg_server.hex_expression, columns))} FROM pg_constraint c "
        "JOIN pg_class r ON r.oid = conrelid WHERE contype = 'f' AND conparentid = 0",
        database=database,
        columns=len(columns),
    )
    return [[pg_server.decode_hex(word) for word in row] for row in rows]


def _add_not_valid(
    target: pg_server.PostgresConnection, name: str, result: LoadResult, key: Sequence[str]
) -> None:
    """Add one foreign key as NOT VALID, with a warning; if that fails, it stays left out."""
    owner_table, table, key_name, definition = key
    key_identifier = pg_server.quote_identifier(key_name)
    statement = f"ALTER TABLE {owner_table} ADD CONSTRAINT {key_identifier} {definition}"
    failed = result.left_out.left_out
    about = f"{_FOREIGN}{table} {key_name} "
    one = next((one for one in failed if one.entry_label.startswith(about)), None)
    if one is None:
        return
    with contextlib.suppress(BackupError):
        target.sql(f"{statement} NOT VALID", database=name)
        failed.remove(one)
        result.warnings += (
            f"{one.reason}: foreign key {key_name} of {owner_table} is now NOT VALID",
        )
