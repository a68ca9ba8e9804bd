"""Loops that Numba compiles; without Numba, all that does not call them works."""

from functools import wraps

__all__ = ["njit"]

try:
    from numba import njit
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
