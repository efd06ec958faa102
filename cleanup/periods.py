"""Hours, days, weeks, months and years of a time zone, as clean-up counts them.

A period has a number, which grows with time, and a label, which messages show.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo

_DAYS_OF_A_WEEK = 7


@dataclass(frozen=True)
class Calendar:
    """A time zone, and the days on which weeks and months begin.

    week_day:  1 (Monday) to 7 (Sunday)
    month_day: 1 to 31; a month that is shorter begins on its last day
    """

    zone: tzinfo = timezone.utc
    week_day: int = 1
    month_day: int = 1

    def hour(self, moment: datetime) -> int:
        """Return the number of the hour of the local clock that a moment is in.

        The hour that the clock repeats in autumn is two hours.
        """
        local = moment.astimezone(self.zone)
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return int((moment - into).timestamp())

    def day(self, moment: datetime) -> int:
        """Return the number of the local day that a moment is in."""
        return moment.astimezone(self.zone).toordinal()

    def week(self, moment: datetime) -> int:
        """Return the number of the day on which the week of a moment begins."""
        local = moment.astimezone(self.zone)
        return local.toordinal() - (local.isoweekday() - self.week_day) % _DAYS_OF_A_WEEK

    def month(self, moment: datetime) -> int:
        """Return the number of the month that a moment is in."""
        local = moment.astimezone(self.zone)
        number = local.year * 12 + local.month - 1
        return number if local.day >= self._first(number).day else number - 1

    def year(self, moment: datetime) -> int:
        """Return the local year of a moment."""
        return moment.astimezone(self.zone).year

    def label_of_hour(self, number: int) -> str:
        """Return an hour with its distance from UTC: 2026-10-25 02:00+0100."""
        return datetime.fromtimestamp(number, self.zone).strftime("%Y-%m-%d %H:%M%z")

    def label_of_day(self, number: int) -> str:
        """Return the date of a day."""
        return date.fromordinal(number).isoformat()

    def label_of_week(self, number: int) -> str:
        """Return a week by its number in ISO 8601; one that begins on another day by its date."""
        first = date.fromordinal(number)
        year, week, day = first.isocalendar()
        return f"{year}-W{week:02}" if day == 1 else f"from {first.isoformat()}"

    def label_of_month(self, number: int) -> str:
        """Return the name of a month; one that does not begin on the 1st by its date."""
        first = self._first(number)
        if self.month_day == 1:
            return f"{first.year}-{first.month:02}"
        return f"from {first.isoformat()}"

    def label_of_year(self, number: int) -> str:
        """Return a year."""
        return str(number)

    def _first(self, number: int) -> date:
        """Return the day on which a month begins."""
        year, month = divmod(number, 12)
        last = calendar.monthrange(year, month + 1)[1]
        return date(year, month + 1, min(self.month_day, last))


@dataclass(frozen=True)
class Period:
    """One kind of period: how its numbers and labels are computed."""

    name: str
    number: Callable[[Calendar, datetime], int]
    label: Callable[[Calendar, int], str]


HOURLY = Period("hourly", Calendar.hour, Calendar.label_of_hour)
DAILY = Period("daily", Calendar.day, Calendar.label_of_day)
WEEKLY = Period("weekly", Calendar.week, Calendar.label_of_week)
MONTHLY = Period("monthly", Calendar.month, Calendar.label_of_month)
YEARLY = Period("yearly", Calendar.year, Calendar.label_of_year)
ALL = (HOURLY, DAILY, WEEKLY, MONTHLY, YEARLY)
