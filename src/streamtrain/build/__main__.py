"""``python -m streamtrain.build``."""

import sys

from streamtrain.build.command import main

if __name__ == "__main__":
    sys.exit(main())
