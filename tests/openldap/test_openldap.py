"""OpenLDAP dumped while it runs, dropped, loaded again, every entry compared."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import LDAP, program
from tests.system import System

pytestmark = pytest.mark.needs("slapd", "ldapadd")
PEOPLE = """\
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
dc: example
o: Example

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
    whole = system.whole()
    del whole["FILESET"]
    section = {
        "ACTION": "load",
        "FROM": "openldap",
        "FILENAME": "openldap",
        "CLASS": "OpenLDAPBackup",
    }
    given = {"CONFIG_FOLDER": str(server.config), **parameters}
    system.configure({"OPENLDAP": {**section, "PARAMETERS": given}, **whole}, STREAM=stream)


@pytest.mark.parametrize("stream", ["True", "False"])
def test_back_up_drop_restore_compare(tmp_path: Path, server: LDAP, stream: str) -> None:
    system = System(tmp_path)
    before = server.entries()
    configure(system, server, stream)
    result = system.result()
    assert result["exit_code"] == 0, result
    facts = {item["name"]: item["facts"] for item in system.manifest()["items"]}
    assert set(facts) == {"0", "1"}
    assert facts["1"]["entries"] == "301"
    out = system.restored() / "OPENLDAP"
    server.end()
    for folder in (server.config, server.data):
        shutil.rmtree(folder)
        server.call("/bin/mkdir", str(folder))
    for number in ("0", "1"):
        copy = server.folder / f"{number}.ldif"
        copy.write_bytes((out / f"{number}.ldif").read_bytes())
        words = ("-n", number, "-F", str(server.config), "-l", str(copy))
        server.call(program("slapadd"), *words)
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
    assert "no whole entries" in result["sections"][0]["message"]
    configure(system, server, CONFIG_FOLDER="/does/not/exist")
    assert "CONFIG_FOLDER: there is no folder" in system.run("-r").stderr
    configure(system, server, DATABASES="one")
    assert "one is no number" in system.run("-r").stderr
    configure(system, server, DATABASES="9")
    assert system.run("-r").returncode == 1
    assert system.stored() == []
    configure(system, server)
    assert "databases 0, 1" in system.run("-t").stdout
