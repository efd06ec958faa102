"""Doubles of mongodump and mongorestore, for machines where no package has the real ones.

They take the flags of the real ones and check them, read the login from --config, and speak the
archive format. Their server is a JSON file: {database: {collection: [documents]}}.
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import sys
from pathlib import Path
from typing import Any

MAGIC = b"\x6d\xe2\x99\x81"
END = b"\xff\xff\xff\xff"
FLAGS = {
    "mongodump": {"archive", "oplog", "db", "host", "port", "username", "authenticationDatabase"},
    "mongorestore": {"archive", "stopOnError", "drop", "oplogReplay", "host", "port", "username"},
}
FLAGS["mongodump"] |= {"config", "version"}
FLAGS["mongorestore"] |= {"config", "nsInclude", "nsFrom", "nsTo", "authenticationDatabase"}


def bson(document: dict[str, Any]) -> bytes:
    """A flat document of texts, whole numbers and booleans (bsonspec.org)."""
    body = b""
    for key, value in document.items():
        name = key.encode() + b"\0"
        if isinstance(value, bool):
            body += b"\x08" + name + (b"\1" if value else b"\0")
        elif isinstance(value, int):
            body += b"\x12" + name + struct.pack("<q", value)
        else:
            text = value.encode() + b"\0"
            body += b"\x02" + name + struct.pack("<I", len(text)) + text
    return struct.pack("<I", len(body) + 5) + body + b"\0"


def unbson(data: bytes) -> dict[str, Any]:
    """The other way round."""
    document: dict[str, Any] = {}
    at = 4
    while data[at]:
        kind, end = data[at], data.index(0, at + 1)
        name, at = data[at + 1 : end].decode(), end + 1
        if kind == 2:
            (size,) = struct.unpack_from("<I", data, at)
            document[name] = data[at + 4 : at + 3 + size].decode()
            at += 4 + size
        elif kind == 8:
            document[name] = data[at] == 1
            at += 1
        else:
            (document[name],) = struct.unpack_from("<q", data, at)
            at += 8
    return document


def archive(databases: dict[str, dict[str, list[dict[str, Any]]]]) -> bytes:
    """The archive of these databases, two blocks for each collection that has documents."""
    names = [(db, name) for db, held in databases.items() for name in held]
    out = MAGIC + bson({"concurrent_collections": 4, "version": "0.1", "tool_version": "100.9.4"})
    for db, name in names:
        kind = "view" if name.startswith("view") else "collection"
        kind = "timeseries" if name.startswith("series") else kind
        out += bson({"db": db, "collection": name, "metadata": "{}", "size": 0, "type": kind})
    out += END
    for db, name in names:
        if name.startswith("view"):
            continue
        documents = databases[db][name]
        head = {"db": db, "collection": name, "EOF": False, "CRC": 0}
        half = len(documents) // 2
        for some in filter(None, (documents[:half], documents[half:])):
            out += bson(head) + b"".join(map(bson, some)) + END
        out += bson({**head, "EOF": True, "CRC": 4711}) + END
    return out


def read(data: bytes) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The databases of an archive; ValueError where it is not whole."""
    if not data.startswith(MAGIC) or not data.endswith(END):
        raise ValueError("stream or file does not appear to be a mongodump archive")
    databases: dict[str, dict[str, list[dict[str, Any]]]] = {}
    complete, at, block, announced = set(), 4, None, set()
    documents: list[dict[str, Any]] = []
    head = True
    while at < len(data):
        if data[at : at + 4] == END:
            at, block, head = at + 4, None, False
            continue
        (size,) = struct.unpack_from("<I", data, at)
        document = unbson(data[at : at + size])
        at += size
        if head:
            if "db" in document:
                announced.add((document["db"], document["collection"]))
                databases.setdefault(document["db"], {})[document["collection"]] = []
        elif block is None:
            block = (document["db"], document["collection"])
            documents = databases[block[0]][block[1]]
            if document["EOF"]:
                complete.add(block)
        else:
            documents.append(document)
    if {name for name in announced if not name[1].startswith("view")} - complete:
        raise ValueError("demux finishing when there are still outs")
    return databases


