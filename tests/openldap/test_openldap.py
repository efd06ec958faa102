"""OpenLDAP dumped while it runs, dropped, loaded again, every entry compared."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import LDAP, program
from tests.system import System

pytestmark = pytest.mark.needs("slapd", "ldapadd")
# Issue 14 C: values that look like LDIF stay values of their entry.
HOSTILE = ("x\n\ndn: cn=evil,dc=other\nchangetype: add\n", "< file:///etc/passwd", ": eA==", " #")
ENCODED = "".join(f"description:: {base64.b64encode(text.encode()).decode()}\n" for text in HOSTILE)
PEOPLE = f"""\
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
dc: example
o: Example
{ENCODED}
"""


@pytest.fixture
def server() -> Iterator[LDAP]:
    started = LDAP()
    people = [
        f"dn: cn=person {n},dc=example,dc=org\nobjectClass: person\ncn: person {n}\nsn: Ü{n}\n"
        f"description: {'long ' * 40}\n"
        for n in range(300)
    ]
    started.add(PEOPLE + "\n".join(people))
    yield started
    started.stop()


def configure(system: System, server: LDAP, stream: str = "True", **parameters: Any) -> None:
    sections = system.full_sections()
    del sections["FILESET"]
    section = {
        "ACTION": "load",
        "FROM": "openldap",
        "FILENAME": "openldap",
        "CLASS": "OpenLDAPBackup",
    }
    options = {"CONFIG_FOLDER": str(server.config), **parameters}
    system.configure({"OPENLDAP": {**section, "PARAMETERS": options}, **sections}, STREAM=stream)


@pytest.mark.parametrize("stream", ["True", "False"])
def test_back_up_drop_restore_compare(tmp_path: Path, server: LDAP, stream: str) -> None:
    system = System(tmp_path)
    before = server.entries()
    assert ENCODED in before
    configure(system, server, stream)
    result = system.result()
    assert result["exit_code"] == 0, result
    facts = {item["name"]: item["facts"] for item in system.manifest()["items"]}
    assert set(facts) == {"0", "1"}
    assert facts["1"]["entries"] == 301
    out = system.restored() / "OPENLDAP"
    server.end()
    for folder in (server.config, server.data):
        shutil.rmtree(folder)
        server.call("/bin/mkdir", str(folder))
    for number in ("0", "1"):
        copy = server.folder / f"{number}.ldif"
        copy.write_bytes((out / f"{number}.ldif").read_bytes())
        arguments = ("-n", number, "-F", str(server.config), "-l", str(copy))
        server.call(program("slapadd"), *arguments)
    server.serve()
    assert server.entries() == before


@pytest.mark.fault("slapcat that ends early, or no configuration", "exit 1, named")
def test_what_cannot_be_dumped(tmp_path: Path, server: LDAP) -> None:
    system = System(tmp_path)
    cut = tmp_path / "slapcat"
    cut.write_text(f'#!/bin/sh\n{program("slapcat")} "$@" | head -c 3000\n')
    cut.chmod(0o755)
    configure(system, server, SLAPCAT=str(cut), DATABASES="1")
    result = system.result()
    assert result["exit_code"] == 1
    assert "no complete entry" in result["sections"][0]["message"]
    configure(system, server, CONFIG_FOLDER="/does/not/exist")
    assert "no such directory" in system.run("-r").stderr
    configure(system, server, DATABASES="one")
    assert "one: not a database number" in system.run("-r").stderr
    configure(system, server, DATABASES="9")
    assert system.run("-r").returncode == 1
    assert system.stored() == []
    configure(system, server)
    assert "databases 0, 1" in system.run("-t").stdout


CONFIG = """\
dn: cn=config
objectClass: olcGlobal
cn: config
olcPidFile: {folder}/slapd.pid

dn: cn=module{{0}},cn=config
objectClass: olcModuleList
cn: module{{0}}
olcModulePath: /usr/lib/ldap
olcModuleLoad: back_mdb
olcModuleLoad: back_monitor
olcModuleLoad: back_ldap

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

include: file:///etc/ldap/schema/core.ldif

dn: olcDatabase={{1}}mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDatabase: {{1}}mdb
olcSuffix: ou=people,dc=example,dc=org
olcSubordinate: TRUE
olcDbDirectory: {folder}/people

