import errno
import os
import subprocess
import sys

import pytest

from streamtrain import cache
from streamtrain.cache import CacheWarning, cache_dir, content_key, keep, unkept, write_atomic


def test_variable_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path / "cache"))
    assert cache_dir("models", "a") == tmp_path / "cache" / "models" / "a"
    assert (tmp_path / "cache" / "models" / "a").is_dir()


def test_folder_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("STREAMTRAIN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    for platform, parent in (("linux", "xdg"), ("darwin", "Library/Caches"), ("win32", "local")):
        monkeypatch.setattr("sys.platform", platform)
        assert cache_dir() == tmp_path / parent / "streamtrain"


def test_unwritable_folder_names_the_variable(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=r"Cannot make the cache folder .*set STREAMTRAIN_CACHE"):
        cache_dir()


def test_key_knows_where_parts_end():
    assert content_key("ab", "c") != content_key("a", "bc")
    assert content_key("ab", "c") == content_key(b"ab", "c")


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    write_atomic(tmp_path / "a", "old")
    write_atomic(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "new"


def test_interrupted_write_leaves_the_old_content(monkeypatch, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    write_atomic(tmp_path / "a", "old")
    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


FULL = """
import resource, sys
from streamtrain.cache import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # as if there were no more room
write_atomic(sys.argv[1], "x" * 9000)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits files as POSIX does")
def test_a_file_that_does_not_fit_leaves_nothing(tmp_path):
    write_atomic(tmp_path / "a", "old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "a")], capture_output=True, text=True
    )
    assert "OSError" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.fixture
def full(monkeypatch):
    """A full disk."""

    def write(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "write_atomic", write)


def test_kept_is_written(tmp_path):
    keep(tmp_path / "a", "kept")
    assert (tmp_path / "a").read_text() == "kept"


def test_a_full_disk_is_a_warning_that_says_where(full, tmp_path):
    with pytest.warns(CacheWarning, match=r"^Results cannot be kept in .* \(No space left on dev"):
        keep(tmp_path / "a", "")
    assert not list(tmp_path.iterdir())


def test_warnings_can_be_collected(full, tmp_path):
    with unkept() as found:
        keep(tmp_path / "a", "")
        with unkept() as inner:
            keep(tmp_path / "b", "")
    assert len(found) == len(inner) == 1
    assert str(tmp_path) in found[0]
