"""setup.py check: checks that need root or the installation, and `backup.py -t` as ncbackup."""

from __future__ import annotations

import dataclasses
import functools
import grp
import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tools import filesystem_handling
from tools.base import finding, fixes, foreign, foreign_json, project
from tools.base.errors import BackupError, in_words
from tools.base.finding import Finding, Level, Line, bad, warning
from tools.setup import adopt, bounded_run, keys, plans, private_tar, schedule, steps
from tools.setup.arguments import Arguments
from tools.setup.installation import (
    CODE,
    CONFIG,
    CONFIG_FOLDER,
    KEY_FILE,
    USER,
    Installation,
)

Check = Callable[[Installation], Iterable[Finding]]
_LONGEST = 300.0  # seconds for `backup.py -t`, which has limits of its own
_LARGEST = 8 << 20  # bytes of what it prints
_LAST = 3  # lines of its errors that are shown
_WARNING = "warning: "  # at the beginning of a notice
_ROOT = "Only root can tell. Run this again as root."
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check(parsed: Arguments) -> int:
    """Print the findings about an installation; return 1 if there is an error, else 0."""
    checked = Installation(project.ROOT, Path(sys.executable), prefix=parsed.root, dry_run=True)
    lines = finding.sorted_lines(tested(checked))
    texts = [json.dumps([dataclasses.asdict(line) for line in lines])]
    if not parsed.json:
        finding_texts = (text for line in lines for text in finding.rendered(line))
        texts = [
            foreign.printable(text, keep="\n") for text in (*finding_texts, finding.summary(lines))
        ]
    sys.stdout.write("".join(f"{text}\n" for text in texts))
    return 1 if any(line.level is Level.BAD for line in lines) else 0


def tested(checked: Installation) -> Iterator[Line]:
    """Yield every finding: of the installation, then those of `backup.py -t`.

    Where nothing is installed that is one finding, beside what an older system has left; this
    clone is tested where the user of the backup can use it.
    """
    absent = not filesystem_handling.exists(checked.at(CODE))
    for entry in _absent(checked) if absent else _of_installation(checked):
        yield Line("setup", entry.text, entry.level, entry.hint, entry.fix)
    if not absent or (checked.real and _is_usable(project.ROOT)):
        yield from _of_backup(checked)


def _is_usable(clone: Path) -> bool:
    """Return whether there may be a config, and every user can enter the clone."""
    folders = (clone, *clone.parents)
    return os.path.lexists(CONFIG_FOLDER) and all(
        one.stat().st_mode & stat.S_IXOTH for one in folders
    )


def _absent(checked: Installation) -> Iterator[Finding]:
    """Yield that nothing is installed, and what no step of an installation reports."""
    existing = [str(path) for path in map(checked.at, (CONFIG, KEY_FILE)) if os.path.lexists(path)]
    hint = f"The installer uses what is still there: {' and '.join(existing)}." if existing else ""
    yield bad(f"not installed: there is no {checked.at(CODE)}", hint, _again(checked))
    yield from _of_checks((adopt.findings, keys.identity_findings), checked)


def _again(checked: Installation) -> str:
    """Return the command that installs, or repairs what is installed."""
    return fixes.as_root(fixes.command("python3", project.ROOT / "setup.py", *_prefix(checked)))


def _of_installation(checked: Installation) -> Iterator[Finding]:
    """Yield what the steps of an installation and the further checks find; one fails alone."""
    again = _again(checked)
    steps_first = [functools.partial(_of_steps, planner, again) for planner in plans.INSTALL]
    yield from _of_checks((*steps_first, *CHECKS), checked)


def _of_checks(checks: Iterable[Check], checked: Installation) -> Iterator[Finding]:
    """Yield what checks find, each text once; one that fails is a finding itself."""
    reported = set()
    for run_check in checks:
        try:
            for entry in run_check(checked):
                if entry.text not in reported:
                    yield entry
                reported.add(entry.text)
        except PermissionError as error:
            problem = in_words(error)[0]
            yield warning(f"not checked: {problem}", *_as_root(checked))
        except (BackupError, OSError) as error:
            problem, hint = in_words(error)
            yield bad(problem, hint, getattr(error, "fix", ""))
    for notice in checked.notices:  # what the steps found, and setup.py leaves as it is
        text, _, hint = notice.removeprefix(_WARNING).partition("\nhint: ")
        if notice.startswith(_WARNING) and text not in reported:
            yield warning(text, hint)


