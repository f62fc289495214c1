#!/usr/bin/env python3
"""Make or edit a picture: `python3 image.py --prompt "alien"`. All flags: `python3 image.py --help`."""

import sys

from noisette.cli import run

if __name__ == "__main__":
    sys.exit(run("image", sys.argv[1:]))
