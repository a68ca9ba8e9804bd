"""A stand-in for Vivado that runs its Tcl scripts in a real Tcl interpreter.

It knows what the tables beside it say: which commands there are, with which options (``commands.toml``),
which properties objects have (``properties.toml``), and which parameters, bus interfaces and pins IPs
have (``ips.toml``). It keeps a small model of the block design, so that a misspelt pin, an input that is
not joined or an address that overlaps is an error that names it. The interpreter is Python's own
(``tkinter.Tcl``, which needs no display), so the tests need nothing but pip.
"""

import re
import shutil
import tomllib
import traceback
from fnmatch import fnmatchcase
from pathlib import Path

try:
    import tkinter
except ImportError:
    raise ImportError(
        "The Vivado scripts are tested in Python's own Tcl interpreter, and this Python was built "
        "without it (Debian: apt install python3-tk)"
    ) from None

FOLDER = Path(__file__).parent


def table(name):
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


COMMANDS, PROPERTIES, IPS = table("commands"), table("properties"), table("ips")

WRAPPER = """
proc {{{name}}} {{args}} {{
    lassign [::model_call {{{name}}} {{*}}$args] failed result
    if {{$failed}} {{ error $result }}
    return $result
}}
"""


class ModelError(Exception):
    """What the real Vivado would complain about, or do wrong."""


