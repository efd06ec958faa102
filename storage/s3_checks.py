"""What `backup.py -t` and the result of a run say of a bucket; nothing is changed in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from storage import account_checks, bucket_keys
from storage.bucket_keys import PLAINTEXT, Keys, is_public_plaintext
from storage.create_only import PROBE
from storage.s3_blocks import S3Blocks
from storage.s3_errors import ChecksumRefusedError, DeniedError, MissingError
from tools.base.finding import Finding, bad, warning
from tools.flow.store import CreateOnly

_HTTPS = "Begin ENDPOINT_URL with https://."
_DAYS = 7  # for which an unfinished upload may be needed
_COLD = ("GLACIER", "DEEP_ARCHIVE")


def note(backend: S3Blocks) -> str:
    """Return what the result of a run says beside the name of the store; "" for nothing."""
    endpoint = backend.client.connection.endpoint
    notes = [] if "amazonaws.com" in endpoint else [f"at {endpoint}"]
    if backend.guard.proofs.is_refuted:
        notes.append(f"create-only {CreateOnly.LISTED.value}")
    return ", ".join(notes)


def tested(backend: S3Blocks) -> Sequence[Finding]:
    """Return what was found. Raises StoreError where the bucket cannot be used."""
    options = backend.client.options
    connection = backend.client.connection
    next(iter(backend.folders()), None)
    findings = [Finding(f"{options.url}: {connection.about()}")]
    if is_public_plaintext(connection.endpoint):
        findings.append(warning(f"{options.url}: {PLAINTEXT}", _HTTPS))
    findings.append(_create_only(backend))
    findings += [*lock(backend), *lifecycle(backend)]
    findings += account_checks.of_bucket(backend, options.hostname)
    return [*findings, *account_checks.clock(backend, backend.client.ahead)]


def _create_only(backend: S3Blocks) -> Finding:
    """Return whether objects can be overwritten, by a probe that an earlier run has left."""
    if backend.listing.entry(PROBE) is None:
        return Finding(f"{backend}: create-only: the first run proves it with {PROBE}")
    if backend.guard.probe_put():
        return Finding(f"{backend}: create-only {CreateOnly.PROBED.value}")
    return warning(
        f"{backend}: create-only {CreateOnly.LISTED.value}: this server replaces objects",
        "Two machines must not write to the same folder at once. Append-only is not possible here.",
    )


def lock(backend: S3Blocks) -> Iterator[Finding]:
    """Yield what Object Lock means for the objects of this host: the bucket's and ours."""
    options = backend.client.options
    days, mode = options.object_lock_days, options.object_lock_mode
    try:
        answer = backend.client.call("get_object_lock_configuration")
    except MissingError:
        answer = {}
    except (DeniedError, ChecksumRefusedError) as error:  # the latter also for 501
        if days:
            yield warning(
                f"{backend}: whether the bucket has Object Lock is not known: {error}", error.hint
            )
            yield Finding(f"{backend}: {_meaning(mode, days)}")
        return
    config = answer.get("ObjectLockConfiguration", {})
    retention = config.get("Rule", {}).get("DefaultRetention", {})
    default = int(retention.get("Days") or 365 * int(retention.get("Years") or 0))
    if days and config.get("ObjectLockEnabled") != "Enabled":
        yield bad(
            f"{backend}: OBJECT_LOCK_MODE is set, and the bucket has no Object Lock",
            "Enable Object Lock for the bucket, or remove OBJECT_LOCK_MODE and OBJECT_LOCK_DAYS.",
        )
    elif days:
        yield Finding(f"{backend}: {_meaning(mode, days)}")
    elif default:
        about = _meaning(str(retention.get("Mode")), default)
        yield Finding(f"{backend}: {about} (default retention of the bucket)")


def _meaning(mode: str, days: int) -> str:
    return bucket_keys.lock(f"Object Lock, {mode}", days, bypass=mode == "GOVERNANCE")


def lifecycle(backend: S3Blocks) -> Iterator[Finding]:
    """Yield what the lifecycle rules of the bucket do to the objects of this host."""
    try:
        answer = backend.client.call("get_bucket_lifecycle_configuration")
    except (DeniedError, MissingError, ChecksumRefusedError):  # the latter also for 501
        return
    rules = [rule for rule in answer.get("Rules", ()) if rule.get("Status") == "Enabled"]
    hit = [rule for rule in rules if _hits(rule, backend.keys, backend.client.options.hostname)]
    for rule in hit:
        yield from _of_rule(rule, str(backend))


def _hits(rule: Mapping[str, Any], keys: Keys, host: str) -> bool:
    """Return whether a rule is about objects of a host, as far as its prefix says."""
    only = rule.get("Filter", {})
    prefix = rule.get("Prefix") or only.get("Prefix") or only.get("And", {}).get("Prefix") or ""
    ours = keys.folder(host)
    return ours.startswith(prefix) or str(prefix).startswith(ours)


def _of_rule(rule: Mapping[str, Any], store: str) -> Iterator[Finding]:
    name = rule.get("ID") or "without an ID"
    expiration = rule.get("Expiration", {})
    if expiration.get("Days") or expiration.get("Date"):
        when = f"after {days} days" if (days := expiration.get("Days")) else "by their age"
        yield bad(
            f"{store}: the lifecycle rule {name} removes backups {when}, whatever the KEEP rules "
            "of clean-up say, and the marker of the store with them",
            "Remove its Expiration, or limit the rule to another prefix.",
        )
    cold = [one.get("StorageClass") for one in rule.get("Transitions", ())]
    for storage_class in sorted(set(cold) & set(_COLD)):
        yield bad(
            f"{store}: the lifecycle rule {name} moves backups to {storage_class}",
            "Remove its Transition: a restore could not read the manifests.",
        )
    days = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
    if days is not None and int(days) < _DAYS:
        yield warning(
            f"{store}: the lifecycle rule {name} aborts uploads after {days} days",
            f"Set DaysAfterInitiation to {_DAYS} or more.",
        )
