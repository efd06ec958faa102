"""What a user does about an error of S3: commands of the aws program, and rights of a policy."""

from __future__ import annotations

import shlex

from storage.bucket_keys import Keys
from tools import os_works

_RIGHTS = {
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "DeleteObjects": "DeleteObject",
    "HeadObject": "GetObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListParts": "ListMultipartUploadParts",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
}


def configuring() -> str:
    """Return how the access key is written, as the end of a sentence."""
    return (
        f"with aws configure as the user {os_works.user()}, or set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY"
    )


def allowing(store: str, operation: str, name: str) -> str:
    """Return what a policy must allow: on the objects, or on the bucket for a call without one."""
    bucket, prefix = _parts(store)
    right = _RIGHTS.get(operation, operation)
    of_objects = name and not right.startswith("ListBucket")
    objects = f"/{Keys(prefix).of('*')}" if of_objects else ""
    return (
        f"Allow s3:{right} on arn:aws:s3:::{bucket}{objects} in the "
        "policy of this access key, or of the bucket (docs/modules/storage-s3.md)."
    )


def creating(store: str, endpoint: str) -> str:
    """Return the command that creates the bucket, in the region of the user's config of aws."""
    server = "" if "amazonaws.com" in endpoint else f" --endpoint-url {endpoint}"
    return f"aws s3 mb s3://{_parts(store)[0]}{server}"


def thawing(store: str, name: str) -> str:
    """Return the command that thaws an object."""
    bucket, prefix = _parts(store)
    where = f"--bucket {bucket} --key {shlex.quote(Keys(prefix).of(name))}"
    return f"aws s3api restore-object {where} --restore-request Days=7"


def _parts(store: str) -> tuple[str, str]:
    """Return bucket and prefix of s3://BUCKET/PREFIX."""
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    return bucket, prefix