def _of_steps(planner: plans.Planner, again: str, checked: Installation) -> Iterator[Finding]:
    """Yield what steps find: a subject is good where none of its steps is needed."""
    findings = steps.findings(planner(checked), "", again)
    needed = tuple(entry.text for entry in findings if entry.level is not Level.OK)
    for entry in dict.fromkeys(findings):
        if entry.level is not Level.OK or not any(
            text.startswith(f"{entry.text}:") for text in needed
        ):
            yield entry


def _prefix(checked: Installation) -> Sequence[str]:
    return () if checked.real else ("--prefix", str(checked.prefix))


def _as_root(checked: Installation) -> tuple[str, str]:
    """Return the hint and the command for a check that needs root."""
    if os.geteuid() == 0:
        return "", ""
    command = fixes.command("python3", project.ROOT / "setup.py", "check", *_prefix(checked))
    return _ROOT, fixes.as_root(command)


# Further checks beside the steps of the installation; each raises BackupError or OSError.
CHECKS: Sequence[Check] = (
    private_tar.findings,
    schedule.findings,
    adopt.findings,
    keys.identity_findings,
)


# --- backup.py -t


def _of_backup(checked: Installation) -> Iterator[Line]:
    """Yield the lines of `backup.py -t`, run as the user of the backup."""
    if not checked.real:
        yield Line("backup.py -t", "not run: nothing is run below a prefix")
        return
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        yield Line("backup.py -t", f"not run: there is no user {USER}", Level.WARN)
        return
    if os.geteuid() not in (0, user.pw_uid):
        yield Line("backup.py -t", f"not run: it runs as {USER}", Level.WARN, *_as_root(checked))
        return
    try:
        yield from _lines(_run(user), user)
    except subprocess.TimeoutExpired:
        yield Line("backup.py -t", f"no answer within {_LONGEST:g} s", Level.BAD)
    except bounded_run.TooMuchError:
        yield Line("backup.py -t", f"more than {_LARGEST >> 20} MiB of output", Level.BAD)
    except OSError as error:
        hint = "Its Python must be one that every user can start, such as /usr/bin/python3."
        yield Line("backup.py -t", in_words(error)[0], Level.BAD, hint)


def _run(user: pwd.struct_passwd) -> subprocess.CompletedProcess[bytes]:
    """Run it as a schedule does: as the user, with little environment. Raises OSError."""
    code = Path(CODE) if (Path(CODE) / "backup.py").is_file() else project.ROOT
    private_python = code / ".venv/bin/python"
    python = private_python if private_python.exists() else Path("/usr/bin/python3")
    if not python.exists():
        python = Path(sys.executable)
    own_groups = [one.gr_gid for one in grp.getgrall() if user.pw_name in one.gr_mem]
    is_root = os.geteuid() == 0
    process = subprocess.Popen(
        [python, code / "backup.py", "-t", "--json", "-c", CONFIG],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={"PATH": _PATH, "HOME": user.pw_dir, "USER": USER, "LOGNAME": USER, "LANG": "C.UTF-8"},
        user=user.pw_uid if is_root else None,
        group=user.pw_gid if is_root else None,
        extra_groups=own_groups if is_root else None,
        start_new_session=True,  # that user could type into a terminal that it shares with root
    )
    stdout, stderr = bounded_run.output(process, _LONGEST, _LARGEST)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _lines(done: subprocess.CompletedProcess[bytes], user: pwd.struct_passwd) -> Iterator[Line]:
    """Yield the lines of its output; where that is none, why."""
    try:
        lines = [_line(one) for one in foreign_json.load(done.stdout, _LARGEST)]
    except (ValueError, TypeError, KeyError):
        last = foreign.lines(foreign.decoded(done.stderr[-_LARGEST:]).strip())[-_LAST:]
        problem = foreign.line(" | ".join(last)) or "no output"
        text = f"run as {user.pw_name} it ended with exit code {done.returncode}: {problem}"
        yield Line("backup.py -t", text, Level.BAD)
    else:
        yield from lines


def _line(fields: dict[str, str]) -> Line:
    """Return a line of the JSON document. Raises KeyError, ValueError, TypeError."""
    section, text, hint, fix = (str(fields[name]) for name in ("section", "text", "hint", "fix"))
    also = tuple(map(str, fields["also"]))
    return Line(section, text, Level(fields["level"]), hint, fix, also, source=USER)
