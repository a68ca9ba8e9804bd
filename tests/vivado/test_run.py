"""Runs of a program that is called vivado and is not: what it is asked, and what comes of it."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from streamtrain import vivado
from streamtrain.build import BuildError

REPORTS = Path(__file__).parent / "reports" / "series7"

FAKE = """\
#!/bin/sh
echo "$@" >asked
log=vivado.log
echo "#-----------------------------------------------------------" >$log
echo "# Vivado v2023.2 (64-bit)" >>$log
{body}
"""
WORKS = f"""\
for last in "$@"; do :; done
case $last in
    build.tcl) where=reports; touch streamtrain.bit streamtrain.hwh streamtrain.xsa ;;
    *) where=reports_out_of_context; touch out_of_context.dcp ;;
esac
mkdir -p $where
cp {REPORTS}/*.rpt $where
"""
FAILS = """\
echo "INFO: [Common 17-206] on with it" >>$log
echo "ERROR: [BD 5-106] Arguments to the connect_bd_net command cannot be empty." >>$log
echo "ERROR: [Common 17-39] 'connect_bd_net' failed due to earlier errors." >>$log
exit 1
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a program on the PATH that is called vivado; without a body, there is none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def install(body):
        program = folder / "vivado"
        program.write_text(FAKE.format(body=body))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    return install


def test_without_vivado_it_says_so(make_project, install):
    result = vivado.run(make_project())
    assert not result.ran
    assert str(result) == "not run: vivado is not on the PATH"
    assert result.summary == {}


def test_runs_and_reads_the_reports(make_project, install):
    install(WORKS)
    folder = make_project()
    result = vivado.run(folder)
    assert result.ran
    assert result.note == "Vivado v2023.2: timing met at 100 MHz, 104.3 MHz possible"
    assert result.version == "Vivado v2023.2"
    assert result.log == folder / "vivado" / "vivado.log"
    assert result.summary["resources"] == {"dsp": 81, "bram36": 24.5, "lut": 17412, "ff": 19850}
    assert [path.name for path in result.products] == [
        "streamtrain.bit", "streamtrain.hwh", "streamtrain.xsa",
    ]  # fmt: skip
    assert all(path.is_file() for path in result.products)
    asked = (folder / "vivado" / "asked").read_text().split()
    assert asked[:2] == ["-mode", "batch"] and asked[-2:] == ["-source", "build.tcl"]


def test_the_core_alone(make_project, install):
    install(WORKS)
    result = vivado.run(make_project(), script="out_of_context.tcl")
    assert [path.name for path in result.products] == ["out_of_context.dcp"]
    assert result.summary["timing"]["met"]


def test_a_board_without_a_processor_runs_the_core_alone(make_project, install):
    install(WORKS)
    assert vivado.run(make_project("nexys_video")).products[0].name == "out_of_context.dcp"


def test_a_failure_names_the_first_error_and_the_log(make_project, install):
    install(FAILS)
    folder = make_project()
    with pytest.raises(
        BuildError, match=r"^vivado failed: ERROR: \[BD 5-106\] .*\(log: "
    ) as caught:
        vivado.run(folder)
    assert caught.value.log == folder / "vivado" / "vivado.log"
    assert "earlier errors" in caught.value.log.read_text()


def test_a_failure_before_the_log_is_kept(make_project, install):
    install("rm vivado.log; echo 'application-specific initialization failed'; exit 2")
    with pytest.raises(BuildError, match=r"application-specific initialization failed \(log: "):
        vivado.run(make_project())


def test_reports_of_an_earlier_run_do_not_count(make_project, install):
    install(WORKS)
    folder = make_project()
    vivado.run(folder)
    install("exit 0")
    with pytest.raises(BuildError, match=r"^vivado failed: There is no report .*utilization.rpt"):
        vivado.run(folder)


def test_missed_timing_is_a_result(make_project, install):
    install(WORKS.replace("series7", "ultrascale"))
    result = vivado.run(make_project("kv260"))
    assert "timing missed by 0.257 ns at 133.3 MHz, 128.9 MHz possible" in result.note
    assert result.summary["timing"]["met"] is False


def test_no_project(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"^There is no build.tcl or out_of_context.tcl in "
    ):
        vivado.run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^There is no other.tcl in "):
        vivado.run(tmp_path, script="other.tcl")


# -- another machine -------------------------------------------------------------------------------------


class FakeClient:
    """paramiko's client, as far as Amaranth uses it, on a folder of this machine."""

    home = None
    connected = ()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def load_system_host_keys(self):
        pass

    def connect(self, **arguments):
        if arguments["hostname"] == "nowhere":
            raise OSError("Name or service not known")
        type(self).connected = arguments

    def open_sftp(self):
        return FakeSftp(self.home)

    def get_transport(self):
        return self

    def open_session(self):
        return self

    def set_combine_stderr(self, _):
        pass

    def exec_command(self, command):
        environment = {**os.environ, "HOME": str(self.home), "SHELL": "/bin/sh"}
        self.output = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.home, env=environment, capture_output=True, check=False,
        )  # fmt: skip

    def recv(self, _):
        said, self.output.stdout = self.output.stdout, b""
        return said


class FakeSftp:
    def __init__(self, folder):
        self.folder = Path(folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def mkdir(self, path):
        if (self.folder / path).exists():
            raise OSError("Failure")  # as SFTP says it, without a number
        (self.folder / path).mkdir()

    def chdir(self, path):
        self.folder /= path

    def file(self, path, mode):
        return FakeFile(self.folder / path, mode.replace("t", "") + "b" * ("b" not in mode))


class FakeFile:
    def __init__(self, path, mode):
        self.file = path.open(mode)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def set_pipelined(self):
        pass

    def prefetch(self):
        pass

    def write(self, content):
        self.file.write(content)

    def read(self):
        return self.file.read()


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Another machine: a folder, and a fake paramiko that reaches it."""
    home = tmp_path / "home"
    home.mkdir()
    client = type("Client", (FakeClient,), {"home": home})
    paramiko = ModuleType("paramiko")
    paramiko.SSHClient = client
    monkeypatch.setitem(sys.modules, "paramiko", paramiko)
    return client


SERVER = {"hostname": "server", "username": "me"}


def test_runs_on_another_machine(make_project, install, host, capsys):
    install(WORKS)
    folder = make_project()
    result = vivado.run(folder, host=SERVER, root="build")
    assert host.connected == SERVER
    there = {path.relative_to(host.home).as_posix() for path in host.home.rglob("*.tcl")}
    assert {"build/ip/package_ip.tcl", "build/vivado/build.tcl"} <= there
    assert (host.home / "build/ip/streamtrain.v").read_text() == (
        folder / "ip/streamtrain.v"
    ).read_text()
    assert result.ran and result.summary["resources"]["dsp"] == 81
    assert all(path.is_file() for path in result.products)
    assert result.log.parent == folder / "vivado"
    assert capsys.readouterr().out == ""
    vivado.run(folder, host=SERVER, root="build")  # once more into the same folder


def test_another_machine_without_vivado(make_project, install, host):
    result = vivado.run(make_project(), host=SERVER)
    assert not result.ran
    assert result.note == "not run: vivado is not on the PATH of server"


def test_a_failure_on_another_machine_brings_the_log_back(make_project, install, host):
    install(FAILS)
    folder = make_project()
    with pytest.raises(BuildError, match=r"^vivado failed: ERROR: \[BD 5-106\]"):
        vivado.run(folder, host=SERVER)
    assert "BD 5-106" in (folder / "vivado" / "vivado.log").read_text()


def test_a_machine_that_cannot_be_reached(make_project, host):
    with pytest.raises(BuildError, match=r"no run on nowhere: Name or service not known$"):
        vivado.run(make_project(), host={"hostname": "nowhere"})


def test_a_product_that_is_missing_there(make_project, install, host):
    install(WORKS + "\nrm streamtrain.hwh")
    with pytest.raises(BuildError, match=r"server has no build/vivado/streamtrain.hwh"):
        vivado.run(make_project(), host=SERVER, root="build")


def test_paramiko_is_asked_for(make_project, monkeypatch):
    monkeypatch.setitem(sys.modules, "paramiko", None)
    with pytest.raises(BuildError, match=r"pip install 'streamtrain\[remote\]'"):
        vivado.run(make_project(), host=SERVER)
