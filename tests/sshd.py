"""One sshd for all tests of a process: each port is another kind of account."""

from __future__ import annotations

import atexit
import functools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from storage import ssh_session
from storage.ssh_command import Server
from storage.ssh_objects import SshStore
from storage.ssh_session import Session
from tests import servers
from tools.base import project
from tools.flow.retries import Retries

_PATIENCE = 60.0  # seconds until it must answer
_ATTEMPTS = 5
_SFTP = 'case "$SSH_ORIGINAL_COMMAND" in *sftp-server*) exec $SSH_ORIGINAL_COMMAND;; esac; '
_COMMAND = '"$SSH_ORIGINAL_COMMAND"'
APPEND_ONLY = project.ROOT / "conf/policies/append_only_sftp.py"
# What each port does with the command or the subsystem that the client names.
KINDS = {
    "login shell": "",
    "no shell": "internal-sftp -d FOLDER/home",
    "no hard links": "internal-sftp -P hardlink,fsync,statvfs,limits",
    "tcsh": f"{_SFTP}exec tcsh -c {_COMMAND}",
    "fish": f"{_SFTP}exec fish -c {_COMMAND}",
    "rbash": f"{_SFTP}exec rbash -c {_COMMAND}",
    "nologin": f"{_SFTP}echo This account is currently not available.; exit 1",
    "noise": f"echo 'Welcome!'; printf 'mail: 3\\0\\0 '; exec sh -c {_COMMAND}",
    "no sftp": f"{_SFTP.replace('exec $SSH_ORIGINAL_COMMAND', 'exit 1')}exec sh -c {_COMMAND}",
    "quota": f"trap '' XFSZ; ulimit -f 2000; {_SFTP}exit 1",
    # Python ignores SIGXFSZ, and so would the sftp-server of a sshd that it started with that.
    "killed": "ulimit -f 2000; exec env --default-signal=XFSZ $SSH_ORIGINAL_COMMAND",
    "other home": f"{_SFTP.replace(';;', ' -d FOLDER/home;;')}exec sh -c {_COMMAND}",
    "read only": "internal-sftp -R",
    "append only": f"{sys.executable} {APPEND_ONLY} FOLDER/kept",
    "liar": f"PATH=FOLDER/bin:$PATH; {_SFTP}exec sh -c {_COMMAND}",
}


class Sshd:
    """An sshd as the current user, with a key of its own and one account: this user."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nc-test-sshd-"))
        self.home = self.folder / "home"  # where the account without a shell begins
        self.home.mkdir()
        self.kept = self.folder / "kept"  # where files can only be added
        self.kept.mkdir()
        (self.folder / "bin").mkdir()
        for name in ("openssl", "sha256sum"):
            liar = self.folder / "bin" / name
            liar.write_text(f"#!/bin/sh\necho {'0' * 64}\n")
            liar.chmod(0o755)
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        for name in ("host", "id", "other"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(command, check=True)
        shutil.copy(self.folder / "id.pub", self.folder / "authorized_keys")
        key = (self.folder / "host.pub").read_text().rpartition(" ")[0]
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:* {key}\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # the package's service makes it
        self.ports: dict[str, int] = {}
        self._process = self._started()
        atexit.register(self.stop)

    def _started(self) -> subprocess.Popen[bytes]:
        """Start it, on other ports where another program has taken one meanwhile."""
        config, log = self.folder / "sshd_config", self.folder / "log"
        for _ in range(_ATTEMPTS):
            self.ports = {name: servers.free_port() for name in (*KINDS, "nobody")}
            config.write_text(self._config())
            log.unlink(missing_ok=True)
            command = [servers.program("sshd"), "-D", "-f", str(config), "-E", str(log)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            if self._listens(process, log):
                return process
            process.terminate()
            process.wait(30)
        raise AssertionError(log.read_text() if log.exists() else "sshd wrote no log")

    def _config(self) -> str:
        sftp = next(
            path
            for path in (
                *(Path("/usr/lib/openssh/sftp-server"), Path("/usr/libexec/openssh/sftp-server")),
                *(Path("/usr/lib/ssh/sftp-server"), Path("/usr/libexec/sftp-server")),
            )
            if path.exists()
        )
        lines = [
            *(f"Port {self.ports[kind]}" for kind in KINDS),
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder}/host",
            f"AuthorizedKeysFile {self.folder}/authorized_keys",
            "PidFile none",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "StrictModes no",
            "MaxStartups 100",
            "LogLevel VERBOSE",
            f"Subsystem sftp {sftp}",
        ]
        for name, command in KINDS.items():
            if command:
                forced = command.replace("FOLDER", str(self.folder))
                lines += [f"Match LocalPort {self.ports[name]}", f" ForceCommand {forced}"]
        return "\n".join([*lines, ""])

    def _listens(self, process: subprocess.Popen[bytes], log: Path) -> bool:
        """Wait until it listens on all ports; False where it does not."""
        until = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < until:
            text = log.read_text() if log.exists() else ""
            if text.count("Server listening on") == len(KINDS):
                return True
            if "failed: Address already in use" in text:
                return False
            time.sleep(0.02)
        return False

    def server(self, kind: str = "login shell", **more: object) -> Server:
        """The account of a kind."""
        keys = {"key": self.folder / "id", "known_hosts": self.folder / "known_hosts", **more}
        return Server("127.0.0.1", self.ports[kind], self.user, **keys)  # type: ignore[arg-type]

    def keys(self, kind: str = "login shell") -> dict[str, str]:
        """The keys of a storage section for it."""
        server = self.server(kind)
        return {
            "DESTINATION": "ssh",
            "HOST": server.host,
            "PORT": str(server.port),
            "USER": server.user,
            "KEY": str(server.key),
            "KNOWN_HOSTS": str(server.known_hosts),
        }

    @functools.cache  # noqa: B019  (one object for the whole process)
    def session(self, kind: str = "login shell") -> Session:
        """A session that all tests share: they need no login of their own."""
        return ssh_session.shared(self.server(kind))

    def store(self, folder: Path, kind: str = "login shell", small: int = 0) -> SshStore:
        """A store in a folder, by the shared session; the shell is asked where there is one."""
        return SshStore(self.session(kind), str(folder), small=small, retries=Retries(0))

    def stop(self) -> None:
        """Stop exactly what was started, and remove the folder."""
        atexit.unregister(self.stop)
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def sshd() -> Sshd:
    """The one of this process."""
    return Sshd()


def stop() -> None:
    """Stop the one of this process, if it has one."""
    if sshd.cache_info().currsize:
        sshd().stop()
