"""The keys of a module as text: for the documentation and for --help."""

from __future__ import annotations

from tools.modules import options
from tools.modules.options import Declaration


def table(declaration: type[Declaration]) -> str:
    """Return the keys as a table in Markdown: the docs hold exactly this (a test compares)."""
    rows = ["| Key | Default | Meaning |", "|---|---|---|"]
    for field in options.fields(declaration):
        names = "`, `".join((options.key_of(field), *field.metadata["aliases"]))
        flag = f" (`{field.metadata['flag']}`)" if field.metadata["flag"] else ""
        default = options.shown_default(field)
        cell = default if default in ("", "required") else f"`{default}`"
        rows.append(f"| `{names}`{flag} | {cell} | {field.metadata['help']} |")
    return "\n".join(rows)


def usage(program: str, declaration: type[Declaration]) -> str:
    """Return the text of --help: each key with its default, and its meaning below."""
    lines = [f"usage: {program} --KEY VALUE ...", ""]
    for field in options.fields(declaration):
        names = ", ".join(
            f"--{name}" for name in (options.key_of(field), *field.metadata["aliases"])
        )
        alone = field.metadata["flag"]
        flag = f" ({alone})" if alone and alone not in names.split(", ") else ""
        default = options.shown_default(field)
        note = {"": "", "required": "  [required]"}.get(default, f"  [default: {default}]")
        lines.append(f"  {names}{flag}{note}")
        lines.append(f"      {field.metadata['help'].replace('`', '')}")
    return "\n".join(lines)
