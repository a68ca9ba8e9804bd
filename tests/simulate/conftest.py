import sys
from pathlib import Path

# The five nets are described once, with the benchmarks; designs with memory, with the tests of buses.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "bus"))
