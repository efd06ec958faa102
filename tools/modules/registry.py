"""The built-in modules: one row each says what the rest of the program knows of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.base import project
from tools.base.real_path import resolved
from tools.flow.facts import (
    BaseBackupFacts,
    BinlogFacts,
    Facts,
    FileFacts,
    FilesetFacts,
    MongoFacts,
    MysqlFacts,
    MysqlServerFacts,
    OpenldapFacts,
    PhysicalFacts,
    PostgresFacts,
    PostgresServerFacts,
    RedisFacts,
    SqliteFacts,
)
from tools.modules import loader
from tools.modules.options import Declaration

PLAIN = "file"  # the kind of what is restored as a file, whatever it holds


# Ends the name of the file with the private key, beside a key file that holds only recipients.
IDENTITY = ".identity"


@dataclass(frozen=True)
class Kind:
    """A kind of item.

    load:    the command of the recovery sheet that loads it into a server. {file} is its file,
             {name} its name, {number} the whole name of the item, {quoted} the SQL statement that
             makes the database
    server:  the server that a drill starts for it ("mysql", "postgres"); "" where it needs none
    to_server: whether its module restores it into a server
    folder:  whether its module restores it as a folder in a form of its own (a data directory)
    archive: whether it is a tar archive of files
    first:   whether a restore needs it before the others: databases belong to roles and users
    steady:  whether the size of one run says something about that of the next
    counted: the fact that is the number of what is in it; "" for none
    file_of_sql: whether its file is a database that answers SQL by itself
    log:     whether it is a log that is replayed after a dump, and nothing by itself
    facts:   what its source knows of an item beside its bytes
    """

    name: str
    load: str = ""
    server: str = ""
    to_server: bool = False
    folder: bool = False
    archive: bool = False
    first: bool = False
    steady: bool = True
    counted: str = ""
    file_of_sql: bool = False
    log: bool = False
    facts: type[Facts] = FileFacts


@dataclass(frozen=True)
class Applied:
    """A stage as manifests name it.

    ending:   what it adds to a name
    undo:     the stock command that undoes it, for the recovery sheet
    encrypts: whether nobody without a key can read what comes out of it
    """

    name: str
    ending: str
    undo: str
    encrypts: bool = False


@dataclass(frozen=True)
class Row:
    """A built-in module.

    file:    from the root of the project
    role:    source, stage, store, check or cleanup (which runs when everything is stored)
    plugin:  the class of the documented plugin form; "" for an executable
    kinds:   of the items that a source gives
    stages:  that a stage applies
    private: options whose paths no source may back up
    fills:   the usual folder in WORK_FOLDER of what it writes in a staged run; "" where an option
             names one (prefix_folder)
    takes:   the usual folder in WORK_FOLDER of what it reads there; "" for all of WORK_FOLDER
    environment: what the variables begin with that its program needs
    reads_all: whether the capability to read every file is for it: it hands it on to tar alone
    """

    file: str
    role: str
    plugin: str = ""
    kinds: tuple[Kind, ...] = ()
    stages: tuple[Applied, ...] = ()
    private: tuple[str, ...] = ()
    fills: str = ""
    takes: str = ""
    environment: tuple[str, ...] = ()
    reads_all: bool = False

    @property
    def encrypts(self) -> bool:
        """Return whether nobody without a key can read what this stage gives."""
        return any(stage.encrypts for stage in self.stages)


_UNCHECKED = "  # restore.py checks the SQL before, this does not: see docs/security.md"
_MYSQL = "mysql -e {quoted} && mysql --binary-mode --comments --database={name} < {file}"
_MYSQL += _UNCHECKED
_POSTGRES = "{createdb}pg_restore --exit-on-error -d {name} {file}"
_POSTGRES += "  # as a superuser of the server (runuser -u postgres) that can read the file"
# The server quotes each name and value; \\gexec runs each result as one statement.
_POSTGRES_ROLES = r"""F={file} psql -X -d postgres <<'END'
\set f `cat "$F"`
SET nc.facts TO :'f';
SELECT format('CREATE ROLE %I', r->>'name')
  FROM jsonb_array_elements(current_setting('nc.facts')::jsonb->'roles') r \gexec
