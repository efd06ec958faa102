"""Statements that the server builds itself: a constant template, and the arguments of format().

No name or value stands in SQL text. All arguments go to the server as one JSON text in hexadecimal,
and a constant DO block executes format(template, arguments) for each statement in a subtransaction
of its own: one that fails undoes nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from postgres import pg_server
from postgres.server_facts import Label

# Set by name only, so that nothing of the session changes what the constant block means.
_SESSION = """SET search_path = pg_catalog, pg_temp;
SET client_min_messages = warning;
SET standard_conforming_strings = on;
SET statement_timeout = 0;
"""
_DATA = """DO $$ BEGIN PERFORM set_config('nc_backup.statements',
  convert_from(decode('{0}', 'hex'), CASE current_setting('server_encoding')
    WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END), false);
END $$;
"""
# The second element holds the arguments; the third, if any, the role that executes the statement.
_RUN = """DO $$ DECLARE one record; usual text := current_setting('role'); BEGIN
  FOR one IN SELECT number - 1 AS number, value->>0 AS template, value->1 AS arguments,
      value->>2 AS role
      FROM jsonb_array_elements(current_setting('nc_backup.statements')::jsonb)
      WITH ORDINALITY AS s(value, number) ORDER BY number LOOP
    BEGIN
      IF one.role <> '' THEN
        EXECUTE format('SET LOCAL ROLE %I', one.role);
      END IF;
      EXECUTE format(one.template, VARIADIC ARRAY(SELECT a.value
        FROM jsonb_array_elements_text(one.arguments) WITH ORDINALITY AS a(value, n) ORDER BY n));
      PERFORM set_config('role', usual, true);
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'nc-backup-py % %', one.number,
        encode(CASE current_setting('server_encoding')
          WHEN 'SQL_ASCII' THEN textsend(left(SQLERRM, 1000))
          ELSE convert_to(left(SQLERRM, 1000), 'UTF8') END, 'hex');
    END;
  END LOOP;
END $$;
"""
_MESSAGE = re.compile(r"nc-backup-py ([0-9]+) ((?:[0-9a-f]{2})*)$")
_FIELD = re.compile(r"%[IL]")
_SIMPLE = re.compile(r"[a-z_][a-z0-9_]*")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Statement:
    """A statement. template: a constant with %I for names and %L for values; role: who runs it"""

    template: str
    arguments: tuple[str, ...]
    role: str = ""

    def describe(self) -> str:
        """Return it for a message, up to its first value: that may be a password."""
        names = iter(self.arguments)
        shown = self.template.partition("%L")[0]
        return _FIELD.sub(lambda _match: shown_name(next(names)), shown).rstrip()


@dataclass(frozen=True)
class Failure:
    """A statement that the server rejected, and the reason."""

    statement: Statement
    reason: str

    def line(self) -> str:
        """Return the warning."""
        return f"{self.reason}: {self.statement.describe()}"


def shown_name(name: str) -> str:
    """Return a name as messages show it, quoted if it needs quotes."""
    return name if _SIMPLE.fullmatch(name) else pg_server.quote_identifier(name)


def descriptions(
    kind: str, name: str, comment: str | None, labels: Iterable[Label]
) -> Iterator[Statement]:
    """Yield the statements for comment and security labels. kind: ROLE, DATABASE, TABLESPACE"""
    if comment is not None:
        yield Statement(f"COMMENT ON {kind} %I IS %L", (name, comment))
    for one in labels:
        template = f"SECURITY LABEL FOR %I ON {kind} %I IS %L"
        yield Statement(template, (one.provider, name, one.label))


def run(target: pg_server.PostgresConnection, statements: Sequence[Statement]) -> list[Failure]:
    """Run the statements one by one; return those that failed. Raises StoreError."""
    if not statements:
        return []
    ascii_server = target.row("SHOW server_encoding") == ["SQL_ASCII"]
    texts = [json.dumps([s.template, s.arguments, s.role], ensure_ascii=False) for s in statements]
    bad = {n for n, text in enumerate(texts) if _NOT_UTF8.search(text) and not ascii_server}
    sent = [n for n in range(len(texts)) if n not in bad]
    content = "[" + ",".join(texts[n] for n in sent) + "]"
    reasons = dict.fromkeys(bad, "a name is not valid UTF-8")
    hexadecimal = content.encode("utf-8", "surrogateescape").hex()
    messages = target.script(_SESSION + _DATA.replace("{0}", hexadecimal) + _RUN)
    reasons |= {sent[number]: reason for number, reason in _messages(messages)}
    return [Failure(statements[number], reasons[number]) for number in sorted(reasons)]


def run_in_any_order(
    target: pg_server.PostgresConnection, statements: Sequence[Statement]
) -> list[Failure]:
    """Run statements that may need each other; return those that failed at last."""
    failures = run(target, statements)
    while failures and len(failures) < len(statements):
        statements = [one.statement for one in failures]
        failures = run(target, statements)
    return failures


def run_block(target: pg_server.PostgresConnection, block: str) -> list[str]:
    """Run a constant block of SQL; return the messages that it raised as statements do."""
    return [reason for _number, reason in _messages(target.script(_SESSION + block))]


def _messages(lines: Iterable[str]) -> list[tuple[int, str]]:
    matches = filter(None, map(_MESSAGE.search, lines))
    return [(int(one[1]), pg_server.decode_hex(one[2])) for one in matches]
