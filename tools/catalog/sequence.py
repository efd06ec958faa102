"""The numbers of runs: they show that a run was rolled back, replaced or removed (DESIGN 7).

The number rises by one with every run that a host and config publish, over all stores together.
What a signer that is no longer known has reached does not count.
A number that is missing in the middle means nothing: clean-up removes runs, and a store may
have missed some.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tools.base.errors import BackupError, ManifestError
from tools.catalog.catalog import Catalog, Claim
from tools.catalog.memory import Reached
from tools.date_str_utils import count

MAX_SEARCHED = 100  # manifests that are compared, the newest: each is read from the store
_CHECK = "Check who can write to this store, and use the copy in another store (--store)."


@dataclass(frozen=True)
class Numbered:
    """The newest numbered run of a host and config: its number, id and manifests' digests."""

    number: int = 0
    run_id: str = ""
    digests: tuple[str, ...] = ()


def claims(catalog: Catalog, config_id: str) -> list[Claim]:
    """Return the trusted, numbered manifests of a config, newest first."""
    return _in_turn(one for one in _trusted(catalog) if one.manifest.config_id == config_id)


def numbered(catalog: Catalog) -> list[Claim]:
    """Return the newest trusted, numbered manifests of a catalog, those of all configs."""
    return list(_trusted(catalog))


def _trusted(catalog: Catalog) -> Iterator[Claim]:
    """Yield the newest trusted, numbered manifests of a catalog, newest id first.

    Those that are not trusted do not count: hundreds of them could hide the others.
    """
    able = filter(catalog.may_be_trusted, reversed(catalog.run_ids))
    return itertools.islice(
        _numbered(catalog, filter(functools.partial(_is_trusted, catalog), able)), MAX_SEARCHED
    )


def _is_trusted(catalog: Catalog, run_id: str) -> bool:
    try:
        return bool(catalog.manifest(run_id))
    except (BackupError, OSError):
        return False  # the list of runs names it


def _numbered(catalog: Catalog, run_ids: Iterable[str]) -> Iterator[Claim]:
    for run_id in run_ids:
        try:
            claim = catalog.claim(run_id)
        except (BackupError, OSError):
            continue  # the list of runs names it
        if 0 < claim.manifest.sequence <= time.time():
            yield claim  # no host has made more runs than seconds have passed


def _newest_ids(catalog: Catalog) -> list[str]:
    return list(reversed(catalog.run_ids))[:MAX_SEARCHED]


def unread(catalog: Catalog) -> BackupError | OSError | None:
    """Return why a store cannot return a manifest: what is missing is then unknown.

    None where it hands out all of them, also such as are altered.
    """
    for run_id in _newest_ids(catalog):
        try:
            catalog.claim(run_id)
        except ManifestError:
            continue
        except (BackupError, OSError) as error:
            return error
    return None


def newest(catalogs: Iterable[Catalog], config_id: str) -> Numbered:
    """Return the newest run of a config over several stores."""
    newest_claims = [claim for catalog in catalogs for claim in claims(catalog, config_id)[:1]]
    best = max(
        (claim.manifest for claim in newest_claims),
        key=lambda one: (one.sequence, one.run_id),
        default=None,
    )
    if best is None:
        return Numbered()
    digests = {claim.sha256 for claim in newest_claims if claim.manifest.run_id == best.run_id}
    return Numbered(best.sequence, best.run_id, tuple(sorted(digests)))


def highest_claimed(catalogs: Sequence[Catalog], config_id: str) -> int:
    """Return the highest number of a config in several stores, whether or not it is trusted.

    A new key goes on from there, so that `--newest` never means a run of the key before.
    Hundreds of forged runs hide no trusted one.
    """
    manifests = (
        claim.manifest for catalog in catalogs for claim in _numbered(catalog, _newest_ids(catalog))
    )
    claimed = (one.sequence for one in manifests if one.config_id == config_id)
    return max((newest(catalogs, config_id).number, *claimed))


def missed(catalogs: Iterable[Catalog], config_id: str, best: Numbered) -> Iterator[str]:
    """Yield a line for each store that lacks the newest runs: it failed, or disks take turns."""
    for catalog in catalogs:
        claim = next(iter(claims(catalog, config_id)), None)
        number = 0 if claim is None else claim.manifest.sequence
        if number < best.number:
            run_id = None if claim is None else claim.manifest.run_id
            newest = f"the newest there is run {run_id}" if run_id else "it has no numbered run"
            yield (
                f"{catalog.store} has missed {count(best.number - number, 'run')}: "
                f"{newest}, another store has {best.run_id}"
            )


def expected(catalog: Catalog, reached: Reached) -> int:
    """Return the number that a store must have: that of a run whose signer is still known.

    A host that begins to sign, or has lost its key, no longer trusts what it had before.
    """
    return reached.number if reached.number and catalog.knows(reached.signer) else 0


