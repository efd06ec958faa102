#!/usr/bin/env python3
"""nc-backup-py: run the sections of one conf.json, and report the result."""

# Python 2.7 and all later ones can read this file: an old one goes on in .venv, or says which
# Python is needed.
import os
import sys

if __name__ == "__main__":  # started by its path
    sys.path[0] = os.path.dirname(os.path.realpath(__file__))
    from tools.base import launcher

    launcher.start("tools/commands/backup.py")
