import json
import os
import subprocess
import sys

import pytest

from streamtrain.build.folder import BOOKKEEPING, MANIFEST, output_folder


def fill(folder, content):
    (folder / "rtl").mkdir()
    (folder / "rtl" / "top.v").write_text(content)
    manifest = {"made_by": "streamtrain", "files": {"rtl/top.v": "hash"}}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def assert_refuses(out, message):
    with pytest.raises(ValueError, match=message):
        output_folder(out).__enter__()


def test_appears_at_the_end(tmp_path):
    with output_folder(tmp_path / "a" / "out") as folder:
        assert folder.parent == tmp_path / "a"
        fill(folder, "first")
        assert not (tmp_path / "a" / "out").exists()
    assert (tmp_path / "a" / "out" / "rtl" / "top.v").read_text() == "first"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_an_empty_folder_may_be_there(tmp_path):
    (tmp_path / "out").mkdir()
    with output_folder(tmp_path / "out") as folder:
        fill(folder, "first")
    assert (tmp_path / "out" / MANIFEST).exists()


def test_replaces_an_earlier_build(tmp_path):
    for content in ("first", "second"):
        with output_folder(tmp_path / "out") as folder:
            fill(folder, content)
    assert (tmp_path / "out" / "rtl" / "top.v").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_failure_leaves_what_was_there(tmp_path, error):
    with pytest.raises(error), output_folder(tmp_path / "out") as folder:
        fill(folder, "first")
        raise error
    assert not list(tmp_path.iterdir())
    with output_folder(tmp_path / "out") as folder:
        fill(folder, "first")
    with pytest.raises(error), output_folder(tmp_path / "out") as folder:
        fill(folder, "second")
        raise error
    assert (tmp_path / "out" / "rtl" / "top.v").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_interrupted_exchange_puts_the_earlier_build_back(tmp_path, monkeypatch):
    with output_folder(tmp_path / "out") as folder:
        fill(folder, "first")
    rename = type(tmp_path).rename

    def interrupt(self, target):
        if self.name == "out.partial":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", interrupt)
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "out") as folder:
        fill(folder, "second")
    assert (tmp_path / "out" / "rtl" / "top.v").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to("elsewhere")
    with output_folder(tmp_path / "out") as folder:
        fill(folder, "first")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "elsewhere" / MANIFEST).exists()


@pytest.mark.parametrize(
    "manifest", [None, "[]", "no JSON", '{"files": {}}', '{"made_by": "other", "files": {}}']
)
def test_refuses_a_folder_of_others(tmp_path, manifest):
    (tmp_path / "thesis.tex").write_text("precious")
    if manifest is not None:
        (tmp_path / MANIFEST).write_text(manifest)
    assert_refuses(tmp_path, "is not empty and was not made by streamtrain")
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_refuses_a_build_with_files_added(tmp_path):
    with output_folder(tmp_path / "out") as folder:
        fill(folder, "first")
    (tmp_path / "out" / "rtl" / "notes.txt").write_text("precious")
    assert_refuses(tmp_path / "out", r"what streamtrain did not write, such as rtl/notes\.txt")


def test_keeps_what_other_tools_left_where_they_work(tmp_path):
    left = {
        "vivado/streamtrain.bit": "an hour",
        "vivado/project/streamtrain.runs/impl_1/top.bit": "an hour",
        "vivado/vivado.jou": "journal",
        "vivado/.Xil/lock": "",
        "ip/component.xml": "packaged",
        "ip/verilator/Vtop.mk": "compiled",
    }
    for content in ("first", "second", "third"):
        with output_folder(tmp_path / "out") as folder:
            fill(folder, content)
            if content == "third":  # a build that ran Vivado itself
                (folder / "vivado").mkdir()
                (folder / "vivado" / "streamtrain.bit").write_text("new")
        for name, text in left.items():
            if content == "first":
                (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "out" / name).write_text(text)
            right = "new" if content == "third" and name == "vivado/streamtrain.bit" else text
            assert (tmp_path / "out" / name).read_text() == right
        assert (tmp_path / "out" / "rtl" / "top.v").read_text() == content
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_refuses_a_file(tmp_path):
    (tmp_path / "out").write_text("precious")
    assert_refuses(tmp_path / "out", r"must be a folder, but .*out is a file")


def test_refuses_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refuses(".", "holds the current folder")


def test_refuses_an_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    assert_refuses(tmp_path / "file" / "out", r"^Cannot write to .*file: ")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_refuses_a_folder_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert_refuses(tmp_path / "closed" / "out", r"^Cannot write to .*closed: Permission denied$")


def test_what_can_go_on_stays_beside_and_is_found_again(tmp_path):
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "out") as folder:
        fill(folder, "half")
        (folder / BOOKKEEPING).mkdir()
        (folder / BOOKKEEPING / "state.json").write_text("{}")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    with output_folder(tmp_path / "out") as folder:
        assert (folder / "rtl" / "top.v").read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_builds_do_not_share_a_folder(tmp_path):
    with output_folder(tmp_path / "out") as folder:
        (tmp_path / "out.partial.pid").write_text("1")  # which is always alive
        message = r"^Another build \(process 1\) is writing to .*out; name another folder, or wait$"
        with pytest.raises(ValueError, match=message), output_folder(tmp_path / "out"):
            pass
        assert folder.exists()


def dead_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_build_that_was_killed_is_no_other_build(tmp_path):
    (tmp_path / "out.partial.pid").write_text(str(dead_process()))
    with output_folder(tmp_path / "out") as folder:
        fill(folder, "first")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