class Vivado:
    """Runs scripts. ``boards`` are the board parts, with revision, whose files are installed."""

    def __init__(self, boards=()):
        self.boards = boards
        self.used = set()  # commands that were called
        self.messages = []
        self.project = None
        self.sources = []  # without a project
        self.board_parts_asked = []
        self.catalogue = {ip["vlnv"]: ip for ip in IPS.values()}
        self.objects = {}  # handles of projects, filesets and the packager's objects
        self.cells, self.ports = {}, {}
        self.nets, self.links = [], []  # sets of pins; pairs of interfaces
        self.assigned, self.excluded = {}, set()
        self.validated = self.saved = False
        self.clocks, self.reports, self.steps = {}, [], []
        self.tcl = tkinter.Tcl()
        self.tcl.createcommand("model_call", self._call)
        self.tcl.createcommand("puts", lambda *words: self.messages.append(words[-1]) or "")
        self.tcl.eval("namespace eval ::ipx {}")
        for name in COMMANDS:
            self.tcl.eval(WRAPPER.format(name=name))

    def run(self, script):
        """Source a script as ``vivado -mode batch -source`` does."""
        try:
            self.tcl.call("source", str(script))
        except tkinter.TclError as error:
            raise ModelError(str(error)) from None

    # -- the tables -------------------------------------------------------------------------------

    def _call(self, name, *words):
        try:
            options, arguments = self._arguments(name, words)
            self.used.add(name)
            method = getattr(self, name.replace("::", "_"), None)
            result = method(options, *arguments) if method else ""
            return 0, "" if result is None else result
        except ModelError as error:
            return 1, str(error)
        except Exception:  # Tcl would swallow it
            return 1, f"the model failed in {name}: {traceback.format_exc()}"

    def _arguments(self, name, words):
        """Split words into options and arguments as the table says."""
        entry = COMMANDS[name]
        flags = {*entry.get("flags", "").split(), "-quiet", "-verbose"}
        values = set(entry.get("values", "").split())
        options, arguments, words = {}, [], list(words)
        while words:
            word = str(words.pop(0))
            if word in flags:
                options[word] = True
            elif word in values:
                if not words:
                    raise ModelError(f"{name}: {word} has no value")
                options[word] = words.pop(0)
            elif re.match(r"-[a-z]", word):
                raise ModelError(f"{name} has no option {word} ({entry['source']})")
            else:
                arguments.append(word)
        for option in entry.get("needs", "").split():
            if option not in options:
                raise ModelError(f"{name} needs {option} ({entry['source']})")
        least, dots, most = entry["args"].partition("..")
        most = (most or float("inf")) if dots else least
        if not int(least) <= len(arguments) <= float(most):
            raise ModelError(
                f"{name} takes {entry['args']} arguments, not {len(arguments)}: {arguments}"
            )
        return options, arguments

    def _list(self, value):
        return [str(word) for word in self.tcl.tk.splitlist(value)]

    # -- projects ---------------------------------------------------------------------------------

    def create_project(self, options, name="project", folder="."):
        self._part(options["-part"])
        self.project = {"folder": Path(folder), "name": name, "fileset": {}}
        if "-force" in options:
            shutil.rmtree(folder, ignore_errors=True)
        self.project["folder"].mkdir(parents=True)
        self.project |= {"board_part": "", "part": options["-part"], "files": []}
        self.objects["project"] = ("project", self.project)
        self.objects["fileset"] = ("fileset", self.project["fileset"])

    def _part(self, part):
        if not re.fullmatch(r"xc(7[akz]\d+t?[a-z]{3}\d+-\d|zu\d+\w+-\w+-\d-[eil]|k26-\S+)", part):
            raise ModelError(f"part {part} is not one of Vivado's")

    def close_project(self, options):
        self.project = None

    def current_project(self, options, *_):
        if self.project is None:
            raise ModelError("no project is open")
        return "project"

    def current_fileset(self, options, *_):
        self.current_project(options)
        return "fileset"

    def add_files(self, options, *files):
        for file in [name for word in files for name in self._list(word)]:
            if not Path(file).is_file():
                raise ModelError(f"add_files: there is no {file}")
            self.project["files"].append(Path(file))

    def read_verilog(self, options, *files):
        self.sources += [Path(file) for file in files]

    def synth_design(self, options):
        self._part(options["-part"])
        self.steps.append("synth_design")
        (source,) = self.sources
        if options["-top"] not in module_ports_by_name(source):
            raise ModelError(f"there is no module {options['-top']} in {source}")
        self._ports = module_ports(source, options["-top"])

    def _step(name):
        def step(self, options):
            self.steps.append(name)

        return step

    opt_design, place_design = _step("opt_design"), _step("place_design")
    phys_opt_design, route_design = _step("phys_opt_design"), _step("route_design")

    def read_xdc(self, options, file):
        self.constraints = Path(file)
        self._ports = module_ports(self.sources[0])
        self.run(file)

    def get_ports(self, options, name):
        if name not in self._ports:
            raise ModelError(f"there is no port {name}")
        return name

    def create_clock(self, options, port):
        self.clocks[port] = float(options["-period"])

    def get_parts(self, options, *_):
        return "xc7z020clg400-1 xc7z100ffg900-2"

    def get_board_parts(self, options, pattern):
        self.board_parts_asked.append(pattern)
        return " ".join(board for board in self.boards if fnmatchcase(board, pattern))

    def set_property(self, options, *words):
        if "-dict" in options:
            pairs, objects = self._list(options["-dict"]), words
        else:
            pairs, objects = words[:2], words[2:]
        if len(pairs) % 2 or not objects:
            raise ModelError(f"set_property takes names, values and objects, not {words}")
        for thing in [name for word in objects for name in self._list(word)]:
            for name, value in zip(pairs[::2], pairs[1::2], strict=True):
                self._set(thing, name, value)

    def _set(self, thing, name, value):
        if thing.startswith("/"):
            cell = self.cells[thing[1:]]
            prefix, _, parameter = name.partition(".")
            if prefix != "CONFIG" or parameter not in cell["parameters"]:
                raise ModelError(f"{cell['ip']['vlnv']} has no parameter {name}")
            allowed = cell["ip"].get("allowed", {}).get(parameter)
            if allowed is not None and int(value) not in allowed:
                raise ModelError(f"{cell['ip']['vlnv']}: {name} cannot be {value}")
            cell["parameters"][parameter] = value
            return
        kind, fields = self._object(thing)
        self._property(kind, name)
        if name.lower() == "board_part" and value not in self.boards:
            raise ModelError(f"board part {value} is not installed")
        if name.lower() == "top" and not any(
            value in module_ports_by_name(file) for file in self.project["files"]
        ):
            raise ModelError(f"no file of the project has a module {value}")
        fields[name.lower()] = value

    def _object(self, thing):
        if thing not in self.objects:
            raise ModelError(f"there is no object {thing!r}")
        return self.objects[thing]

    def _property(self, kind, name):
        if name.lower() not in PROPERTIES[kind].split():
            raise ModelError(f"a {kind} has no property {name}")

    def get_property(self, options, name, thing):
        if thing in {"synth_1", "impl_1"}:
            self._property("run", name)
            return {"progress": "100%", "status": "Complete!"}[name.lower()]
        kind, fields = self._object(thing)
        self._property(kind, name)
        return fields.get(name.lower(), "")

    # -- the IP packager ---------------------------------------------------------------------------

    def _make(self, kind, **fields):
        handle = f"{kind.replace(' ', '_')}_{len(self.objects)}"
        self.objects[handle] = (kind, fields)
        return handle

    def ipx_package_project(self, options, *_):
        top = self.project["fileset"]["top"]
        (source,) = self.project["files"]
        if source.parent != Path(options["-root_dir"]):
            raise ModelError(f"{source} is outside of the IP's folder")
        self.core = self._make(
            "ipx core", vendor=options["-vendor"], library=options["-library"], name=top,
            root=Path(options["-root_dir"]), ports=module_ports(source, top), buses=[], maps=[],
            spaces=[],
        )  # fmt: skip
        inferred = self._make("ipx bus", name="inferred", ports=[], parameters=[])
        self.objects[self.core][1]["buses"].append(inferred)
        self.objects[self.core][1]["maps"].append(self._make("ipx memory map", name="inferred"))

    def ipx_current_core(self, options, *_):
        return self.core

    def ipx_remove_all_bus_interface(self, options, core):
        self._object(core)[1]["buses"].clear()

    def ipx_get_memory_maps(self, options, *_):
        return " ".join(self._object(options["-of_objects"])[1]["maps"])

    def ipx_remove_memory_map(self, options, name, core):
        maps = self._object(core)[1]["maps"]
        maps[:] = [m for m in maps if self._object(m)[1]["name"] != name]

    def ipx_add_bus_interface(self, options, name, core):
        bus = self._make("ipx bus", name=name, ports=[], parameters=[])
        self._object(core)[1]["buses"].append(bus)
        return bus

    def ipx_add_port_map(self, options, name, bus):
        self._object(bus)[1]["ports"].append(self._make("ipx port map", name=name))
        return self._object(bus)[1]["ports"][-1]

    def ipx_add_bus_parameter(self, options, name, bus):
        self._object(bus)[1]["parameters"].append(self._make("ipx parameter", name=name))
        return self._object(bus)[1]["parameters"][-1]

    def ipx_add_memory_map(self, options, name, core):
        self._object(core)[1]["maps"].append(self._make("ipx memory map", name=name, blocks=[]))
        return self._object(core)[1]["maps"][-1]

    def ipx_add_address_block(self, options, name, memory_map):
        block = self._make("ipx address block", name=name)
        self._object(memory_map)[1]["blocks"].append(block)
        return block

    def ipx_add_address_space(self, options, name, core):
        self._object(core)[1]["spaces"].append(self._make("ipx address space", name=name))
        return self._object(core)[1]["spaces"][-1]

    def ipx_check_integrity(self, options, core):
        """Every port of the core is in one bus, with the direction that the bus gives it."""
        core = self._object(core)[1]
        mapped = {}
        for bus in self._buses(core):
            signals = BUSES.get(bus["kind"])
            if signals is None:
                raise ModelError(f"bus {bus['name']}: no bus definition {bus['kind']}")
            for logical, physical in bus["map"].items():
                where = f"bus {bus['name']}: {logical} = {physical}"
                if physical not in core["ports"]:
                    raise ModelError(f"{where}, but the core has no such port")
                if logical not in signals:
                    raise ModelError(f"{where}, but {bus['kind']} has no such signal")
                out = (signals[logical] == "m") == (bus["interface_mode"] == "master")
                if core["ports"][physical][0] != ("output" if out else "input"):
                    raise ModelError(f"{where} has the wrong direction")
                if physical in mapped:
                    raise ModelError(f"{where} is in bus {mapped[physical]}, too")
                mapped[physical] = bus["name"]
            names = {other["name"] for other in self._buses(core)}
            for parameter in ("ASSOCIATED_BUSIF", "ASSOCIATED_RESET"):
                for name in filter(None, bus["parameters"].get(parameter, "").split(":")):
                    if name not in names:
                        raise ModelError(f"{parameter} names {name}, which is no bus")
        if missing := core["ports"].keys() - mapped.keys():
            raise ModelError(f"no bus has the ports {', '.join(sorted(missing))}")

    def _buses(self, core):
        for handle in core["buses"]:
            bus = dict(self._object(handle)[1])
            type_vlnv, abstract = bus["bus_type_vlnv"], bus["abstraction_type_vlnv"]
            bus["kind"] = type_vlnv.split(":")[2]
            if abstract != type_vlnv.replace(f":{bus['kind']}:", f":{bus['kind']}_rtl:"):
                raise ModelError(f"bus {bus['name']}: {abstract} is not that of {type_vlnv}")
            bus["map"] = {
                self._object(m)[1]["name"]: self._object(m)[1]["physical_name"]
                for m in bus["ports"]
            }
            bus["parameters"] = {
                self._object(p)[1]["name"]: self._object(p)[1]["value"] for p in bus["parameters"]
            }
            yield bus

    def ipx_save_core(self, options, core):
        core = self._object(core)[1]
        ip = {
            "vlnv": ":".join(core[f] for f in ("vendor", "library", "name", "version")),
            "parameters": {}, "interfaces": {}, "pins": {}, "spaces": {}, "segments": {},
        }  # fmt: skip
        maps = {self._object(m)[1]["name"]: self._object(m)[1] for m in core["maps"]}
        spaces = {self._object(s)[1]["name"]: self._object(s)[1] for s in core["spaces"]}
        for bus in self._buses(core):
            if bus["kind"] in {"clock", "reset", "interrupt"}:
                (port,) = bus["map"].values()
                ip["pins"][port] = "output" if bus["kind"] == "interrupt" else bus["kind"]
                continue
            fields = {"mode": bus["interface_mode"], "bus": bus["kind"]}
            if "TDATA" in bus["map"]:
                fields["bits"] = core["ports"][bus["map"]["TDATA"]][1]
            ip["interfaces"][bus["name"]] = fields
            if reference := bus.get("master_address_space_ref"):
                self._check_master(core, bus, spaces[reference])
                ip["spaces"][reference] = bus["name"]
            if reference := bus.get("slave_memory_map_ref"):
                for block in maps[reference]["blocks"]:
                    block = self._object(block)[1]
                    ip["segments"][f"{reference}/{block['name']}"] = bus["name"]
                    address_bits = core["ports"][bus["map"]["AWADDR"]][1]
                    if int(block["range"]) != 2**address_bits:
                        raise ModelError(
                            f"{reference}/{block['name']} has {block['range']} bytes, but "
                            f"{address_bits} address bits"
                        )
        (core["root"] / "component.xml").write_text("a model's\n")
        self.packaged = {core["root"].resolve(): ip}

    def _check_master(self, core, bus, space):
        """Widths of a master are said as its ports have them."""
        bits, address_bits = (core["ports"][bus["map"][name]][1] for name in ("WDATA", "AWADDR"))
        said = (bus["parameters"].get("DATA_WIDTH"), space["width"], space["range"])
        if said != (str(bits), str(bits), f"{2 ** (address_bits - 30)}G"):
            raise ModelError(
                f"{bus['name']} has {bits} bits, {address_bits} of an address, not {said}"
            )

    def update_ip_catalog(self, options):
        for folder in self._list(self.project["ip_repo_paths"]):
            ip = self.packaged.get(Path(folder).resolve())
            if ip is None:
                raise ModelError(f"there is no IP in {folder}")
            self.catalogue[ip["vlnv"]] = ip

    # -- the block design ----------------------------------------------------------------------------

    def get_ipdefs(self, options, pattern):
        return " ".join(vlnv for vlnv in self.catalogue if fnmatchcase(vlnv, pattern))

    def create_bd_design(self, options, name):
        self.design = name
        folder = self.project["folder"]
        (folder / f"{self.project['name']}.srcs").mkdir(exist_ok=True)
        self.project["bd"] = folder / f"{self.project['name']}.srcs" / f"{name}.bd"
        self.project["bd"].write_text("a model's\n")

    def create_bd_cell(self, options, name):
        vlnv = options["-vlnv"]
        if options.get("-type", "ip").lower() != "ip" or vlnv not in self.catalogue:
            raise ModelError(f"the catalogue has no {vlnv}")
        if name in self.cells:
            raise ModelError(f"there is a cell {name} already")
        ip = self.catalogue[vlnv]
        self.cells[name] = {"ip": ip, "parameters": dict(ip["parameters"]), "external": set()}
        return f"/{name}"

    def apply_bd_automation(self, options, cell):
        cell = self.cells[cell.lstrip("/")]
        ip = cell["ip"]
        if options["-rule"] != ip.get("automation"):
            raise ModelError(f"{ip['vlnv']} has no rule {options['-rule']}")
        words = self._list(options["-config"])
        config = dict(zip(words[::2], words[1::2], strict=True))
        if unknown := config.keys() - set(ip["automation_keys"].split()):
            raise ModelError(f"rule {options['-rule']} has no {', '.join(sorted(unknown))}")
        cell["external"] |= {n.strip() for n in config.get("make_external", "").split(",")}
        if int(config.get("apply_board_preset", 0)):
            if not self.project["board_part"]:
                raise ModelError("there is no board whose preset could be applied")
            cell["preset"] = True
            cell["parameters"] |= ip.get("preset", {})

    def _parts(self, cell, kind):
        """Interfaces or pins that a cell has, with its parameters as they are."""
        parameters, found = self.cells[cell]["parameters"], {}
        for name, entry in self.cells[cell]["ip"].get(kind, {}).items():
            entry = {"type": entry} if isinstance(entry, str) else entry
            if not int(parameters.get(entry.get("if"), 1)):
                continue
            each = entry.get("each")
            names = [name] if each is None else [name % i for i in range(int(parameters[each]))]
            found |= dict.fromkeys(names, entry)
        return found

    def _find(self, path, kind, what):
        cell, _, name = path.strip("/").partition("/")
        if cell not in self.cells:
            raise ModelError(f"there is no cell {cell} for the {what} {path}")
        if name not in self._parts(cell, kind):
            raise ModelError(f"{self.cells[cell]['ip']['vlnv']} has no {what} {name} ({path})")
        return f"{cell}/{name}"

    def _entry(self, path, kind):
        cell, _, name = path.partition("/")
        return self._parts(cell, kind)[name]

    def get_bd_pins(self, options, path):
        return self._find(path, "pins", "pin")

    def get_bd_intf_pins(self, options, path):
        return self._find(path, "interfaces", "interface")

    def connect_bd_net(self, options, *pins):
        joined = set(pins)
        for net in [net for net in self.nets if net & joined]:
            self.nets.remove(net)
            joined |= net
        drivers = [pin for pin in joined if self._entry(pin, "pins")["type"] == "output"]
        if len(drivers) > 1:
            raise ModelError(f"{' and '.join(sorted(drivers))} drive the same net")
        self.nets.append(joined)

    def connect_bd_intf_net(self, options, first, second):
        ends = {self._entry(path, "interfaces")["mode"]: path for path in (first, second)}
        if len(ends) != 2:
            raise ModelError(f"{first} and {second} are both {next(iter(ends))}s")
        entries = [self._entry(path, "interfaces") for path in (first, second)]
        if entries[0]["bus"] != entries[1]["bus"]:
            raise ModelError(f"{first} is {entries[0]['bus']}, but {second} is {entries[1]['bus']}")
        taken = {end for link in self.links for end in link}
        for path in (first, second):
            if path in taken:
                raise ModelError(f"{path} is joined to something else already")
        self.links.append((ends["master"], ends["slave"]))

    def get_bd_addr_spaces(self, options, path):
        cell, _, name = path.strip("/").partition("/")
        if cell not in self.cells or name not in self.cells[cell]["ip"].get("spaces", {}):
            raise ModelError(f"there is no address space {path}")
        return f"/{cell}/{name}"

    def get_bd_addr_segs(self, options, pattern):
        found = [
            f"/{cell}/{segment}"
            for cell in self.cells
            for segment, interface in self.cells[cell]["ip"].get("segments", {}).items()
            if interface in self._parts(cell, "interfaces")
        ]
        found = [path for path in found if fnmatchcase(path, f"/{pattern.lstrip('/')}")]
        if not found:
            raise ModelError(f"there is no address segment {pattern}")
        return " ".join(found)

    def assign_bd_address(self, options, segment):
        space = options["-target_address_space"]
        if segment not in self._visible(space):
            raise ModelError(f"{space} does not see {segment}")
        size = int(str(options.get("-range", "0")), 0)
        self.assigned[space, segment] = int(str(options["-offset"]), 0), size

    def exclude_bd_addr_seg(self, options, segment):
        self.excluded.add((options["-target_address_space"], segment))

    def _visible(self, space):
        """Segments that an address space can reach, through interconnects."""
        cell, _, name = space.strip("/").partition("/")
        ends, found = [f"{cell}/{self.cells[cell]['ip']['spaces'][name]}"], []
        while ends:
            master = ends.pop()
            for slave in [slave for first, slave in self.links if first == master]:
                cell, _, interface = slave.partition("/")
                segments = self.cells[cell]["ip"].get("segments", {})
                found += [f"/{cell}/{s}" for s, at in segments.items() if at == interface]
                if not segments:
                    parts = self._parts(cell, "interfaces").items()
                    ends += [f"{cell}/{n}" for n, entry in parts if entry["mode"] == "master"]
        return found

    def validate_bd_design(self, options):
        nets = {pin: net for net in self.nets for pin in net}
        linked = {end for link in self.links for end in link}
        for cell, fields in self.cells.items():
            for name, entry in self._parts(cell, "pins").items():
                path = f"{cell}/{name}"
                if entry["type"] == "output" or (entry.get("optional") and path not in nets):
                    continue
                drivers = [
                    pin
                    for pin in nets.get(path, ())
                    if self._entry(pin, "pins")["type"] == "output"
                ]
                if not drivers:
                    raise ModelError(f"nothing drives {path}")
            for name in self._parts(cell, "interfaces"):
                if f"{cell}/{name}" not in linked and name not in fields["external"]:
                    raise ModelError(f"{cell}/{name} is not joined")
        for master, slave in self.links:
            bits = [self._stream_bits(end) for end in (master, slave)]
            if None not in bits and bits[0] != bits[1]:
                raise ModelError(f"{master} has {bits[0]} bits, but {slave} has {bits[1]}")
        self._check_addresses()
        self.validated = True

    def _stream_bits(self, path):
        entry, cell = self._entry(path, "interfaces"), self.cells[path.partition("/")[0]]
        if "width" in entry:
            return int(cell["parameters"][entry["width"]])
        return entry.get("bits")

    def _check_addresses(self):
        for cell, fields in self.cells.items():
            for name, interface in fields["ip"].get("spaces", {}).items():
                space, taken = f"/{cell}/{name}", []
                for segment in self._visible(space):
                    if (space, segment) in self.excluded:
                        continue
                    if (space, segment) not in self.assigned:
                        raise ModelError(f"{segment} has no address in {space}")
                    low, size = self.assigned[space, segment]
                    if size and low % size:
                        raise ModelError(f"{segment} at {low:#x} is not aligned to {size:#x}")
                    windows = fields["ip"].get("windows", {}).get(interface, [])
                    if windows and not any(a <= low and low + size - 1 <= b for a, b in windows):
                        raise ModelError(f"{segment} at {low:#x} is outside of {interface}")
                    for other, start, length in taken:
                        if low < start + length and start < low + size:
                            raise ModelError(f"{segment} and {other} overlap in {space}")
                    taken.append((segment, low, size))

    def save_bd_design(self, options, *_):
        self.saved = self.validated

    # -- runs and reports ------------------------------------------------------------------------------

    def get_files(self, options, name):
        if self.project["bd"].name != name:
            raise ModelError(f"there is no file {name}")
        return str(self.project["bd"])

    def generate_target(self, options, name, *_):
        folder = self.project["folder"] / f"{self.project['name']}.gen" / "sources_1" / "bd"
        handoff = folder / self.design / "hw_handoff" / f"{self.design}.hwh"
        handoff.parent.mkdir(parents=True)
        handoff.write_text("a model's\n")

    def make_wrapper(self, options):
        if not self.saved:
            raise ModelError("the block design is not validated and saved")
        wrapper = self.project["folder"] / f"{self.design}_wrapper.v"
        wrapper.write_text(f"module {self.design}_wrapper (); endmodule\n")
        return str(wrapper)

    def get_runs(self, options, name):
        if name not in {"synth_1", "impl_1"}:
            raise ModelError(f"there is no run {name}")
        return name

    def launch_runs(self, options, run):
        self.get_runs({}, run)
        self.steps.append(run)
        if options.get("-to_step", "write_bitstream") != "write_bitstream":
            raise ModelError(f"there is no step {options['-to_step']}")
        if "-to_step" in options:
            folder = self.project["folder"] / f"{self.project['name']}.runs" / run
            folder.mkdir(parents=True)
            (folder / f"{self.project['fileset']['top']}.bit").write_text("a model's\n")

    def get_cells(self, options, name):
        top, _, cell = name.partition("/")
        if top != f"{self.design}_i" or cell not in self.cells:
            raise ModelError(f"there is no cell {name}")
        return name

    def _report(self, options):
        self.reports.append(Path(options["-file"]).name)
        Path(options["-file"]).write_text("a model's\n")

    report_utilization = report_timing_summary = report_power = _report

    def write_hw_platform(self, options, file):
        Path(file).write_text("a model's\n")

    write_checkpoint = write_hw_platform


