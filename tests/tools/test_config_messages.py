"""Messages about a config (issue 11 E): where a mistake is, and what to do, safe to follow."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute
from tools.base import project
from tools.base.errors import BackupError, ConfigError
from tools.base.finding import Level
from tools.base.result import Status
from tools.base.secret import Secret
from tools.config import json_parser, loading, notify
from tools.config.declarations import General, SectionKeys
from tools.config.include import Files
from tools.config.notify_keys import TYPES
from tools.config.validation import literal_secret
from tools.engine import preflight, run
from tools.engine.consent import Consent
from tools.modules import options, registry


@pytest.fixture
def system(tmp_path: Path) -> System:
    new_system = System(tmp_path)
    (new_system.source / "a").write_text("a")
    return new_system


def error(system: System, sections: dict[str, Any] | None = None, /, **general: Any) -> ConfigError:
    system.configure({**system.full_sections(), **(sections or {})}, **general)
    with pytest.raises(ConfigError) as caught:
        loading.load(system.conf)
    assert str(caught.value).startswith(f"{system.conf}:")
    return caught.value


@pytest.mark.parametrize("comment", ["// no", "# no", "/* no */"])
@pytest.mark.parametrize("before", ["", '"A": {"B": 1}, ', '"A": {"B": 1} ', '"A": '])
def test_comments_of_other_languages_get_the_hint_of_ours(
    system: System, comment: str, before: str
) -> None:
    """Issue 11 E: keys that begin with `__` are comments."""
    system.conf.write_text(f"{{\n{before}{comment}\n}}")
    with pytest.raises(ConfigError, match=r"conf.json:2: ") as caught:
        loading.load(system.conf)
    assert 'begins with __, as in "__KEY"' in caught.value.hint


def test_a_key_beside_parameters_belongs_in_them(system: System) -> None:
    """Issue 11 E: not "did you mean FILENAME"."""
    section = {"ACTION": "execute", "NAME": "filesbackup", "FILESET_INCLUDE": "/srv"}
    raised = error(system, {"FILESET": section})
    assert "FILESET.FILESET_INCLUDE: belongs in PARAMETERS" in str(raised)
    assert '"PARAMETERS": {"FILESET_INCLUDE": ...}' in raised.hint


@pytest.mark.parametrize(
    ("key", "value", "says", "hint"),
    [
        ("FILESET_INCLUDE", "/srv", "is a key of the module filesbackup", "PARAMETERS"),
        ("KEY_FILE", "/k", "is a key of the module encryption", "PARAMETERS"),
        ("MY_INSTANCES", "3306", "is a key of the module mysql_backup", "PARAMETERS"),
        ("LOG_LEVEL", "info", "unknown key", "-l info"),
        ("LOGLEVEL", "info", "unknown key", "-l info"),
        ("hostname", "x", "unknown key", "HOSTNAME"),
    ],
)
def test_keys_that_do_not_belong_in_general(
    system: System, key: str, value: str, says: str, hint: str
) -> None:
    """Issue 11 E: a key of a module is rejected, LOG_LEVEL is an option."""
    raised = error(system, **{key: value})
    assert f"GENERAL.{key}: {says}" in str(raised)
    assert hint in raised.hint


@pytest.mark.parametrize("name", ["general", "General", "GENERAL1", "GENRAL"])
def test_a_misspelt_general_is_named(system: System, name: str) -> None:
    """Issue 11 E."""
    text = json.dumps({name: system.general, **system.full_sections()}, indent=1)
    system.conf.write_text(text)
    with pytest.raises(ConfigError, match=r"conf.json:2: section GENERAL is missing") as caught:
        loading.load(system.conf)
    assert caught.value.hint == f"Rename the section {name} to GENERAL."


def test_a_missing_include_is_said_with_the_line_that_includes_it(system: System) -> None:
    """Issue 11 E: also where the including file is itself included; and a folder."""
    (system.folder / "middle.json").write_text('{\n\n"INCLUDE": ["nope.json"]}')
    system.conf.write_text('{"INCLUDE": "middle.json"}')
    with pytest.raises(ConfigError, match=r"nope.json: no such file or directory") as caught:
        loading.load(system.conf)
    assert caught.value.hint.startswith(f"Correct INCLUDE in {system.folder}/middle.json:3")
    system.conf.write_text('{"INCLUDE": "home"}')
    with pytest.raises(ConfigError, match="not a regular file") as caught:
        loading.load(system.conf)
    assert caught.value.hint.startswith(f"Correct INCLUDE in {system.conf}:1")
    system.conf.write_text('{"INCLUDE": "~/part.json"}')
    with pytest.raises(ConfigError, match=r"INCLUDE: ~/part.json: ~ is not expanded"):
        loading.load(system.conf)
    with pytest.raises(ConfigError, match="not a regular file") as caught:
        loading.load(system.folder)
    assert caught.value.hint == f"Use -c {system.conf}."


@pytest.mark.parametrize(
    ("path", "mark"),
    [("~/x", "~"), ("~root/x", "~"), ("$HOME/x", "$"), ("/srv/${NAME}", "$"), ("/a ~/b", "~")],
)
def test_what_only_a_shell_expands_is_refused_in_paths(
    system: System, path: str, mark: str
) -> None:
    """Issue 11 E: in lists of paths, in single ones, and in GENERAL."""
    last = path.rpartition(" ")[2]
    fileset = error(system, {"FILESET": execute("filesbackup", FILESET_INCLUDE=path)})
    assert f"FILESET.PARAMETERS.FILESET_INCLUDE: {last}: {mark} is not" in str(fileset)
    assert fileset.hint == "Write the whole path."
    keyed = error(system, {"ENCRYPTION": execute("encryption", KEY_FILE=last)})
    assert f"{mark} is not expanded" in str(keyed)
    for key in ("WORK_FOLDER", "LOCAL_BACKUP", "LOG_FOLDER"):
        assert f"GENERAL.{key}" in str(error(system, **{key: last}))


def test_names_that_hold_those_characters_are_paths_all_the_same(system: System) -> None:
    for name in ("~", "$RECYCLE.BIN", "a~", "share$"):
        (system.folder / name).mkdir()
    paths = ["~", "$RECYCLE.BIN", str(system.folder / "a~"), str(system.folder / "share$")]
    system.configure(
        {**system.full_sections(), "FILESET": execute("filesbackup", FILESET_INCLUDE=paths)}
    )
    (fileset, *_) = loading.load(system.conf).sections
    assert len(fileset.parameters["FILESET_INCLUDE"]) == 4


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{}/my docs", "is read as 2 paths"),
        ("/etc {}/my big docs", "is read as 3 paths"),
        ("{}/my\\ docs", "a backslash does not keep a space in a path"),
        ("'{}/my docs'", "quotes do not keep a space in a path"),
        ('"{}/my docs"', "quotes do not keep a space in a path"),
    ],
)
def test_a_path_with_a_space_in_a_text(system: System, value: str, says: str) -> None:
    """Issue 11 E: the hint is the JSON list; backslashes are not doubled."""
    for name in ("my docs", "my big docs"):
        (system.folder / name).mkdir()
    value = value.format(system.folder)
    raised = error(system, {"FILESET": execute("filesbackup", FILESET_INCLUDE=value)})
    assert f"FILESET_INCLUDE: {value.removeprefix('/etc ')}" in str(raised)
    assert says in str(raised)
    assert 'Use a JSON list for paths with a space: ["/a", "/b c"].' in raised.hint
    paths = [str(system.folder / "my docs")]
    system.configure(
        {**system.full_sections(), "FILESET": execute("filesbackup", FILESET_INCLUDE=paths)}
    )
    assert loading.load(system.conf).sections[0].parameters["FILESET_INCLUDE"] == paths


def test_a_windows_path_is_shown_as_it_is_written(system: System) -> None:
    """Issue 11 E: backslashes are not doubled."""
    raised = error(system, {"FILESET": execute("filesbackup", FILESET_INCLUDE="C:\\Users")})
    assert "FILESET_INCLUDE: C:\\Users: is a Windows path" in str(raised)


EMPTY: list[tuple[str, dict[str, Any]]] = [
    ("filesbackup", {"FILESET_INCLUDE": ""}),
    ("filesbackup", {"FILESET_INCLUDE": None}),
    ("filesbackup", {"FILESET_INCLUDE": []}),
    ("filesbackup", {"FILESET_INCLUDE": "  "}),
    ("filesbackup", {"FILESET_INCLUDE": [""]}),
    ("encryption", {"KEY_FILE": ""}),
    ("encryption", {"FORMAT": ""}),
    ("encryption", {"FILE_SIZE": ""}),
    ("storage", {"REMOVE_TARGETS": ""}),
    ("storage", {"DESTINATION": ""}),
]


@pytest.mark.parametrize(("module", "parameters"), EMPTY)
def test_an_empty_value_never_means_a_default_that_is_not_empty(
    system: System, module: str, parameters: dict[str, Any]
) -> None:
    """Issue 11 E: a template that was not filled in must not back up /etc instead."""
    system.keygen()
    (key,) = parameters
    raised = error(system, {"A": execute(module, **parameters)})
    assert f"A.PARAMETERS.{key}" in str(raised)
    assert raised.hint
    assert "/srv" not in str(raised)


@pytest.mark.parametrize("value", ["", None])
def test_empty_values_of_general(system: System, value: object) -> None:
    """Issue 11 E: an empty WORK_FOLDER must not mean /opt/backup."""
    for key in ("WORK_FOLDER", "LOG_FOLDER", "DISK_SPACE_THRESHOLD", "STREAM"):
        raised = error(system, **{key: value})
        assert f"GENERAL.{key}: is empty" in str(raised)
        assert "remove the key to use the default (" in raised.hint
    address: dict[str, Any] = {"MESSAGE_CONFIG_COMMAND": value, "MESSAGE_CONFIG_METHOD": value}
    system.configure(system.full_sections(), **address, HOME_FOLDER=value, MAX_RUNTIME=value)
    loaded = loading.load(system.conf)
    assert (loaded.general.message_config_method, loaded.warnings) == ("post", ())
    assert loaded.general.home_folder == project.ROOT


def test_values_that_are_empty_by_default_may_be_empty(system: System) -> None:
    sections = {
        "FILESET": execute("filesbackup", FILESET_INCLUDE="/etc", FILESET_EXCLUDE=""),
        "ENCRYPTION": execute("encryption", KEY_FILE=str(system.key), RECIPIENTS="", TARGETS=""),
    }
    system.configure({**system.full_sections(), **sections})
    assert loading.load(system.conf).warnings == ()


def test_a_text_that_begins_with_a_bracket_is_a_json_list(system: System) -> None:
    """Issue 11 E: `[ab]` as a string."""
    raised = error(
        system, {"FILESET": execute("filesbackup", FILESET_INCLUDE="/etc", FILESET_EXCLUDE="[ab]")}
    )
    assert "FILESET.PARAMETERS.FILESET_EXCLUDE" in str(raised)
    assert '["[ab]"]' in raised.hint


def test_a_work_folder_that_is_a_file(system: System) -> None:
    """Issue 11 E: it is a file, not a folder, and not a question of permissions."""
    raised = error(system, WORK_FOLDER=str(system.source / "a"))
    assert f"GENERAL.WORK_FOLDER: {system.source}/a: not a directory" in str(raised)


def test_flat_and_stream_exclude_each_other(system: System) -> None:
    """Issue 11 E: it is a module of the user's own; the two keys do not go together."""
    section = {**system.script("own", "true", stream="source"), "PARAMETERS_MODE": "flat"}
    raised = error(system, {"OWN": section}, STREAM="True")
    assert "flat and STREAM exclude each other" in str(raised)


