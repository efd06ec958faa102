"""What setup.py grants in a real root, tried as the user of the backup, and what stays refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests import throwaway_root
from tests.setup.granting import grant
from tests.throwaway_root import ThrowawayRoot
from tools.base import fixed_tar, project
from tools.setup import sudoers
from tools.setup.installation import PRIVATE_TAR

pytestmark = [pytest.mark.slow, pytest.mark.needs("root", "unshare", "nsenter")]
NOSUID = "mount --bind /usr/local /usr/local && mount -o remount,bind,nosuid /usr/local"


@pytest.fixture(scope="module")
def installed() -> Iterator[ThrowawayRoot]:
    """A root in which setup.py was run, and a file that only root can read."""
    with throwaway_root.opened() as root:
        root.run(
            "sh", "-c", "rm -f /etc/sudoers.d/*; mkdir -m 0700 /secret; echo s3cret > /secret/f"
        )
        grant(root)
        yield root


def as_user(root: ThrowawayRoot, *command: str, text: str = "") -> str:
    """Return what a command of the user of the backup prints, errors included."""
    done = root.run(*command, user="ncbackup", text=text, code=None)
    return done.stdout + done.stderr


def test_the_copy_reads_everything_and_does_nothing_else(installed: ThrowawayRoot) -> None:
    """RELIABILITY 4.1: no writing, no power for what it starts, no use for other users."""
    assert "s3cret" in as_user(installed, PRIVATE_TAR, "-cf", "-", "/secret/f")
    for attack in (
        ["--checkpoint=1", "--checkpoint-action=exec=cat /secret/f >&2", "-cf", "/dev/null"],
        ["--use-compress-program=sh -c 'cat /secret/f >&2'", "-cf", "/opt/backup/x.tar"],
    ):
        printed = as_user(installed, PRIVATE_TAR, *attack, "/etc/fstab")
        assert "/secret/f: Permission denied" in printed
        assert "s3cret" not in printed
    as_user(installed, "cp", "-a", PRIVATE_TAR, "/opt/backup/tar")
    assert "Permission denied" in as_user(installed, "/opt/backup/tar", "-cf", "-", "/secret/f")
    written = as_user(installed, PRIVATE_TAR, "-cf", "/etc/sudoers.d/x", "/etc/hostname")
    assert "Permission denied" in written
    assert "Permission denied" in as_user(
        installed, PRIVATE_TAR, "-cf", "/dev/null", "--remove-files", "/secret"
    )
    assert installed.path("/secret/f").exists()
    for program, loads in (("/usr/bin/tar", True), (PRIVATE_TAR, False)):
        printed = as_user(installed, "env", "LD_PRELOAD=/no/such.so", program, "--version")
        assert ("/no/such.so" in printed) is loads  # the loader ignores it for the copy
    other = installed.run(PRIVATE_TAR, "--version", user="nobody", code=None)
    assert "Permission denied" in other.stderr


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("setfattr -x security.capability {}", "lost its capability"),
        ("chmod 0755 {}", "its mode is 0755"),
        ("setcap cap_dac_override=ep {}", "it has other capabilities"),
        ("cp /usr/bin/tar /t && echo >> /t && cat /t > {}", "/usr/bin/tar has changed"),
        ("ln -sf /usr/bin/tar {}", "it is not a file"),
    ],
)
def test_the_copy_is_made_again_where_it_is_not_right(
    installed: ThrowawayRoot, damage: str, reason: str
) -> None:
    installed.run("sh", "-c", damage.format(PRIVATE_TAR))
    assert reason in grant(installed, "--dry-run")
    grant(installed)
    assert "s3cret" in as_user(installed, PRIVATE_TAR, "-cf", "-", "/secret/f")


def test_a_mount_without_capabilities_is_named_and_sudo_is_the_way(
    installed: ThrowawayRoot,
) -> None:
    installed.run("sh", "-c", NOSUID)
    output = grant(installed)
    assert "/usr/local is mounted with nosuid" in output
    assert "mount -o remount,suid /usr/local" in output
    about = installed.path(sudoers.FILE).stat()
    assert (about.st_mode & 0o7777, about.st_uid) == (0o440, 0)
    installed.run("visudo", "-cf", sudoers.FILE)
    allowed = ["sudo", "-n", fixed_tar.program(), *fixed_tar.sudo_arguments(single=False)]
    assert "s3cret" in as_user(installed, *allowed, text="secret/f\0")
    assert archived_by_sudo(installed) == ["secret/", "secret/a b/", "secret/f"]
    for attack, text in attacks(allowed):
        printed = as_user(installed, *attack, text=text)
        assert "uid=0" not in printed, attack
        assert not installed.path("/etc/sudoers.d/x").exists(), attack
    assert installed.path("/secret/f").exists()
    installed.run("umount", "/usr/local")
    grant(installed)
    assert not installed.path(sudoers.FILE).exists()
    assert not installed.path(str(fixed_tar.EXCLUDES)).exists()
    assert "password is required" in as_user(installed, *allowed, text="secret/f\0")


def archived_by_sudo(root: ThrowawayRoot) -> list[str]:
    """Return the names in the archive of filesbackup, of which excludes leave out the others."""
    root.run(
        "sh", "-c", "cd /secret; mkdir -p 'a b'; touch x.log 'a b/cache' '*'; chmod 0711 /root"
    )
    arguments = ["--FILESET_INCLUDE", "/secret", "--WORK_FOLDER", "/opt/backup/work"]
    arguments += ["--FILESET_EXCLUDE", json.dumps(["*.log", "/secret/**/cache", r"/secret/\*"])]
    program = [sys.executable, str(project.ROOT / "filesbackup/filesbackup.py")]
    root.run(*program, *arguments, user="ncbackup")
    listed = root.run("sh", "-c", "tar tf /opt/backup/work/files/*.tar").stdout
    return sorted(listed.splitlines())


def attacks(allowed: list[str]) -> Iterator[tuple[list[str], str]]:
    """Give commands that must not run as root, each with its standard input."""
    sudo, rest = allowed[:2], allowed[2:]
    action = "--checkpoint-action=exec=id"
    exec_ = ["--checkpoint=1", action]
    for more in (exec_, ["--to-command=id"], ["--use-compress-program=id"], ["--remove-files"]):
        yield [*allowed, *more], "secret/f\0"
        yield [*sudo, rest[0], *more, *rest[1:]], "secret/f\0"
    yield [word.replace("--file=-", "--file=/etc/sudoers.d/x") for word in allowed], "secret/f\0"
    yield [word.replace("--xattrs-include=*", "--xattrs-include=x") for word in allowed], ""
    yield [*sudo, "-E", *rest], "secret/f\0"
    yield [*sudo, f"TAR_OPTIONS={' '.join(exec_)}", *rest], "secret/f\0"
    yield ["env", f"TAR_OPTIONS={' '.join(exec_)}", *allowed], "secret/f\0"
    yield ["env", "TAPE=/etc/sudoers.d/x", *allowed], "secret/f\0"
    yield [*sudo, "-C", "9", *rest], "secret/f\0"
    yield allowed, "\0".join([*exec_, "--file=/etc/sudoers.d/x", "-C/etc", "secret/f"]) + "\0"
    yield [*sudo, "-u", "nobody", *rest], "secret/f\0"


def test_the_excludes_of_sudo_cannot_be_replaced_by_links(installed: ThrowawayRoot) -> None:
    """As root, tar opens these files: a link to a device would be opened as well."""
    installed.run("sh", "-c", NOSUID)
    grant(installed)
    target = fixed_tar.EXCLUDES / fixed_tar.LITERAL
    assert "ermission denied" in as_user(installed, "ln", "-sf", "/dev/watchdog", str(target))
    assert "ermission denied" in as_user(installed, "mv", str(target), "/opt/backup/x")
    as_user(installed, "sh", "-c", f"echo secret/f > {target}")
    allowed = ["sudo", "-n", fixed_tar.program(), *fixed_tar.sudo_arguments(single=False)]
    assert "s3cret" not in as_user(installed, *allowed, text="secret\0")
    installed.run("umount", "/usr/local")
    grant(installed)


@pytest.mark.parametrize("single", [False, True])
def test_no_word_follows_the_name_of_the_archive(single: bool) -> None:
    """Passed as one word with it, which sudo cannot tell, it would name a file for root."""
    assert fixed_tar.sudo_arguments(single=single)[-1] == "--file=-"
