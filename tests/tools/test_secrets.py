"""Secrets of a config: masked wherever they go, and kept from programs that need none of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.brt import ReportServer
from tests.system import System
from tools import os_works
from tools.base import masking, secret
from tools.flow import process

LITERAL, NESTED, IN_TEXT = "l1teral-secret", "n3sted/s@cret", "t3xt_secret"
BY_ENV, BY_FILE, IN_URL = "fr0m-the-env", "fr0m a file", "u:rl@pass"
ALL = (LITERAL, NESTED, IN_TEXT, BY_ENV, BY_FILE, IN_URL)
# Says each secret on every way out that a module has.
_SAYS = r"""
all="$*"
printf 'warning: %s\n' "$all" >&2
printf 'stderr: %s\n' "$all" >&2
python3 - "$NC_BACKUP_RESULT" "$all" <<'PY'
import json, sys
text = sys.argv[2]
json.dump({"status": "incomplete", "message": text, "hint": text, "warnings": [text]},
          open(sys.argv[1], "w"))
PY
"""


def parameters(folder: Path) -> dict[str, object]:
    (folder / "secret").write_text(BY_FILE + "\n")
    return {
        "SECRET_KEY": LITERAL,
        "LOGIN": {"users": [{"name": "u", "password": NESTED}]},
        "ARGS_DICT": f"{{'smtp_pw': '{IN_TEXT}'}}",
        "ONE": "env:A_SECRET",
        "TWO": [{"x": f"file:{folder / 'secret'}"}],
        "URI": f"mongodb://me:{IN_URL}@h/db",
    }


@pytest.mark.parametrize("streamed", [True, False])
def test_no_secret_of_a_module_is_seen_anywhere(
    system: System, server: ReportServer, streamed: bool
) -> None:
    """Issue 11 C: output, warnings and results of a user-defined module are masked everywhere."""
    text = f'{_SAYS}\nprintf "{BY_ENV} {BY_FILE}\\n" >&2\n'
    text += "echo data\n" if streamed else "mkdir -p $0.d\n"
    section = system.script("OWN", text, "source" if streamed else "")
    section["PARAMETERS"] = parameters(system.folder)
    (system.source / "a").write_text("a")
    sections = system.full_sections(OWN=section)
    general = {"STREAM": "True"} if streamed else {}
    system.configure(sections, MESSAGE_CONFIG_COMMAND=server.url, **general)
    texts = []
    for arguments in (("-r", "-l", "debug"), ("-r", "--json"), ("-n",), ("-t",)):
        done = system.run(*arguments, A_SECRET=BY_ENV)
        texts += [done.stdout, done.stderr]
    assert system.stored()
    texts.append(system.log.read_text())
    texts += [json.dumps(form) for form in server.forms]
    for path in (system.store / "srv-test").iterdir():
        if path.name.endswith(("manifest.json", "RECOVERY.txt")):
            texts.append(path.read_text())
    assert "stderr: " in "".join(texts)
    for text in texts:
        assert "Traceback" not in text
        for one in ALL:
            assert one not in text
            assert json.dumps(one)[1:-1] not in text


def test_a_secret_at_any_depth_is_known() -> None:
    """Issue 11 C: below a secretive key, in lists, dictionaries, texts of them, arguments, URLs."""
    secret.learn(
        {
            "SMTP_PW": ["deep-one", {"x": "deep-two"}],
            "JSON": json.dumps({"a": [{"api_key": "deep-three"}]}),
            "ARGS": "--user me --password deep-four --token=deep-five",
            "WORDS": ["--secret", "deep-six"],
            "AUTH": 1234567,
            "URL": "postgres://u:deep%2Fseven@h",
        }
    )
    masked = masking.text(
        "deep-one deep-two deep-three deep-four deep-five deep-six 1234567 deep/seven"
    )
    assert masked == " ".join([masking.STARS] * 8)


@pytest.mark.parametrize(
    ("key", "is_secret"),
    [
        ("SECRET_KEY", True),
        ("SMTP_PW", True),
        ("dbPassword", True),
        ("ROOTPW", True),
        ("PASSWORD_2", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("API_KEY", True),
        ("KEY_FILE", False),
        ("PASSFILE", False),
        ("CREDENTIAL_PATH", False),
        ("ALIYUN_CREDENTIALS", False),
        ("GOOGLE_CREDENTIALS", True),
        ("PRIMARY_KEY", False),
        ("FILESET_INCLUDE", False),
    ],
)
def test_which_keys_hold_secrets(key: str, is_secret: bool) -> None:
    """Issue 11 C."""
    assert masking.secretive(key) == is_secret


@pytest.mark.parametrize(
    "spelling",
    [
        "p@ss/w%C3%B6rd 1",
        "p%40ss%2fw%c3%b6rd%201",
        "p%40ss/w%C3%B6rd+1",
        "p@ss\\/w\\u00f6rd 1",
        "p@ss/w\\303\\266rd 1",
        "p@ss/w\\xc3\\xb6rd 1",
        "p@ss/wörd 1",
    ],
)
def test_spellings_of_a_secret(spelling: str) -> None:
    """Issue 11 C: percent-encoded, JSON, octal, whole or in part."""
    masking.add("p@ss/wörd 1")
    assert masking.text(f"before {spelling} after") == "before *** after"


def test_a_password_with_an_at_sign_in_a_url() -> None:
    """Issue 11 C: a URL whose password is not known by its value."""
    assert masking.text("mongodb://u:p@ss@h/db?a=b@c") == "mongodb://***@h/db?a=b@c"
    assert masking.text("see https://host:80/a@b") == "see https://host:80/a@b"


def test_a_short_secret_is_masked_by_its_key_alone() -> None:
    """Issue 11 C: a secret of three characters must not make stars of all texts."""
    secret.learn({"PASSWORD": "a"})
    assert masking.text("a man") == "a man"
    assert masking.command(["x", "--PASSWORD", "a"]) == "x --PASSWORD ***"
    assert masking.structure({"PASSWORD": "a", "L": ["a"]}) == {"PASSWORD": "***", "L": ["a"]}
    assert "'a'" not in masking.text("{'password': 'a'}")


def test_a_structure_without_its_secrets() -> None:
    """Issue 11 C: references and paths stay."""
    masking.add("known-one")
    structure = {"A": [1, {"token": "x", "B": "known-one"}], "T": "env:X", "D": "{'pwd': 'y'}"}
    expected = {"A": [1, {"token": "***", "B": "***"}], "T": "env:X", "D": '{"pwd": "***"}'}
    assert masking.structure(structure) == expected


@pytest.mark.parametrize("offset", [8183, 8192 - 3, 65536 - 5, 65536 + 8192 - 5, 131072 - 2])
def test_a_secret_over_a_cut_of_a_long_line(offset: int) -> None:
    """Issue 11 C: lines are joined before they are masked (and never cut within a secret)."""
    masking.add("SUPERSECRETPASSWORD")
    lines: list[str] = []
    code = f"import sys; sys.stderr.write('x' * {offset} + 'SUPERSECRETPASSWORD' + 'y' * 9000)"
    list(process.output([sys.executable, "-c", code], notice=lines.append))
    masked = [masking.text(line) for line in lines]
    assert "".join(lines).count("SUPERSECRETPASSWORD") == 1
    assert not [line for line in masked if "SUPERS" in line or "SWORD" in line]


def test_a_program_has_the_allow_list_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 11 C: nothing is inherited whole, whoever starts a program."""
    monkeypatch.setenv("OTHER_SECRET", "x")
    monkeypatch.setenv("NAMED", "y")
    monkeypatch.setenv("https_proxy", "http://u:p@proxy")
    command = ["env"]
    held = b"".join(process.output(command)).decode()
    assert "PATH=" in held
    for name in ("OTHER_SECRET", "NAMED", "proxy"):
        assert name not in held
    with os_works.passing(["NAMED"]):
        held = b"".join(process.output(command)).decode()
    assert "NAMED=y" in held
    assert "OTHER_SECRET" not in held