@pytest.mark.parametrize("named", ["copy", "link to it"])
def test_a_home_folder_that_is_another_copy_of_the_program(system: System, named: str) -> None:
    """Issue 11 A3: its modules would be taken for user-defined ones."""
    copy = system.folder / "copy"
    copy.mkdir(mode=0o755)
    for name in ("backup.py", "pyproject.toml"):
        shutil.copy(project.ROOT / name, copy)
    for name in ("tools", "filesbackup", "compression", "encryption", "storage"):
        shutil.copytree(project.ROOT / name, copy / name)
    (system.folder / "link to it").symlink_to(copy)
    home = system.folder / named
    system.configure(system.full_sections(), HOME_FOLDER=str(home))
    for mode in ("-r", "-n", "-t"):
        done = system.run(mode)
        assert done.returncode == 2
        assert f"GENERAL.HOME_FOLDER: {home} holds another copy of this program" in done.stderr
        assert f"hint: Run the backup.py of that copy, {home}/backup.py, or remove" in done.stderr
    assert not system.work.exists()


def test_a_home_folder_that_is_this_program_by_another_name(system: System) -> None:
    link = system.folder / "link"
    link.symlink_to(project.ROOT)
    for home in (link, project.ROOT):
        system.configure(system.full_sections(), HOME_FOLDER=str(home))
        assert {section.kind for section in loading.load(system.conf).sections} == {
            *("source", "stage", "store", "check")
        }