SELECT format('ALTER ROLE %I WITH %s CONNECTION LIMIT %s PASSWORD %L VALID UNTIL %L', r->>'name',
  (SELECT string_agg(CASE WHEN (r->>a)::boolean THEN a ELSE 'NO' || a END, ' ') FROM unnest(ARRAY[
  'superuser', 'inherit', 'createrole', 'createdb', 'login', 'replication', 'bypassrls']) a),
  r->>'connection_limit', r->>'password', coalesce(r->>'valid_until', 'infinity'))
  FROM jsonb_array_elements(current_setting('nc.facts')::jsonb->'roles') r
  WHERE r->>'name' <> current_user \gexec
SELECT format('GRANT %I TO %I%s', m->>'role', m->>'member',
  CASE WHEN (m->>'admin')::boolean THEN ' WITH ADMIN OPTION' END)
  FROM jsonb_array_elements(current_setting('nc.facts')::jsonb->'memberships') m \gexec
SELECT format('CREATE TABLESPACE %I OWNER %I LOCATION %L', t->>'name', t->>'owner', t->>'location')
  FROM jsonb_array_elements(current_setting('nc.facts')::jsonb->'tablespaces') t \gexec
END
   Run it as a superuser of the server (runuser -u postgres) that can read the file. It says
   "already exists" of roles that the server has, and goes on.
   Settings, privileges and comments are in the file too (keys settings, acl, comment)."""
_XTRABACKUP = "mbstream -x -C NEWFOLDER < {file} && mariabackup --prepare --target-dir=NEWFOLDER"
_REDIS = (
    "stop redis-server, move dump.rdb and appendonly* of its folder (CONFIG GET dir) to another "
    "place, copy {file} to dump.rdb there, chown redis: it, and start the server with appendonly "
    "no: with appendonly yes Redis ignores dump.rdb"
)
_OPENLDAP = (
    "stop slapd, move the folder of this database to another place (do not delete it), create an "
    "empty one, slapadd -n {number} -l {file}, chown -R openldap: the new folder, start slapd"
)
_OPENSSL = 'openssl enc -d -aes-256-cbc -md md5 -pass "file:$KEY"'

ROWS = (
    Row(
        "filesbackup/filesbackup.py",
        "source",
        # a source of a user-defined module gives files
        kinds=(Kind("fileset", archive=True, counted="files", facts=FilesetFacts), Kind(PLAIN)),
        fills="files",
        reads_all=True,
    ),
    Row(
        "mysql_backup/mysql_dump.py",
        "source",
        kinds=(
            Kind("mysql", _MYSQL, "mysql", to_server=True, facts=MysqlFacts),
            Kind(
                "mysql-users",
                f"mysql --binary-mode --comments --database=mysql < {{file}}{_UNCHECKED}",
                "mysql",
                to_server=True,
                first=True,
                facts=MysqlServerFacts,
            ),
            Kind("mysql-binlogs", server="mysql", steady=False, log=True, facts=BinlogFacts),
        ),
    ),
    Row(
        "mysql_backup/mysql_xtrabackup.py",
        "source",
        kinds=(
            Kind("mysql-physical", _XTRABACKUP, folder=True, steady=False, facts=PhysicalFacts),
        ),
    ),
    Row(
        "postgres/postgres.py",
        "source",
        "PostgresBackup",
        kinds=(
            Kind("postgres", _POSTGRES, "postgres", to_server=True, facts=PostgresFacts),
            Kind(
                "postgres-roles",
                _POSTGRES_ROLES,
                "postgres",
                to_server=True,
                first=True,
                facts=PostgresServerFacts,
            ),
        ),
    ),
    Row(
        "postgres/base.py",
        "source",
        "PostgresBaseBackup",
        kinds=(
            Kind(
                "postgres-base",
                "tar -x -C NEWFOLDER -f {file}; chown -R postgres: NEWFOLDER; start the server "
                "on it",
                folder=True,
                facts=BaseBackupFacts,
            ),
        ),
    ),
    Row(
        "mongo/mongo.py",
        "source",
        "MongoBackup",
        kinds=(
            Kind(
                "mongo",
                "mongorestore --archive={file}",
                to_server=True,
                counted="documents",
                facts=MongoFacts,
            ),
        ),
    ),
    Row(
        "sqlite/sqlite.py",
        "source",
        "SQLiteBackup",
        kinds=(Kind("sqlite", file_of_sql=True, counted="tables", facts=SqliteFacts),),
    ),
    Row(
        "redis/redis.py", "source", "RedisBackup", kinds=(Kind("redis", _REDIS, facts=RedisFacts),)
    ),
    Row(
        "openldap/openldap.py",
        "source",
        "OpenLDAPBackup",
        kinds=(Kind("openldap", _OPENLDAP, counted="entries", facts=OpenldapFacts),),
    ),
    Row(
        "compression/compression.py",
        "stage",
        stages=(
            Applied("zstd", ".zst", "zstd -dc"),
            Applied("gzip", ".gz", "gzip -dc"),
            Applied("xz", ".xz", "xz -dc"),
        ),
        private=("destination",),
        fills="compressed",
    ),
    Row(
        "encryption/encryption.py",
        "stage",
        stages=(
            Applied("age", ".age", 'age -d -i "$KEY"', encrypts=True),
            Applied("openssl", ".crypt", _OPENSSL, encrypts=True),
        ),
        private=("key_file", "destination"),
        fills="encrypted",
        takes="compressed",
    ),
    Row(
        "storage/storage.py",
        "store",
        private=("local_backup",),
        takes="encrypted",
        environment=("AWS_", "OSS_", "RCLONE_"),
    ),
    Row("cleanup/cleanup.py", "cleanup", environment=("AWS_", "OSS_")),
    Row("restore/drill.py", "check"),
    Row("tools/size_calculation.py", "check", "SizeCalculation"),
    Row("qa/qa.py", "check", "QA"),
    Row("rsync/rsync.py", "check", "RsyncBackup"),
)
MODULES = {row.file: row for row in ROWS}
KINDS = {kind.name: kind for row in ROWS for kind in row.kinds}
STAGES = {stage.name: stage for row in ROWS for stage in row.stages}
_KIND_ROWS = {kind.name: row for row in ROWS for kind in row.kinds}
_STAGE_ROWS = {stage.name: row for row in ROWS for stage in row.stages}
_UNKNOWN = Kind("")  # of a later version, or altered


def name_of(file: Path) -> str:
    """Return the name of a file of this project, links followed; "" for any other file."""
    real = resolved(file)
    return str(real.relative_to(project.ROOT)) if real.is_relative_to(project.ROOT) else ""


def row(file: Path) -> Row | None:
    """Return the row of a module by its file; None for a user-defined module."""
    return MODULES.get(name_of(file))


def declaration(file: str | Path) -> type[Declaration]:
    """Return the Options of a built-in module."""
    return loader.declared(file).Options


def kind(name: str) -> Kind:
    """Return what is known of a kind of item; for an unknown one a Kind without abilities."""
    return KINDS.get(name, _UNKNOWN)


def file_of_kind(name: str) -> str:
    """Return the module whose items are of this kind, by its file; "" for an unknown kind."""
    kind_row = _KIND_ROWS.get(name)
    return kind_row.file if kind_row else ""


def row_of_stage(name: str) -> Row | None:
    """Return the module that has the inverse of a stage; None for a user-defined filter."""
    return _STAGE_ROWS.get(name)


def stage_encrypts(name: str) -> bool:
    """Return whether a stage is a built-in encryption."""
    return name in STAGES and STAGES[name].encrypts


def stage_of_ending(ending: str) -> Applied | None:
    """Return the stage that adds this ending to a name; None for any other ending."""
    return next((stage for stage in STAGES.values() if stage.ending == ending), None)


def encrypts(files: Iterable[Path]) -> bool:
    """Return whether one of these modules is a built-in encryption."""
    return any(module_row.encrypts for file in files if (module_row := row(file)) is not None)
