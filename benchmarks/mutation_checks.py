"""What must hold when a restore meets an altered store: see `judged`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import re
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.mutation_lab import HOST, RUNS, Lab, manifest_of
from restore import listing, verifying
from restore.restoring import Restoring
from tools.base.errors import BackupError
from tools.catalog import readback, selection, sequence
from tools.catalog.catalog import Catalog
from tools.catalog.history import History, Past
from tools.catalog.leftovers import remove_crashed_runs
from tools.catalog.location import BackupLocation
from tools.catalog.readback import StoredRun
from tools.catalog.runs import list_runs
from tools.catalog.selection import Preference, Selection
from tools.catalog.trust import Trust
from tools.engine import anomaly_guard, run_history
from tools.flow import item_record
from tools.flow.anomaly import Thresholds
from tools.flow.item_record import StoredItem
from tools.flow.stream import Chunks
from tools.modules import registry

_RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal may act on
_UNALTERED = 50  # one unaltered item of so many is read all the same


def judged(
    lab: Lab, objects: Mapping[str, bytes], rng: random.Random, *, signed: bool
) -> tuple[Counter[str], list[str]]:
    """Return how often what came out, and what is wrong.

    * Nothing but the program's own errors is raised; those of one run or item cost no other.
    * No raw control character is printed, and the list has one line for each run.
    * Signed: each item that is given out is that of its run, as it was stored; `latest` is the
      newest run, or an error.
    * Unsigned: each item that is given out has section, name, kind, size and SHA-256 as the
      manifest says, consists of the objects that it names, which have the digests that it says
      and belong to this run, and is encrypted.
    """
    check = _Check(lab, objects, rng, signed=signed)
    steps: dict[Callable[[], None], int] = {
        check.each_run: 1, check.latest: 2, check.lists: 2, check.backup: 4, check.restore: 200,
    }  # fmt: skip
    for step, times in steps.items():  # each in one case of so many
        if rng.randrange(times) == 0:
            check.guarded(step.__name__, step)
    return check.outcomes, check.wrong


class _Check:
    def __init__(
        self, lab: Lab, objects: Mapping[str, bytes], rng: random.Random, *, signed: bool
    ) -> None:
        self._lab = lab
        self._rng = rng
        self._objects = objects
        self._signed = signed
        self._location: BackupLocation = lab.location(objects, signed=signed)
        self._catalog = self._location.catalog()
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    def guarded(self, name: str, step: Any) -> None:  # noqa: ANN401  (a function)
        try:
            step()
        except BackupError:
            self.outcomes[f"{name}: refused"] += 1
        except Exception:  # noqa: BLE001  (what is looked for)
            self.wrong.append(f"{name}: {traceback.format_exc()}")

    def lists(self) -> None:
        """Check --list and --show."""
        for as_json in (self._rng.random() < 0.5,):  # noqa: PLR2004
            out, errors = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                listing.print_runs(self._location, as_json=as_json)
            self._printed(out.getvalue() + errors.getvalue())
            if not as_json and self._catalog.run_ids:
                lines = out.getvalue().count("\n")
                if lines != len(self._catalog.run_ids) + 1:
                    self.wrong.append(f"list: {lines} lines")
            elif as_json:
                json.loads(out.getvalue())

    def _printed(self, text: str) -> None:
        if _RAW.search(text):
            self.wrong.append(f"printed: {text!r}")

    def latest(self) -> None:
        """Check what `latest` selects."""
        sequence.require(self._catalog)
        selected = selection.select_run(self._catalog, Preference(), "latest")
        self.outcomes["latest: selected"] += 1
        untouched = manifest_of(RUNS[-1]) in self._objects
        if self._signed and untouched and selected.newest.run_id != RUNS[-1]:
            self.wrong.append(f"latest is {selected.newest.run_id}")

    def each_run(self) -> None:
        """Check every item of every run that is trusted."""
        for run_id in self._catalog.run_ids:
            try:
                chosen = selection.select_run(self._catalog, Preference(), run_id)
            except BackupError:
                self.outcomes["run: refused"] += 1
                continue
            if self._differs(manifest_of(run_id)):
                self._shows(chosen)
            for run, item in chosen.pairs:
                if self._is_altered(run, item) or self._rng.randrange(_UNALTERED) == 0:
                    self._item(run, item)

    def _shows(self, chosen: Selection) -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            listing.print_selection(chosen)
        self._printed(out.getvalue())
        self._printed(chosen.newest.manifest.to_json().decode("ascii"))

    def _differs(self, name: str) -> bool:
        return self._objects.get(name) != self._lab.objects.get(name)

    def _is_altered(self, run: StoredRun, item: StoredItem) -> bool:
        """Return whether the manifest or a part of an item is not as it was; most are."""
        names = [manifest_of(run.run_id), *(f"{HOST}/{part.name}" for part in item.parts)]
        return any(map(self._differs, names))

    def _item(self, run: StoredRun, item: StoredItem) -> None:
        try:
            verifying.check_item(run, item)
            readback.require_parts(run, [item])
            content = b"".join(readback.read_item(run, item, self._inverse, lambda _size: None))
        except BackupError:
            self.outcomes["item: refused"] += 1
            return
        self.outcomes["item: given out"] += 1
        wrong = list(self._signed_item(run, item, content) if self._signed else ())
        wrong += self._believed_item(run, item, content)
        self.wrong += [f"{run.run_id} {item.label}: {one}" for one in wrong]

    def _inverse(self, stage: str) -> Callable[[Chunks], Iterator[bytes]]:
        return (self._lab if stage in registry.STAGES else self._location).inverse_stage(stage)

    def _signed_item(self, run: StoredRun, item: StoredItem, content: bytes) -> Iterator[str]:
        if self._lab.honest.get((run.run_id, item.label)) != (item.kind, content):
            yield "is not what was stored"

    def _believed_item(self, run: StoredRun, item: StoredItem, content: bytes) -> Iterator[str]:
        """Yield what differs from the manifest's text, which is read anew for this."""
        record = json.loads(self._objects[manifest_of(run.run_id)])
        if (record["host"], record["run_id"]) != (HOST, run.run_id):
            yield "of another run or host"
        name = (item.section, item.name)
        entries = [one for one in record["items"] if (one.get("section"), one.get("name")) == name]
        if len(entries) != 1:
            yield f"has {len(entries)} entries"
            return
        (entry,) = entries
        if (entry["kind"], tuple(entry["stages"])) != (item.kind, item.stages):
            yield "kind or stages differ"
        if entry.get("size") not in (None, len(content)):
            yield "size differs"
        if entry.get("sha256") not in (None, hashlib.sha256(content).hexdigest()):
            yield "SHA-256 differs"
        if "age" not in entry["stages"]:
            yield "not encrypted"
        yield from self._parts(record, entry, content)

    def _parts(self, record: Any, entry: Any, content: bytes) -> Iterator[str]:  # noqa: ANN401
        start = record["run_id"] + "."
        if record["mode"] == "streamed":
            names = filter(None, (entry["section"], entry["name"]))
            start += "".join(f"{item_record.quoted(name)}." for name in names)
        raw = b""
        for part in entry["parts"]:
            held = self._objects[f"{HOST}/{part['name']}"]
            raw += held
            if (len(held), hashlib.sha256(held).hexdigest()) != (part["size"], part["sha256"]):
                yield "a part differs"
            if not part["name"].startswith(start) and entry["section"] != item_record.EARLIER:
                yield f"part {part['name']} of another run or item"
        if self._lab.decoded(raw, entry["stages"]) != content:
            yield "is not what its parts contain"

    def backup(self) -> None:
        """Ask of the store what a run of the same host asks; that must never stop the run."""
        catalog = Catalog(self._location.store, HOST, Trust(everybody=True))
        history = History(catalog)
        history.newest_complete("c")
        past = Past([history])
        read = {run_id: one for run_id, one in history.unread(set()) if one is not None}
        figures = anomaly_guard.learned(read, {}, lambda _section: Thresholds())
        run_history.in_memory().add(list(figures))
        for label in ("ETC", "MYSQL/3306/shop"):
            section, _, name = label.partition("/")
            past.section_size(section)
            for item in past.earlier(section, name):
                if item is not None:
                    with contextlib.suppress(BackupError):
                        registry.kind(item.kind).facts.of(item)
        sequence.problem(catalog, "c")
        before = {entry.name for entry in self._location.store.entries(HOST)}
        with contextlib.suppress(BackupError):  # what it cannot read it leaves alone
            remove_crashed_runs(catalog, "20990101_000000", 0.0)
        removed = before - {entry.name for entry in self._location.store.entries(HOST)}
        named = {name for name in removed if self._is_named(name)}
        if named:
            self.wrong.append(f"removed {named}")

    def _is_named(self, name: str) -> bool:
        base = name.rpartition("/")[2]
        texts = (one for other, one in self._objects.items() if other.endswith(".manifest.json"))
        return any(base.encode() in text for text in texts)

    def restore(self) -> None:
        """Restore into a folder; if signed, it must have what was stored."""
        for run in [one.manifest for one in list_runs(self._catalog) if one.manifest is not None]:
            whole = selection.of_run(StoredRun(self._catalog, run))
            with tempfile.TemporaryDirectory(dir=self._lab.folder) as folder:
                out = Path(folder, "out")
                steps = Restoring(self._location, self._catalog).into_folder(
                    whole, out, overwrite=False
                )
                self._files(whole, out, {one.name for one in steps if one.result.status.stored})

    def _files(self, whole: Selection, out: Path, good: set[str]) -> None:
        self.outcomes["item: restored"] += len(good)
        restored = {path.relative_to(out).parts[0] for path in out.glob("*")}
        expected = {item.section for item in whole.items if item.label in good}
        if self._signed and not restored <= expected:
            self.wrong.append(f"restored {restored - expected}")