def problem(catalog: Catalog, config_id: str, at_least: int = 0) -> ManifestError | None:
    """Return why the runs of a config in a store are not trusted; None if they are.

    at_least: a number that the store has reached already
    """
    numbered = claims(catalog, config_id)
    number = numbered[0].manifest.sequence if numbered else 0
    if number < at_least:
        where = f"run {numbered[0].manifest.run_id} with number {number}" if numbered else "no run"
        return ManifestError(
            f"{catalog.store}: runs of {catalog.host} are missing: the newest is {where}, and "
            f"number {at_least} was stored here{_damaged(catalog, numbered)}",
            _CHECK,
        )
    signers = dict.fromkeys(claim.signer for claim in numbered)
    of_signers = ([claim for claim in numbered if claim.signer == one] for one in signers)
    return next((wrong for runs in of_signers for wrong in _contradictions(catalog, runs)), None)


def contradiction(catalog: Catalog, trusted: Iterable[Claim], new: Claim) -> ManifestError | None:
    """Return what would be wrong with the runs of a store if it had one more; None for nothing.

    trusted: the trusted, numbered manifests of the store
    """
    if new.manifest.sequence <= 0:
        return None
    same = (new.signer, new.manifest.config_id)
    of_signer = [one for one in trusted if (one.signer, one.manifest.config_id) == same]
    earlier = {str(error) for error in _contradictions(catalog, _in_turn(of_signer))}
    errors = _contradictions(catalog, _in_turn([*of_signer, new]))
    return next((error for error in errors if str(error) not in earlier), None)


def _in_turn(unordered: Iterable[Claim]) -> list[Claim]:
    """Return the newest manifests, newest first."""
    newest = sorted(
        unordered, key=lambda one: (one.manifest.sequence, one.manifest.run_id), reverse=True
    )
    return newest[:MAX_SEARCHED]


def _damaged(catalog: Catalog, numbered: Sequence[Claim]) -> str:
    """Return a note on the newest run, if its manifest is there and may be the missing one."""
    after = numbered[0].manifest.run_id if numbered else ""
    for run_id in _newest_ids(catalog):
        if run_id > after and not _is_trusted(catalog, run_id):
            return f"; run {run_id} is there, but its manifest is damaged or not trusted"
    return ""


def require(catalog: Catalog, at_least: int = 0) -> None:
    """Raise ManifestError where the runs of any config in a store are not trusted.

    at_least: a number that the store has reached, as was reported
    """
    trusted = list(_trusted(catalog))
    configs = dict.fromkeys(claim.manifest.config_id for claim in trusted)
    for config_id in configs:
        if (wrong := problem(catalog, config_id)) is not None:
            raise wrong
    _require_number(catalog, trusted, at_least)


def require_reached(catalog: Catalog, config_id: str, reached: Reached) -> None:
    """Raise ManifestError where a store lacks the newest runs of a config that are remembered."""
    _require_number(catalog, claims(catalog, config_id), expected(catalog, reached))


def _require_number(catalog: Catalog, trusted: Iterable[Claim], at_least: int) -> None:
    number = max((claim.manifest.sequence for claim in trusted), default=0)
    if number >= at_least:
        return
    if (error := unread(catalog) or _untrusted(catalog, at_least)) is not None:
        raise error
    raise ManifestError(
        f"{catalog.store}: runs of {catalog.host} are missing: the newest has number "
        f"{number}, and number {at_least} was stored",
        "Use another store (--store), or a run by its id.",
    )


def _untrusted(catalog: Catalog, number: int) -> BackupError | None:
    """Return why the newest run that claims this number or a higher one is not trusted."""
    for run_id in _newest_ids(catalog):
        with contextlib.suppress(BackupError, OSError):
            claim = catalog.claim(run_id)
            if claim.untrusted is not None and claim.manifest.sequence >= number:
                return claim.untrusted
    return None


def _contradictions(catalog: Catalog, in_turn: Sequence[Claim]) -> Iterator[ManifestError]:
    """Yield what cannot be true of the runs of one signer, the newest first.

    Not of those before one for which the operator accepted it.
    """
    accepted = next((at for at, one in enumerate(in_turn) if one.manifest.accepted_rollback), None)
    in_turn = in_turn[: None if accepted is None else accepted + 1]
    by_run = {claim.manifest.run_id: claim for claim in in_turn}
    numbers: dict[int, str] = {}
    for claim in in_turn:
        run = claim.manifest
        other = numbers.setdefault(run.sequence, run.run_id)
        if other != run.run_id:
            yield ManifestError(
                f"{catalog.store}: runs {run.run_id} and {other} of {catalog.host} both have "
                f"number {run.sequence}",
                _CHECK,
            )
        before = by_run.get(run.previous_run)
        if before is not None and before.sha256 not in run.previous:
            yield ManifestError(
                f"{catalog.store}: run {run.previous_run} of {catalog.host} is not the one that "
                f"run {run.run_id} followed",
                _CHECK,
            )
