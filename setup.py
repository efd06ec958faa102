#!/usr/bin/env python3
"""The system installer of nc-backup-py (not setuptools'): setup.py --help."""

# Python 2.7 and all later ones can read this file: an old one goes on with a newer one.
import os
import sys

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # root leaves no files in a clone of somebody else
    sys.path[0] = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120  (an old Python)
    from tools.setup import newer_python

    newer_python.go_on(sys.argv)
    from tools.base import output
    from tools.setup import commands

    output.open_standard()
    sys.exit(output.close_standard(commands.main(sys.argv[1:])))
