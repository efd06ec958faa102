"""What the stores hold of a run, for its result."""

from __future__ import annotations

from collections.abc import Sequence

from tools.base.result import Status, worst
from tools.base.run_result import ItemResult, SectionResult, StoreResult
from tools.catalog.manifest import Manifest
from tools.config.model import Section
from tools.engine.run_recorder import Recording


def items(recording: Recording | None) -> tuple[ItemResult, ...]:
    """Return the items that at least one store holds."""
    held = recording.items.values() if recording is not None else ()
    return tuple(
        ItemResult(
            *(item.section, item.name, item.kind, item.size, item.stored, item.warnings),
            seconds=item.seconds,
        )
        for item in held
    )


def stores(
    chosen: Sequence[Section], recording: Recording | None, steps: Sequence[SectionResult]
) -> tuple[StoreResult, ...]:
    """Return what each store holds; nothing if the run ended before the stores had their turn."""
    results = {step.name: step.result.status for step in steps}
    if recording is None:
        return ()
    return tuple(
        _store(section, recording, results[section.name])
        for section in chosen
        if section.kind == "store" and section.name in results
    )


def store_kind(section: Section) -> str:
    """Return the kind of a store, as the report names it."""
    return str(section.parameters.get("DESTINATION", "local"))


def _store(section: Section, recording: Recording, status: Status) -> StoreResult:
    """Return what one store holds; `status` is that of its section."""
    manifest = recording.manifests.get(section.name)
    if manifest is None:
        missing = tuple(sorted({*recording.items, *recording.missing}))
        without = worst((status, Status.FAILED)) if missing else status
        return StoreResult(section.name, store_kind(section), without, False, missing=missing)
    return StoreResult(
        section.name,
        store_kind(section),
        worst((status, Status(manifest.status))),
        True,
        len(manifest.items),
        _parts(manifest),
        manifest.size,
        manifest.missing,
        manifest.sequence,
        recording.signer,
    )


def _parts(manifest: Manifest) -> int:
    return sum(len(item.parts) for item in manifest.items)
