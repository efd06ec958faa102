"""Parts of what setup.py grants and schedules, without a root of their own."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.base import project
from tools.base.errors import BackupError, ConfigError
from tools.setup import installing, labels, private_tar, schedule, schedule_files, steps, sudoers
from tools.setup.installation import Installation
from tools.setup.schedule_files import Kind


@pytest.mark.needs("visudo")
def test_no_line_of_sudoers_is_put_in_place_that_visudo_rejects(
    tmp_path: Path,
) -> None:
    file = tmp_path / "sudoers"
    file.write_text("# before\n")
    with pytest.raises(BackupError, match="visudo rejects the new content"):
        sudoers.replace(file, b"ncbackup ALL = (root NOPASSWD\n")
    assert file.read_text() == "# before\n"
    assert list(tmp_path.iterdir()) == [file]


def test_labels_of_selinux_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "restorecon"
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("tools.setup.programs.PATH", str(tmp_path))
    monkeypatch.setattr(labels, "ENFORCE", tmp_path / "no")
    labels.restore(Path("/x"))
    assert not (tmp_path / "called").exists()
    monkeypatch.setattr(labels, "ENFORCE", tool)
    labels.restore(Path("/x"))
    assert (tmp_path / "called").read_text() == "-R /x\n"


def test_mounts_that_allow_no_capability_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    points = ["/", "/usr", r"/usr/lo\040cal", "/usr/lo cal/share"]
    mounts.write_text("".join(f"36 35 98:0 / {point} rw - ext4 /dev/x rw\n" for point in points))
    monkeypatch.setattr(private_tar, "_MOUNTS", mounts)
    assert private_tar.mount_point(Path("/usr/lo cal/libexec")) == Path("/usr/lo cal")
    copy = tmp_path / "tar"
    assert private_tar.impossible(copy) == ""
    for flag, option in ((os.ST_NOSUID, "nosuid"), (os.ST_NOEXEC, "noexec")):
        about = SimpleNamespace(f_flag=flag)
        monkeypatch.setattr(os, "statvfs", lambda _path, about=about: about)
        assert f"/ is mounted with {option}" in private_tar.impossible(copy)
        assert f"mount -o remount,{option[2:]} /" in private_tar.impossible(copy)


@pytest.mark.parametrize("text", ["03:00", " 3:00 ", "timer 23:59", "cron 0:00", "none"])
def test_times_of_a_schedule(text: str) -> None:
    kind, when = schedule_files.parsed(text)
    assert (when is None) == (text == "none")
    for one in Kind:
        texts = schedule_files.files(one, when, "/usr/bin/python3").values() if when else ()
        assert schedule_files.time_of("".join(texts)) == when
    assert kind is {"t": Kind.TIMER, "c": Kind.CRON}.get(text[0])


@pytest.mark.parametrize(
    "text", ["", "3", "24:00", "03:60", "0 3 * * *", "daily", "03:00\n* * * * * root x", "at 03:00"]
)
def test_what_is_no_time_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--schedule: .*: not a time of day$") as raised:
        schedule_files.parsed(text)
    assert "03:00" in raised.value.hint


def test_the_address_of_mails_stays_in_a_file_of_cron(tmp_path: Path) -> None:
    installation = Installation(
        project.ROOT, Path(sys.executable), prefix=tmp_path, schedule="cron 03:00"
    )
    assert steps.perform(schedule.steps(installation)) == 1
    cron = installation.at(schedule_files.CRON)
    cron.write_text(cron.read_text().replace("0 3 *", "MAILTO=ops@example.com\n0 3 *"))
    assert steps.perform(schedule.steps(installation)) == 0
    later = dataclasses.replace(installation, schedule="cron 04:00")
    assert steps.perform(schedule.steps(later)) == 1
    assert "MAILTO=ops@example.com\n0 4 * * * ncbackup" in cron.read_text()


def test_a_schedule_that_nothing_could_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --schedule it is a warning; the rest of the installation stands in both cases."""
    monkeypatch.setattr(schedule, "_kind", lambda _: None)
    installation = Installation(
        project.ROOT, Path(sys.executable), prefix=tmp_path, schedule="3:00"
    )
    done: list[str] = []
    rest = steps.Step("rest", "do it", lambda: "" if done else "new", lambda: done.append("rest"))
    table = (schedule.steps, lambda _: iter([rest]))
    with pytest.raises(BackupError, match="--schedule 3:00: there is neither systemd nor cron"):
        installing._change(table, installation)
    assert done == ["rest"]
    forced = dataclasses.replace(installation, schedule="cron 03:00", errors=[])
    assert installing._change(table, forced) == 0


def test_a_schedule_that_was_changed_by_hand_is_kept(tmp_path: Path) -> None:
    installation = Installation(project.ROOT, Path(sys.executable), prefix=tmp_path)
    scheduled = dataclasses.replace(installation, schedule="03:00")
    assert steps.perform(schedule.steps(scheduled)) == 2
    assert steps.perform(schedule.steps(scheduled)) == 0
    assert steps.perform(schedule.steps(installation)) == 0
    timer = installation.at(schedule_files.TIMER)
    changed = timer.read_text().replace("*-*-* 03:00:00", "Mon *-*-* 03:00:00")
    timer.write_text(changed)
    assert steps.perform(schedule.steps(installation)) == 0
    assert "changed by hand" in installation.notices[0]
    assert timer.read_text() == changed
    assert steps.perform(schedule.steps(dataclasses.replace(scheduled, schedule="none"))) == 2
    assert not timer.exists()
