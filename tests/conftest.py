"""What all tests share: requirements by name, and the tests that CI may not skip."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import fault_table, oss_server, sshd
from tests.brt import ReportServer
from tests.servers import search_path
from tests.system import System
from tools.base import masking, permissions
from tools.base.log import logger

# No test is timed: a machine under load is slow, and that is no failure.
hypothesis.settings.register_profile(
    "house", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("house")

MUST_RUN = Path(__file__).with_name("must_run.txt")
# Tests that start one of these servers, need an optional package, or start whole runs of the
# system, run under one Python only. EVERYWHERE: the whole runs that the other Pythons try.
SERVERS = frozenset({"mariadbd", "mysqld", "initdb", "redis-server", "slapd", "sshd", "rclone"})
PACKAGES = frozenset({"oss2", "aiosmtpd", "apprise", "prometheus_client"})  # of one Python only
EVERYWHERE = "tests/test_choices.py::test_every_choice_has_its_effect_in_both_modes[encryption"
RUNS = (  # start whole runs, or servers, by other means than the fixture
    "tests/copy_runs/test_stores.py",
    "tests/restore/test_attacks.py",
    "tests/restore/test_drill.py",
    "tests/restore/test_honest.py",
    "tests/test_adding.py",
    "tests/test_hung_mount.py",
)
PLACES = "tests/storage/"  # of its stores the other Pythons try these: servers are of dev alone
WRAPPERS = tuple(PLACES + name for name in ("test_storage", "test_store_wrappers", "test_block"))
TRIED = re.compile(r"[\[-](?:local|memory)[\]-]")
# They read the text of the project: what they find is the same under each Python.
TEXTS = (
    *("tests/test_layout.py", "tests/test_language.py", "tests/test_docs.py"),
    *("tests/test_foreign_text.py", "tests/tools/test_patterns.py"),
)


@pytest.fixture(autouse=True)
def _same_process() -> Iterator[None]:
    """What a test changes in this process, or lets its server do, is gone after it."""
    umask = os.umask(0o022)
    secrets, spelled = set(masking._secrets), dict(masking._spelled)
    propagate, handlers = logger.propagate, list(logger.handlers)
    yield
    logger.propagate, logger.handlers = propagate, handlers  # else caplog gets nothing any more
    masking._secrets.clear()  # with thousands of secrets each text takes long
    masking._secrets.update(secrets)
    masking._spelled.clear()
    masking._spelled.update(spelled)
    os.umask(umask)
    oss_server.reset_all()
    os.environ.pop(permissions.ACCEPT, None)  # --insecure-permissions sets it


def pytest_addoption(parser: pytest.Parser) -> None:
    """The table of docs/reliability.md is made by: pytest --collect-only -q --faults."""
    parser.addoption("--faults", action="store_true", help="print the table of the faults tried")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Print it."""
    if not session.config.getoption("--faults"):
        return
    print("FAULTS", fault_table.table() + "END", sep="\n")


def pytest_sessionfinish() -> None:
    """Stop the sshd of this process: a worker of xdist ends without its exit handlers."""
    sshd.stop()


def pytest_configure(config: pytest.Config) -> None:
    """The markers of this project (docs/development.md)."""
    config.addinivalue_line(
        "markers", "needs(*names): programs on the path, or root: skipped by name without them"
    )
    config.addinivalue_line(
        "markers", "fault(what, then): a fault that is tried, for the table in docs/reliability.md"
    )
    config.addinivalue_line("markers", "slow: runs under one Python only")
    config.addinivalue_line("markers", "unit: starts no server and no whole run; set by this file")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that every Python runs."""
    for item in items:
        server = any(
            (SERVERS | PACKAGES) & set(marker.args) for marker in item.iter_markers("needs")
        )
        is_run = "system" in getattr(item, "fixturenames", ())
        is_run = is_run and not item.nodeid.startswith(EVERYWHERE)
        far = item.nodeid.startswith(PLACES) and not item.nodeid.startswith(WRAPPERS)
        far = far and not TRIED.search(item.nodeid)
        if not (server or is_run or far or item.nodeid.startswith((*TEXTS, *RUNS))):
            item.add_marker("unit")


@pytest.fixture
def server() -> Iterator[ReportServer]:
    """A real report server on a free port."""
    opened = ReportServer()
    yield opened
    opened.close()


@pytest.fixture
def system(tmp_path: Path) -> System:
    """Folders and a config of a backup; a file may have its own."""
    return System(tmp_path)


def missing(name: str) -> str:
    """Why a requirement is not met; "" where it is."""
    if name == "root":
        return "" if os.geteuid() == 0 else "needs root"
    if name in PACKAGES:
        is_installed = importlib.util.find_spec(name) is not None
        return "" if is_installed else f"needs the package {name}, which is not installed"
    return "" if shutil.which(name, path=search_path()) else f"needs {name}, which is not installed"


def must_run(node_id: str) -> bool:
    """Whether CI lists this test."""
    lines = MUST_RUN.read_text(encoding="utf-8").splitlines()
    is_listed = [
        line[0] != "!"
        for line in lines
        if line and line[0] != "#" and fnmatch.fnmatchcase(node_id, line.removeprefix("!"))
    ]
    return bool(is_listed) and is_listed[-1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose requirements are not met, naming them."""
    for marker in item.iter_markers("needs"):
        reasons = [reason for reason in map(missing, marker.args) if reason]
        if reasons:
            pytest.skip("; ".join(reasons))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set, a skip of a test that CI lists is a failure."""
    report = yield
    expected = hasattr(report, "wasxfail")
    if report.skipped and not expected and os.environ.get("CI") and must_run(item.nodeid):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not be skipped in CI: {reason}"
    return report
