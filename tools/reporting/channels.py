"""The table of the report channels, and those that a config uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.config.declarations import General
from tools.config.notify import NotifyChannel
from tools.config.notify_keys import ENDS, ChannelKeys, EmailKeys
from tools.reporting import apprise_service, brt, ntfy, ping, webhook
from tools.reporting.channel import Channel, Recipient
from tools.requests_utils import Limits

# By name, as spooled reports and --json have it: makes the channel, or None if GENERAL does not
# configure it. A new channel is one file and one row here or below.
CHANNELS: Mapping[str, Callable[[General], Channel | None]] = {
    "brt": brt.from_general,
}


def _email(keys: EmailKeys) -> Channel:
    from tools.reporting import smtp_mail  # its libraries cost start-up time

    return smtp_mail.Email(keys)


# By TYPE of a channel of NOTIFY: makes the channel from its keys, of that type.
TYPES: Mapping[str, Callable[[Any], Channel]] = {
    "email": _email,
    "webhook": webhook.Webhook,
    "ping": ping.Ping,
    "ntfy": ntfy.Ntfy,
    "apprise": apprise_service.AppriseService,
}
# A monitor counts the time of arrival: an old ping would tell of a run that was not now.
_NOT_KEPT = ("ping",)
_BUDGET = 60.0  # seconds that a channel of NOTIFY may prolong a run: all attempts and waits
_FIRST_WAIT = 5.0  # seconds: two more attempts fit into it
_NOT_OF_RESTORES = ("ping",)  # a monitor waits for backups


def configured(general: General, notify: Sequence[NotifyChannel] = ()) -> dict[str, Recipient]:
    """Return the channels that a config uses, by name."""
    channels = {name: make(general) for name, make in CHANNELS.items()}
    wait = float(general.message_config_wait)
    recipients = {
        name: Recipient(name, "report", channel, ENDS, wait)
        for name, channel in channels.items()
        if channel is not None
    }
    return recipients | {channel.name: _recipient(channel, wait) for channel in notify}


def of_restores(general: General, notify: Sequence[NotifyChannel]) -> dict[str, Recipient]:
    """Return the channels that are told of a restore."""
    channels = [channel for channel in notify if channel.keys.type not in _NOT_OF_RESTORES]
    return configured(general, channels)


def _recipient(channel: NotifyChannel, wait: float) -> Recipient:
    keys = channel.keys
    kind = keys.type
    return Recipient(
        key=f"{kind}:{channel.name}",
        label=f"notification {channel.name}",
        channel=TYPES[kind](keys),
        outcomes=keys.outcomes,
        first_wait=min(wait, _FIRST_WAIT),
        keep=kind not in _NOT_KEPT,
        limits=_limits(keys),
    )


def _limits(keys: ChannelKeys) -> Limits:
    most = float(keys.timeout)
    return Limits(min(Limits().connect, most), read=most, whole=most, budget=_BUDGET)