dn: olcDatabase={{2}}mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDatabase: {{2}}mdb
olcSuffix: dc=example,dc=org
olcDbDirectory: {folder}/data

dn: olcDatabase={{3}}ldif,cn=config
objectClass: olcDatabaseConfig
objectClass: olcLdifConfig
olcDatabase: {{3}}ldif
olcSuffix:: bz1aw7zigqw=
olcDbDirectory: {folder}/files

dn: olcDatabase={{4}}monitor,cn=config
objectClass: olcDatabaseConfig
olcDatabase: {{4}}monitor

dn: olcDatabase={{5}}ldap,cn=config
objectClass: olcDatabaseConfig
objectClass: olcLDAPConfig
olcDatabase: {{5}}ldap
olcSuffix: dc=proxy
olcDbURI: ldap://127.0.0.1:1
"""
FOLK = """\
dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: cn=Zo\\C3\\AB\\, \\22x\\22,ou=people,dc=example,dc=org
objectClass: person
cn: Zoë, "x"
sn: X
description:: IGxlYWRpbmcgc3BhY2UKZG46IHg=
"""


class Glued(LDAP):
    """A database glued into another, an empty one, and backends without data of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.end()
        shutil.rmtree(self.config)
        shutil.rmtree(self.data)
        for name in ("slapd.d", "data", "people", "files"):
            self.call("/bin/mkdir", str(self.folder / name))
        self.load("0", CONFIG.format(folder=self.folder))
        self.load("2", PEOPLE)
        self.load("1", FOLK)
        self.serve()

    def load(self, number: str, ldif: str) -> None:
        """Add entries while the server is down."""
        file = self.folder / "given.ldif"
        file.write_text(ldif, encoding="utf-8")
        self.call(program("slapadd"), "-n", number, "-F", str(self.config), "-l", str(file))

    def all_entries(self) -> list[str]:
        command = (program("slapcat"), "-F", str(self.config), "-n", "2", "-o", "ldif-wrap=no")
        return sorted(self.call(*command).decode().split("\n\n"))


@pytest.fixture
def glued() -> Iterator[Glued]:
    started = Glued()
    yield started
    started.stop()


@pytest.mark.parametrize("stream", ["True", "False"])
def test_glued_empty_and_proxy_databases(tmp_path: Path, glued: Glued, stream: str) -> None:
    """Issue 11 B, OpenLDAP: each database by itself [19], the empty one too, nothing unsaid."""
    system = System(tmp_path)
    before = glued.all_entries()
    configure(system, glued, stream)
    result = system.result()
    assert result["exit_code"] == 0, result
    items = {item["name"]: item for item in system.manifest()["items"]}
    entries = {name: item["facts"]["entries"] for name, item in items.items() if name != "0"}
    assert entries == {"1": 2, "2": 1, "3": 0}
    assert items["3"]["facts"]["suffix"] == "o=Zü€"
    assert items["3"]["notes"] == ["database {3}ldif (o=Zü€): no entries"]
    assert "{5}ldap (dc=proxy): no data of its own, not dumped" in items["0"]["notes"]
    assert "databases 0, 1, 2, 3 in" in system.run("-t").stdout
    out = system.restored() / "OPENLDAP"
    glued.end()
    for folder in (glued.config, glued.data, glued.folder / "people", glued.folder / "files"):
        shutil.rmtree(folder)
        glued.call("/bin/mkdir", str(folder))
    for number in ("0", "1", "2", "3"):
        glued.load(number, (out / f"{number}.ldif").read_text(encoding="utf-8"))
    assert glued.all_entries() == before


def test_one_that_cannot_be_dumped_does_not_cost_the_others(tmp_path: Path, glued: Glued) -> None:
    """Issue 11, N1's kin: the database is named, and -t has a BAD line for it."""
    system = System(tmp_path)
    glued.end()
    for file in (glued.folder / "people").iterdir():
        file.unlink()
    configure(system, glued)
    tested = system.run("-t")
    assert tested.returncode == 1
    assert "database {1}mdb (ou=people,dc=example,dc=org): slapcat ended" in tested.stderr
    assert system.result()["exit_code"] == 1
    assert {item["name"] for item in system.manifest()["items"]} == {"0", "2", "3"}