def test_a_home_folder_without_the_built_in_modules(system: System) -> None:
    home = system.folder / "own"
    home.mkdir()
    system.configure(system.full_sections(), HOME_FOLDER=str(home))
    done = system.run("-n")
    assert done.returncode == 2
    assert "hint: Remove HOME_FOLDER, or copy the built-in modules" in done.stderr


@pytest.mark.parametrize(
    ("edited", "problem"),
    [
        ([], "GENERAL.HOSTNAME: srv-nc-template-host-config: is the name of the template"),
        (["srv-nc-template-host-config"], "GENERAL.LOCAL_BACKUP: is still that of the template"),
        (["srv-nc-template-host-config", "/<folder where the disk for backups is mounted>"], ""),
    ],
)
def test_the_template_loads_once_it_is_edited(
    edited: list[str], problem: str, tmp_path: Path
) -> None:
    """Issue 11 A4.5: it names no HOME_FOLDER that only an installation has."""
    text = (project.ROOT / "conf/conf.json").read_text()
    for placeholder in edited:
        assert placeholder in text
        text = text.replace(placeholder, str(tmp_path) if "/" in placeholder else "srv-test")
    conf = tmp_path / "conf.json"
    conf.write_text(text)
    if not problem:
        loading.load(conf, insecure=True)
        return
    with pytest.raises(ConfigError, match=f"^{conf}:[0-9]+: {re.escape(problem)}$"):
        loading.load(conf, insecure=True)


