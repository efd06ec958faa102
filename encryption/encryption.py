#!/usr/bin/env python3
"""Encrypt what compression wrote, in parts; decrypt it (-d); create a key (--KEYGEN)."""

# Python 2.7 and all later ones can read this file: an old one goes on in .venv, or says which
# Python is needed.
import os
import sys

if __name__ == "__main__":  # started by its path
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    from tools.base import launcher

    launcher.start("encryption/stage.py")

from encryption.stage import Options, backward, main, stage, test, work

__all__ = ["Options", "backward", "main", "stage", "test", "work"]
