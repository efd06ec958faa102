"""SQL is read as the client reads it: strings, comments, DELIMITER and sql_mode decide."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mysql_backup import statements
from tests.mysql_backup.test_mysql_dump import configure, to
from tests.servers import MariaDB
from tests.system import System

D = "DELIMITER ;;\n"
PLAIN = "SET sql_mode = 'NO_BACKSLASH_ESCAPES'"
ANSI = 'SET sql_mode="ANSI_QUOTES"'
SIZES = (1, 2, 3, 5, 64, 1 << 20)


def split(text: str) -> list[str]:
    """The statements of a text, the same for chunks of all sizes."""
    data = text.encode()
    readings = set()
    for size in SIZES:
        complete, part = [], b""
        pieces = list(
            statements.Reader().read(data[i : i + size] for i in range(0, len(data), size))
        )
        assert b"".join(one.whole for one in pieces) == data
        for piece in pieces:
            part += piece.text
            if piece.delimiter:
                complete.append(part.decode().strip())
                part = b""
        readings.add((*complete, part.decode().strip()))
    (one,) = readings
    return list(one[:-1]) if not one[-1] else list(one)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a; b;", ["a", "b"]),
        ("a 'x;''y\\';' b; c", ["a 'x;''y\\';' b", "c"]),
        ('a ";" `;\\`; b', ['a ";" `;\\`', "b"]),
        ("a -- ; '\nb; c", ["a -- ; '\nb", "c"]),
        ("a --; b", ["a --", "b"]),
        ("a # ; '\n; b", ["a # ; '", "b"]),
        ("a /* ; ' */ b; c", ["a /* ; ' */ b", "c"]),
        ("/*!50003 a ';' */ ; /*M!100100 b */;", ["/*!50003 a ';' */", "/*M!100100 b */"]),
        ("a 5/2 - 1-1; b", ["a 5/2 - 1-1", "b"]),
        (f"{D}a; b ';;'\n;;\nDELIMITER ;\nc;", [f"{D}a; b ';;'", "DELIMITER ;\nc"]),
        ("a '\n-- Final view structure\n'; b", ["a '\n-- Final view structure\n'", "b"]),
        (f"{PLAIN}; a 'x\\'; b", [PLAIN, "a 'x\\'", "b"]),
        (f'{ANSI}; a "x\\"; b', [ANSI, 'a "x\\"', "b"]),
    ],
)
def test_where_statements_end(text: str, expected: list[str]) -> None:
    """Issue 11 B: SQL is never cut by text search."""
    assert [one.replace("\n\n", "\n") for one in split(text)] == expected


def test_sql_mode_is_given_back() -> None:
    text = "SET @saved = @@sql_mode; SET sql_mode = 'NO_BACKSLASH_ESCAPES'; a '\\'; "
    text += "SET sql_mode = @saved; b '\\';'; c"
    assert split(text)[-2:] == ["b '\\';'", "c"]


def test_rows_come_in_pieces() -> None:
    row = b"INSERT INTO `t` VALUES ('" + b"x;\\'" * 100 + b"');"
    pieces = list(statements.Reader().read(row[at : at + 50] for at in range(0, len(row), 50)))
    assert len(pieces) > 5
    assert [one.first for one in pieces[:2]] == [True, False]
    assert all(one.is_data for one in pieces)
    assert pieces[-1].size == len(row) - 1


BODY = """\
CREATE DATABASE hon;
USE hon;
CREATE TABLE t (i INT); INSERT INTO t VALUES (1);
CREATE VIEW v AS SELECT i FROM t;
DELIMITER ;;
CREATE PROCEDURE p() BEGIN /* note
-- Final view structure for view `zz`
/*!50001 CREATE ALGORITHM=UNDEFINED
*/ SELECT 'DELIMITER //', "
DELIMITER ;
/*!50001 VIEW `v` AS select 2"; END;;
SET sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES';;
CREATE PROCEDURE q() BEGIN SELECT 'c:\\', ';', "i" FROM t; -- it's
SELECT 2; END;;
CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW BEGIN
# don't
SET NEW.i = NEW.i + 1; END;;
DELIMITER ;
"""


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a routine with lines like those of a dump", "it comes back as it was")
def test_bodies_that_look_like_dumps(system: System, server: MariaDB, tmp_path: Path) -> None:
    """Issue 11 B (views.py:28): a line of a body is no marker of the dump."""
    client = [
        "mariadb",
        "--no-defaults",
        "-S",
        f"{server.folder}/socket",
        "-uroot",
        "--binary-mode",
    ]
    subprocess.run(client, input=BODY.encode(), check=True)
    query = "SELECT routine_name, routine_definition, sql_mode FROM information_schema.routines "
    query += "WHERE routine_schema = 'hon' ORDER BY 1; SELECT action_statement, sql_mode FROM "
    query += "information_schema.triggers WHERE trigger_schema = 'hon'; SHOW CREATE VIEW hon.v"
    before = server.sql(query)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql("DROP DATABASE hon")
    system.restore("--restore", "latest", "--item", "hon", *to(server))
    assert server.sql(query) == before
