from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tools import plugin


def test_a_broken_environment_is_left_alone(tmp_path: Path) -> None:
    """Without pyvenv.cfg its python is the system's own: going on there would never end."""
    (tmp_path / "tools").mkdir()
    shutil.copy(plugin.ROOT / "tools/venv.py", tmp_path / "tools/venv.py")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    base = Path(sys.base_prefix) / "bin/python3"
    (tmp_path / ".venv/bin/python").symlink_to(base)
    code = "from tools import venv; venv.enter(); print('here')"
    for configured in (False, True):
        if configured:
            (tmp_path / ".venv/pyvenv.cfg").write_text("")
        done = subprocess.run(
            [str(base), "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.stdout == "here\n", done.stderr
