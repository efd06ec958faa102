#!/usr/bin/env python3
"""Copy runs from one store to another, byte for byte and without any key."""

# Python 2.7 and all later ones can read this file: an old one goes on in .venv, or says which
# Python is needed.
import os
import sys

if __name__ == "__main__":  # started by its path
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    from tools.base import launcher

    launcher.start("copy_runs/command.py")
