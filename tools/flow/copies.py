"""Several objects of one name in a store: size and SHA-256 tell them apart."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tools.flow.store import StoredObject, ability


@runtime_checkable
class Choosing(Protocol):
    """A store that may hold several objects of one name: size and SHA-256 tell them apart."""

    def choose(self, stored: StoredObject) -> None:
        """Let `get` read this one of the objects of its name from now on."""

    def holds(self, stored: StoredObject) -> bool:
        """Return whether there are several, of which one has this size."""


def choose(store: object, stored: StoredObject) -> None:
    """Tell a store which object of a name will be read, where it may hold several."""
    choosing = ability(store, Choosing)  # type: ignore[type-abstract]
    if choosing is not None:
        choosing.choose(stored)


def holds(store: object, stored: StoredObject, listed: int | None) -> bool:
    """Return whether a store holds an object of this size. listed: the size in its listing"""
    if listed is None or listed == stored.size:
        return listed is not None
    choosing = ability(store, Choosing)  # type: ignore[type-abstract]
    return choosing is not None and choosing.holds(stored)
