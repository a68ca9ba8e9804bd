import sys
from pathlib import Path

# Plans that are small enough for Amaranth's simulator are there.
sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
