"""``python -m streamtrain.explore``."""

import sys

from streamtrain.explore.command import main

if __name__ == "__main__":
    sys.exit(main())