@pytest.mark.parametrize("streamed", [True, False])
def test_no_program_of_a_run_gets_another_sections_secret(system: System, streamed: bool) -> None:
    """Issue 11 C: a tar that writes down its environment, in both modes."""
    environment = system.folder / "environment"
    wrapper = system.folder / "tar.sh"
    wrapper.write_text(f'#!/bin/sh\nenv >> {environment}\nexec tar "$@"\n')
    wrapper.chmod(0o755)
    (system.source / "a").write_text("a")
    sections = system.full_sections()
    sections["FILESET"]["PARAMETERS"]["TAR_COMMAND"] = str(wrapper)
    sections["FILESET"]["ENVIRONMENT"] = "WANTED"
    other = system.script("OTHER", "echo x", "source" if streamed else "")
    sections["OTHER"] = {**other, "PARAMETERS": {"TOKEN": "env:OTHER_SECRET"}}
    system.configure(sections, **({"STREAM": "True"} if streamed else {}))
    done = system.run("-r", OTHER_SECRET="hidden-one", WANTED="yes")
    assert environment.exists(), done.stderr
    assert "hidden-one" not in environment.read_text()
    assert "WANTED=yes" in environment.read_text()


def test_a_reference_that_would_wait_is_not_learned(tmp_path: Path) -> None:
    """A pipe that nobody writes to must not stop a dry run."""
    pipe = tmp_path / "pipe"
    subprocess.run(["mkfifo", str(pipe)], check=True)
    secret.learn({"A": f"file:{pipe}", "B": "file:/none", "C": "env:NOT_SET_AT_ALL"})
