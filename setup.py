#!/usr/bin/env python3
"""The system installer of nc-backup-py (not setuptools'): setup.py demo, setup.py test."""

# This file alone is written so that an old Python can read it, to say what is wrong.
import os
import sys

if sys.version_info < (3, 10):  # noqa: UP036  (an old Python is just what is asked about)
    sys.stderr.write(
        "error: nc-backup-py needs Python 3.10 or later, and this is %d.%d\n"  # noqa: UP031
        "hint: Run setup.py with a newer one, as python3.11 setup.py.\n" % sys.version_info[:2]
    )
    sys.exit(2)

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120  (an old Python)
    from tools.base import output
    from tools.setup import commands

    output.open_standard()
    sys.exit(output.close_standard(commands.main(sys.argv[1:])))