def login(flags: dict[str, str], server: dict[str, Any]) -> None:
    """Ends the program where the login is wrong, or stands where others can see it."""
    options: dict[str, str] = {}
    if path := flags.get("config"):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600, "others can read --config"
        for line in Path(path).read_text(encoding="utf-8").split("\n"):
            if not line:
                continue
            key, _, value = line.partition(": ")
            if re.search(r"\\u[dD][89a-fA-F]|[\x7f-\x9f\u2028\u2029]", value):
                raise SystemExit(
                    f"Failed: error parsing config file {path}: yaml: found invalid Unicode "
                    "character escape code"
                )
            options[key] = json.loads(value)
    uri = re.match(r"mongodb://([^:]+):([^@]+)@", options.get("uri", ""))
    user = uri[1] if uri else flags.get("username")
    password = uri[2] if uri else options.get("password")
    if (user, password) != (server["user"], server["password"]):
        raise SystemExit("Failed: can't create session: AuthenticationFailed")


def main(program: str, arguments: list[str]) -> None:
    """One call of one of the two programs."""
    if arguments == ["--version"]:
        sys.stdout.write(f"{program} version: 100.9.4\ngit version: none\n")
        return
    flags = {key: value for key, _, value in (word[2:].partition("=") for word in arguments)}
    unknown = set(flags) - FLAGS[program]
    assert not unknown, f"unknown option {unknown}"
    state_file = Path(os.environ["NC_TEST_MONGO"]) if "NC_TEST_MONGO" in os.environ else None
    state_file = state_file or Path(sys.argv[0]).with_name("server.json")
    Path(sys.argv[0]).with_name("environment.json").write_text(json.dumps(dict(os.environ)))
    server = json.loads(state_file.read_text())
    login(flags, server)
    if program == "mongodump":
        dump(flags, server)
    else:
        restore(flags, server)
        state_file.write_text(json.dumps(server))


def dump(flags: dict[str, str], server: dict[str, Any]) -> None:
    """mongodump: the archive to standard output."""
    if "oplog" in flags and not server.get("replica"):
        raise SystemExit("Failed: error getting oplog start: not a replica set member")
    if "oplog" in flags and "db" in flags:
        raise SystemExit("Failed: --oplog mode only supported on full dumps")
    chosen = {k: v for k, v in server["databases"].items() if flags.get("db", k) == k}
    if "oplog" in flags:
        chosen = {**chosen, "": {"oplog": server.get("oplog", [])}}
    time = "2026-11-26T03:00:00.000+0000"
    for number in range(server.get("progress", 0)):
        sys.stderr.write(f"{time}\tdone dumping x.c{number} (1 document)\n")
    if "fail" in server:
        sys.stdout.buffer.write(archive(chosen)[:60])
        raise SystemExit(f"{time}\tFailed: {server['fail']}")
    data = archive(chosen)
    sys.stdout.buffer.write(data[: server.get("cut") or len(data)])


def restore(flags: dict[str, str], server: dict[str, Any]) -> None:
    """mongorestore: the archive from standard input into the server."""
    if "oplogReplay" in flags and {"nsInclude", "nsFrom"} & set(flags):  # mongorestore.go
        raise SystemExit("Failed: cannot use --oplogReplay with includes specified")
    try:
        databases = read(sys.stdin.buffer.read())
    except ValueError as error:
        raise SystemExit(f"Failed: {error}") from None
    if "oplogReplay" in flags and "oplog" not in databases.get("", {}):
        raise SystemExit("Failed: No oplog file to replay")
    oplog = databases.pop("", {}).get("oplog", [])
    good = bad = 0
    for old, collections in databases.items():
        name = old
        if "nsFrom" in flags:
            if flags["nsInclude"] != f"{old}.*":
                continue
            assert flags["nsFrom"] == f"{old}.*"
            name = flags["nsTo"].removesuffix(".*")
        new, failed = load(collections, server["databases"].setdefault(name, {}), flags)
        good, bad = good + new, bad + failed
    for entry in oplog if "oplogReplay" in flags else ():
        server["databases"][entry["db"]][entry["collection"]].append({"_id": entry["_id"]})
    sys.stderr.write(
        f"2026\t{good} document(s) restored successfully. {bad} document(s) failed to restore.\n"
    )


def load(
    collections: dict[str, list[dict[str, Any]]],
    goal: dict[str, list[dict[str, Any]]],
    flags: dict[str, str],
) -> tuple[int, int]:
    """Add the documents of one database; how many were, and how many were there already."""
    good = bad = 0
    for collection, documents in collections.items():
        there = [] if "drop" in flags else goal.get(collection, [])
        ids = {document["_id"] for document in there}
        new = [document for document in documents if document["_id"] not in ids]
        goal[collection] = there + new
        good, bad = good + len(new), bad + len(documents) - len(new)
    return good, bad


if __name__ == "__main__":
    main(Path(sys.argv[0]).name, sys.argv[1:])
