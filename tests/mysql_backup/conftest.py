"""A server for each test; a file may have its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import MariaDB


@pytest.fixture
def server() -> Iterator[MariaDB]:
    """One for each test: they purge its logs, make and drop its accounts."""
    started = MariaDB()
    yield started
    started.stop()
