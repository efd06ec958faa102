"""What the tests of setup.py share: a root that may be changed for real."""

from __future__ import annotations

from tests.throwaway_root import root

__all__ = ["root"]
