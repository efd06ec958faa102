"""The modules that come with the house, and what each is in the flow of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.base import project
from tools.modules import loader

MODULES = {
    "filesbackup/filesbackup.py": "source",
    "mysql_backup/mysql_dump.py": "source",
    "mysql_backup/mysql_xtrabackup.py": "source",
    "postgres/postgres.py": "source",
    "postgres/base.py": "source",
    "mongo/mongo.py": "source",
    "sqlite/sqlite.py": "source",
    "redis/redis.py": "source",
    "openldap/openldap.py": "source",
    "compression/compression.py": "stage",
    "encryption/encryption.py": "stage",
    "storage/storage.py": "store",
    "restore/drill.py": "check",
    "tools/size_calculation.py": "check",
    "qa/qa.py": "check",
}


def named(file: Path) -> str:
    """How a file of the house is called ("storage/storage.py"), links followed; "" for others."""
    real = file.resolve()
    return str(real.relative_to(project.ROOT)) if real.is_relative_to(project.ROOT) else ""


def kind(file: Path) -> str:
    """What a file is: source, stage, store or check; "" for a module of the user's own."""
    return MODULES.get(named(file), "")


def declaration(file: Path) -> type[Any]:
    """The Options of a built-in module."""
    return loader.declared(file).Options


# What undoes a stage of a manifest, by its name there.
_STAGES = {
    "zstd": "compression/compression.py",
    "gzip": "compression/compression.py",
    "xz": "compression/compression.py",
    "age": "encryption/encryption.py",
    "openssl": "encryption/encryption.py",
}


def undoes(stage: str) -> str:
    """The module that has the inverse of a stage; "" for a filter of the user's own."""
    return _STAGES.get(stage, "")


def steady(kind: str) -> bool:
    """Whether the size of one run says something of the next one's."""
    return kind not in ("mysql-binlogs", "mysql-physical")


# Every kind of item that a source of the house, or one of the user's own, gives.
KINDS = frozenset(
    (
        *("fileset", "file", "sqlite", "redis", "openldap", "mongo"),
        *("mysql", "mysql-users", "mysql-binlogs", "mysql-physical"),
        *("postgres", "postgres-roles", "postgres-base"),
    )
)


def comes_first(kind: str) -> bool:
    """Whether a restore needs this kind before the others: databases belong to roles and users."""
    return kind in ("mysql-users", "postgres-roles")


# What restores items into a server, by their kind in the manifest: its `into`.
_SERVERS = {
    "mysql": "mysql_backup/mysql_dump.py",
    "mysql-users": "mysql_backup/mysql_dump.py",
    "postgres": "postgres/postgres.py",
    "postgres-roles": "postgres/postgres.py",
    "mongo": "mongo/mongo.py",
}


def restores(kind: str) -> str:
    """The module that restores a kind of item into a server; "" where none does."""
    return _SERVERS.get(kind, "")


# What lays out items in a folder of their own, by their kind: its `laid_out`.
_FOLDERS = {
    "mysql-physical": "mysql_backup/mysql_xtrabackup.py",
    "postgres-base": "postgres/base.py",
}


def lays_out(kind: str) -> str:
    """The module that makes a folder of a kind of item; "" for one that is a file or a fileset."""
    return _FOLDERS.get(kind, "")
