import sys
from pathlib import Path

# The models of a board are shared with the other hosts' tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "host"))
