from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from tools.base import masking
from tools.base.errors import ConfigError
from tools.base.secret import Secret


def test_every_form_of_a_known_secret_is_masked() -> None:
    secret = "pl4nted s'e\"cret/+ü"
    masking.add(secret)
    raw = secret.encode()
    for form in (secret, quote(raw), quote(raw, safe=""), base64.b64encode(raw).decode()):
        assert masking.text(f"before {form} after").startswith("before ***")
    assert "pl4nted" not in masking.text(repr({"key": secret}))


@pytest.mark.parametrize(
    "text",
    [
        "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQ",
        "https://user:hunter2@host/x",
        "Authorization: Bearer hunter2",
        "https://b/x?X-Amz-Signature=hunter2&y=1",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    masked = masking.text(text)
    assert "hunter2" not in masked
    assert "QQQ" not in masked


def test_a_command_shows_no_value_of_a_secretive_key() -> None:
    masked = masking.command(
        ["x", "--DB_PASSWORD", "hunter2", "--KEY_FILE", "/k", "--TOKEN", "env:T"]
    )
    assert "hunter2" not in masked
    assert "/k" in masked
    assert "env:T" in masked


def test_secret_prints_as_stars() -> None:
    assert repr(Secret("hunter22")) == "***"
    assert f"{Secret('hunter22')}" == "***"
    assert repr(Secret("")) == ""


def test_references(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("A_SECRET", "value-of-it")
    assert Secret("env:A_SECRET").reveal() == "value-of-it"
    assert masking.text("x value-of-it") == "x ***"
    with pytest.raises(ConfigError, match="env:NOT_THERE is not set"):
        Secret("env:NOT_THERE").reveal()
    with pytest.raises(ConfigError, match=r"file:/not/there cannot be read"):
        Secret("file:/not/there").reveal()


def test_letters_that_count_as_others_hide_no_secret() -> None:
    """The long s and the sign of Kelvin match s and k where case does not count."""
    assert "hidden1" not in masking.text("pa\u017f\u017fword=hidden1")
    assert "hidden2" not in masking.text("api_\u212aey=hidden2")
