"""`python3 -m noisette COMMAND`: every command of the bench."""

import sys

from noisette.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