def _signals(master, slave=""):
    return {**dict.fromkeys(master.split(), "m"), **dict.fromkeys(slave.split(), "s")}


BUSES = {
    "axis": _signals("TDATA TKEEP TLAST TVALID", "TREADY"),
    "aximm": _signals(
        "AWID AWADDR AWLEN AWSIZE AWBURST AWCACHE AWPROT AWVALID WDATA WSTRB WLAST WVALID BREADY "
        "ARID ARADDR ARLEN ARSIZE ARBURST ARCACHE ARPROT ARVALID RREADY",
        "AWREADY WREADY BID BRESP BVALID ARREADY RID RDATA RRESP RLAST RVALID",
    ),
    "clock": _signals("CLK"),
    "reset": _signals("RST"),
    "interrupt": _signals("INTERRUPT"),
}
"""Signals of the bus definitions, and whether the master or the slave drives each."""


def module_ports_by_name(file):
    return re.findall(r"^module (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)


def module_ports(file, top=None):
    """(direction, bits) of each port of a module."""
    text = file.read_text(encoding="utf-8")
    if top is not None:
        text = re.search(rf"^module {top}\b.*?^endmodule", text, re.MULTILINE | re.DOTALL)[0]
    return {
        name: (direction, int(left) + 1 if left else 1)
        for direction, left, name in re.findall(
            r"^ +(input|output) (?:wire |reg )?(?:\[(\d+):0\] )?(\w+)", text, re.MULTILINE
        )
    }