def test_errors_of_several_sections_are_said_at_once(system: System) -> None:
    """Issue 11 A11: one per section; exit 2 as before."""
    sections = {"A": execute("storage", DESTINATION="gcs"), "B": execute("compression", LEVEL=99)}
    system.configure({**system.full_sections(), **sections})
    done = system.run("-t")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint", "error", "hint"]
    assert "A.PARAMETERS.DESTINATION: gcs: unknown type of store" in lines[0]
    assert "B.PARAMETERS.LEVEL: 99 is not a level of zstd" in lines[2]


def test_what_t_finds_bad_names_file_line_and_key(system: System) -> None:
    """Issue 11 A11, E: as the messages of exit code 2 do."""
    system.configure(system.full_sections())
    system.key.unlink()
    done = system.run("-t")
    assert done.returncode == 1
    lines = system.conf.read_text().splitlines()
    number = 1 + next(n for n, line in enumerate(lines) if "KEY_FILE" in line)
    position = f"{system.conf}:{number}: ENCRYPTION.PARAMETERS.KEY_FILE: "
    assert f"BAD  ENCRYPTION: {position}" in done.stderr


@pytest.mark.needs("root")
@pytest.mark.parametrize("folder_name", ["missing", "there", "closed/missing"])
def test_a_work_folder_that_an_ordinary_user_cannot_make(system: System, folder_name: str) -> None:
    """Issue 11 E: the first contact: key and command, not `[Errno 13]`, in -r and in -t."""
    for folder in (system.folder, *list(system.folder.parents)[:-2]):
        folder.chmod(0o755)
    system.work = system.folder / folder_name
    system.configure(system.full_sections(), WORK_FOLDER=str(system.work))
    loaded = loading.load(system.conf)
    exists = folder_name == "there"
    if exists:
        system.work.mkdir(mode=0o755)
    (system.folder / "closed").mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        outcome = run.perform(loaded, loaded.sections, None)
        lines = preflight.tested(loaded, (), Consent())
    finally:
        os.seteuid(0)
    assert outcome.status is Status.FAILED
    assert outcome.message.startswith(
        f"WORK_FOLDER: {system.folder / folder_name.partition('/')[0]}"
    )
    assert outcome.message.endswith(": permission denied")
    command = f"As root, create it: install -d -o nobody -m 0700 {system.work};"
    assert (command in outcome.hint) is not exists
    assert "et WORK_FOLDER in GENERAL to a folder that nobody can write." in outcome.hint
    (line,) = (line for line in lines if line.text.startswith("WORK_FOLDER"))
    assert (line.level, line.hint) == (Level.BAD, outcome.hint)


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    ["backup.py", "restore/restore.py", *registry.MODULES],
)
def test_every_program_prints_its_version(program: str) -> None:
    """Issue 11 E: `--version`, from one place; plugins have it, too."""
    done = subprocess.run(
        [sys.executable, str(project.ROOT / program), "--version"],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"nc-backup-py {project.version()}\n")


