from pathlib import Path

import pytest

from streamtrain import jit
from streamtrain.cache import cache_dir

numba = pytest.importorskip("numba")


def test_compiled_code_is_kept_by_the_content_of_the_sources(tmp_path, monkeypatch):
    @jit.njit(cache=True)
    def twice(x):
        return 2 * x

    assert twice(21) == 42
    kept = Path(twice.stats.cache_path)
    assert kept.is_relative_to(cache_dir("numba"))
    assert jit._folder() != numba.core.config.CACHE_DIR  # other packages keep theirs

    for number in (1, 2):  # the same code, and what it calls changes
        (tmp_path / "explore").mkdir(exist_ok=True)
        (tmp_path / "explore" / "other.py").write_text(f"CONSTANT = {number}")
        monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
        jit._folder.cache_clear()
        assert jit._folder() not in {str(kept.parent), getattr(jit, "_seen", None)}
        monkeypatch.setattr(jit, "_seen", jit._folder(), raising=False)
    jit._folder.cache_clear()


def test_without_a_place_for_a_cache_it_compiles_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path / "file" / "cache"))
    jit._folder.cache_clear()
    assert jit._folder() is None
    assert jit.njit(lambda x: x + 1)(1) == 2
    jit._folder.cache_clear()
