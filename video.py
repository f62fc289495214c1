#!/usr/bin/env python3
"""Make or edit a clip: `python3 video.py --prompt "alien" --motion spin`. All flags: `python3 video.py --help`."""

import sys

from noisette.cli import run

if __name__ == "__main__":
    sys.exit(run("video", sys.argv[1:]))
