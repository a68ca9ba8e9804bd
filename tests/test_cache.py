import pytest

from streamtrain.cache import cache_dir, content_key, write_atomic


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
