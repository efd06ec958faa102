"""What `backup.py -t` says of a bucket of Aliyun OSS; nothing is changed in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from storage import bucket_keys
from storage.bucket_keys import PLAINTEXT
from storage.create_only import PROBE
from storage.oss_account import Endpoint
from storage.oss_client import Client
from storage.oss_errors import DeniedError
from tools.base.errors import StoreError
from tools.base.finding import Finding, bad, warning
from tools.flow import store

_DAYS = 7  # for which an unfinished upload may be needed
_COLD = {"Archive", "ColdArchive", "DeepColdArchive"}


def connection(client: Client, server: Endpoint) -> Iterator[Finding]:
    """Yield what the traffic to a public server costs, and whether it is in plain text."""
    if server.other and not server.internal:
        yield Finding(
            f"{client}: traffic is free of charge on a server of Aliyun in this region with "
            f"ENDPOINT {server.other}"
        )
    if server.is_exposed:
        yield warning(f"{client}: {PLAINTEXT}", "Begin ENDPOINT with https://.")


def versioning(client: Client) -> Iterator[Finding]:
    """Yield a warning where OSS does not keep objects from being overwritten."""
    try:
        answer = client.call("GetBucketVersioning", "", lambda one: one.get_bucket_versioning())
    except DeniedError:
        yield Finding(f"{client}: versioning unknown: oss:GetBucketVersioning is not allowed")
        return
    if not answer.status:
        yield Finding(f"{client}: create-only: each run proves it with {PROBE}")
    else:
        yield warning(
            f"{client}: versioning is {answer.status}: create-only "
            f"{store.CreateOnly.LISTED.value}, and removed objects still take space",
            "Two machines must not write to the same folder at once. A lifecycle rule for "
            "previous versions frees their space.",
        )


def retention(client: Client) -> Iterator[Finding]:
    """Yield what the retention policy (WORM) of the bucket means."""
    try:
        policy = client.call("GetBucketWorm", "", lambda bucket: bucket.get_bucket_worm())
    except StoreError:  # none, or none that may be read
        return
    days = policy.retention_period_days
    if policy.state == "Locked":
        yield Finding(f"{client}: {bucket_keys.lock('retention policy of the bucket', days)}")
        return
    yield warning(
        f"{client}: the retention policy of the bucket ({days} days) is not locked: it ends 24 "
        "hours after it was made",
        "Lock it (CompleteBucketWorm) if objects shall be protected, or remove it.",
    )


def lifecycle(client: Client, folder: str) -> Iterator[Finding]:
    """Yield what the lifecycle rules of the bucket do to the objects of this host.

    folder: what their keys begin with
    """
    try:
        configuration = client.call(
            "GetBucketLifecycle", "", lambda one: one.get_bucket_lifecycle()
        )
    except StoreError:  # no rules, or none that may be read
        return
    for rule in configuration.rules:
        hits = folder.startswith(rule.prefix) or rule.prefix.startswith(folder)
        if hits and rule.status == "Enabled" and not rule.tagging:
            yield from _of_rule(rule, str(client))


def _of_rule(rule: Any, name: str) -> Iterator[Finding]:  # noqa: ANN401  (of oss2)
    subject = f"{name}: the lifecycle rule {rule.id or 'without an ID'}"
    expires = rule.expiration
    if expires and (expires.days or expires.date or expires.created_before_date):
        when = f"after {expires.days} days" if expires.days else "by their age"
        yield bad(
            f"{subject} removes backups {when}, whatever the KEEP rules of clean-up say, and the "
            "marker of the store with them",
            "Remove its expiration, or limit the rule to another prefix.",
        )
    for storage_class in sorted({one.storage_class for one in rule.storage_transitions} & _COLD):
        yield bad(
            f"{subject} moves backups to {storage_class}",
            "Remove its transition: a restore could not read the manifests.",
        )
    aborts = rule.abort_multipart_upload
    if aborts and aborts.days is not None and aborts.days < _DAYS:
        yield warning(
            f"{subject} aborts uploads after {aborts.days} days", f"Set it to {_DAYS} days or more."
        )