def test_the_command_line_explains_its_options() -> None:
    """Issue 11 E: `--only` and `--skip` have help texts."""
    command = [sys.executable, str(project.ROOT / "backup.py"), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    plain_text = " ".join(text.split())
    assert "--only SECTION run only this section (repeatable)" in plain_text
    assert "--skip SECTION leave out this section (repeatable)" in plain_text
    assert "--migrate OLD.json" in plain_text


SHAPES: tuple[Any, ...] = (
    "zq9",
    "{zq9",
    ["zq9"],
    {"a": "zq9"},
    "htps://h/zq9",
    "https://u:zq9@h/",
    "u:z q9@h",
    "https://h:99999/zq9",
)
HOLD_SECRETS = (Secret, options.Commands, options.Fields, options.Lists)
SECRET_KEYS = sorted(
    {
        (declaration, key)
        for declaration in (*map(registry.declaration, registry.MODULES), *TYPES.values(), General)
        for key, field in options.keys(declaration).items()
        if key != "KEEP"  # numbers of runs
        and (
            options.kinds(declaration)[field.name] in HOLD_SECRETS
            or re.search("(^|_)(URL|URI|HOST|ENDPOINT)$", key)
        )
    },
    key=str,
)


def error_of(declaration: Any, texts: dict[str, str]) -> str:
    """Return error and hint of a module's keys; "" where they are accepted."""
    try:
        options.fill(declaration, texts)
    except BackupError as error:
        return f"{error}\n{error.hint}"
    return ""


@pytest.mark.parametrize(("declaration", "key"), SECRET_KEYS)
def test_no_error_shows_the_value_of_a_key_that_may_hold_a_secret(
    declaration: Any, key: str
) -> None:
    """Passwords, addresses with a token, commands; nor a login in the place of a host."""
    required = {
        options.key_of(field): "/x"
        for field in options.fields(declaration)
        if field.default is dataclasses.MISSING
    }
    assert len(SECRET_KEYS) > 20
    for value in SHAPES:
        server = key.endswith(("HOST", "ENDPOINT"))
        if server and not (isinstance(value, str) and re.search("[@/]", value)):
            continue  # a name of a server, however wrong, is shown
        assert "q9" not in error_of(declaration, {**required, key: options.to_text(value)}), value


def test_other_keys_show_no_address_and_no_login_that_were_put_there(tmp_path: Path) -> None:
    hook = "https://hooks.example/T0KEN"
    for key, value, secret_free in (
        ("TO", hook, "'https://hooks.example/***'"),
        ("SMTP_HOST", "smtp://me:hunter2@mx", "'smtp://***@mx'"),
        ("SMTP_HOST", "me:hunter2@mx", "'***@mx'"),
        ("SMTP_PORT", hook, "'https://hooks.example/***'"),
        ("ON", hook, "'https://hooks.example/***'"),
        ("TYPE", hook, "'https://hooks.example/***'"),
    ):
        channel = {"TYPE": "email", "TO": "a@b", "FROM": "c@d", key: value}
        (tmp_path / "c.json").write_text(json.dumps({"NOTIFY": {"it": channel}}))
        _, errors = notify.take(Files(insecure=True).merged(tmp_path / "c.json"), [])
        assert [secret_free in str(error) for error in errors] == [True], key
        assert "hunter2" not in str(errors)


def test_a_password_without_quotes_and_a_variable_with_its_value_are_not_shown() -> None:
    with pytest.raises(ConfigError, match="found a word without quotes") as caught:
        json_parser.parse(b'{"NOTIFY": {"m": {"PASSWORD": hunter}}}', "c.json")
    assert "hunter" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"ENVIRONMENT: 'A-KEY=\*\*\*': invalid") as caught:
        options.fill(SectionKeys, {"ACTION": "execute", "ENVIRONMENT": "A-KEY=hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_secret_that_is_written_as_a_number_is_warned_of_too() -> None:
    assert literal_secret("c.json:1: GENERAL.DB_PASSWORD", "DB_PASSWORD", 123456, None)
    assert not literal_secret("c.json:1: GENERAL.DB_PASSWORD", "DB_PASSWORD", None, None)


def test_a_warning_about_a_key_of_any_length_is_short(system: System) -> None:
    long = "K" * 300_000
    system.configure(system.short(STORAGE=execute("storage", DESTINATION="local", **{long: "x"})))
    (warning,) = [line for line in loading.load(system.conf).warnings if "KKK" in line]
    assert len(warning) < 1_000
    assert warning.startswith(f"{system.conf}:")
    assert warning.endswith("unknown key, ignored")
