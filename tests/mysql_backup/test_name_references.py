"""What of a dump still names the old database, when it goes into one of another name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mysql_backup import mysql_server, name_references, statements

TRIGGER_PREFIX = "/*!50003 CREATE*/ /*!50017 DEFINER=`shop`@`localhost`*/ /*!50003 TRIGGER"


def refused_lines(lines: Sequence[str], old: str = "shop") -> tuple[str, ...]:
    data = "".join(f"{line};\n" for line in lines).encode()
    outcomes: set[tuple[str, ...]] = set()
    for size in (1, 3, 1 << 20):
        outcomes.add(
            name_references.find_references(
                statements.Reader().read(data[at : at + size] for at in range(0, len(data), size)),
                old,
            )
        )
    (one,) = outcomes
    return one


@pytest.mark.parametrize(
    "line",
    [
        "CREATE TABLE `shop` (`id` int);",
        "INSERT INTO `t` VALUES ('shop.t'),('`shop`.`t`');",
        "-- Dumping data for shop.t",
        f"{TRIGGER_PREFIX} g AFTER INSERT ON t FOR EACH ROW SET @shop=1 */;;",
        "DEFINER=`shop`@`localhost`",
        "SELECT * FROM workshop.t",
        "SELECT * FROM shop_two.t",
        "COMMENT 'a shop. And a stop'",
    ],
)
def test_what_does_not_name_it(line: str) -> None:
    assert refused_lines([line, "", line]) == ()


@pytest.mark.parametrize(
    "line",
    [
        "SELECT * FROM shop.t",
        "SELECT * FROM `shop`.`t`",
        "SELECT * FROM SHOP.t",
        f"{TRIGGER_PREFIX} g AFTER INSERT ON t FOR EACH ROW INSERT INTO shop.log VALUES (1) */;;",
    ],
)
def test_what_names_it(line: str) -> None:
    (problem,) = refused_lines(["first", line, "last"])
    assert problem.startswith(f"still refers to database shop: {line[:100]}")


@pytest.mark.parametrize(
    "lines",
    [
        [f"{TRIGGER_PREFIX} shop.g AFTER INSERT ON t FOR EACH ROW SET @a=1"],
        [f"{TRIGGER_PREFIX} g AFTER INSERT\nON `Shop` . t\nFOR EACH\nROW SET @a=1"],
        [f"{TRIGGER_PREFIX} g AFTER INSERT ON /* a */ shop/* b */.t FOR EACH ROW SET @a=1"],
    ],
)
def test_a_trigger_that_would_be_made_there(lines: Sequence[str]) -> None:
    with pytest.raises(mysql_server.WouldOverwriteError, match="a trigger refers to database shop"):
        refused_lines(lines)


def test_many_are_counted() -> None:
    assert refused_lines(["SELECT 1 FROM shop.t"] * 9)[-1] == "4 more statements refer to shop"


def test_odd_names() -> None:
    assert refused_lines(["SELECT * FROM `a``b$`.t"], "a`b$")
    assert not refused_lines(["SELECT * FROM `a``b$c`.t"], "a`b$")


def test_a_table_takes_sequences_of_the_new_database() -> None:
    """Issue 11 B (DEFAULT NEXTVAL): what SHOW CREATE TABLE names in full is the table's own."""
    definition = "CREATE TABLE `shop` (`shop` int DEFAULT nextval(`shop`.`s`) COMMENT '`shop`.`s`')"
    (statement, *_) = statements.Reader().read([f"{definition};".encode()])
    expected = definition.replace("nextval(`shop`.", "nextval(`b``k`.")
    assert name_references.rename_references(statement, "shop", "b`k") == expected.encode()
