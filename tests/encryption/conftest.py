"""Both libraries of ciphers, one at a time: the other one really cannot be imported."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from encryption import provider

PACKAGES = {"cryptography": "cryptography", "pycryptodome": "Crypto"}


@contextmanager
def without(folder: Path, *libraries: str) -> Iterator[None]:
    """Make the import of these libraries fail, here and in every process that is started."""
    with pytest.MonkeyPatch.context() as patch:
        for library in libraries:
            package = PACKAGES[library]
            loaded = [name for name in sys.modules if name.split(".")[0] == package]
            for name in {package, *loaded}:
                patch.setitem(sys.modules, name, None)
            blocker = folder / f"{package}.py"
            blocker.write_text(f"raise ImportError('{package} is blocked by a test')\n")
        search = [str(folder), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(search))
        with forgotten(patch):
            yield


@contextmanager
def forgotten(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the library be chosen anew in the block, and once more after it."""
    for name in ("provider_cryptography", "provider_pycryptodome"):
        patch.delitem(sys.modules, f"encryption.{name}", raising=False)
    caches = (provider.current, provider.hybrid)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture(params=["cryptography", "pycryptodome"])
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The name of the only library of ciphers that can be imported."""
    name = str(request.param)
    importlib.import_module(PACKAGES[name])
    (other,) = PACKAGES.keys() - {name}
    with without(tmp_path_factory.mktemp("blocked"), other):
        with pytest.raises(ImportError):
            importlib.import_module(PACKAGES[other])
        assert provider.current().name == name
        yield name
