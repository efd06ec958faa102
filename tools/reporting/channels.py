"""The table of the report channels, and those that a config uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tools.config.declarations import General
from tools.reporting import brt
from tools.reporting.channel import Channel

# By name, as spooled reports and --json have it: makes the channel, or None if GENERAL does not
# configure it. A new channel is one file and one row here.
CHANNELS: Mapping[str, Callable[[General], Channel | None]] = {
    "brt": brt.from_general,
}


def configured(general: General) -> dict[str, Channel]:
    """Return the channels that GENERAL configures, by name."""
    made = {name: make(general) for name, make in CHANNELS.items()}
    return {name: channel for name, channel in made.items() if channel is not None}
