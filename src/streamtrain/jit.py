"""Loops that Numba compiles; without Numba, all that does not call them works.

Numba keeps what it has compiled until the function's own file changes. But it compiles in what the function
calls, and constants of other files, too. So here compiled code is kept by the content of all files
that have any: after a change of one, everything is compiled anew.
"""

from functools import cache, partial, wraps
from pathlib import Path

from streamtrain.cache import cache_dir, content_key

__all__ = ["jitable", "njit"]

_COMPILED = ("jit.py", "golden/*.py", "numeric/*.py", "pipeline/*.py", "explore/*.py")

try:
    import numba
    from numba.core import config
    from numba.extending import register_jitable as jitable
except ImportError:  # such as on a 32-bit ARM, for which there are no wheels

    def njit(function=None, **options):
        """Stand in for Numba's decorator: what it decorates says what is missing."""
        if function is None:
            return njit

        @wraps(function)
        def missing(*arguments, **named):
            raise ImportError(
                f"{function.__module__}.{function.__name__} needs Numba, which is not installed here; "
                f"plan, search and run the golden model where it is (pip install numba), and connect() "
                f"from here"
            )

        return missing

    def jitable(function):
        """Stand in for Numba's decorator, which changes nothing for Python either."""
        return function

else:

    def njit(function=None, **options):
        """Numba's decorator, with a cache that knows what is compiled in."""
        if function is None:
            return partial(njit, **options)
        before, config.CACHE_DIR = config.CACHE_DIR, _folder() or config.CACHE_DIR
        try:
            return numba.njit(**options)(function)
        finally:
            config.CACHE_DIR = before


@cache
def _folder():
    """Where compiled code of these sources is kept; None if there is no such place."""
    root = Path(__file__).parent
    files = [path for pattern in _COMPILED for path in sorted(root.glob(pattern))]
    key = content_key(*(part for path in files for part in (path.name, path.read_bytes())))
    try:
        return str(cache_dir("numba", key[:16]))
    except OSError:  # Numba finds another one, or none
        return None
