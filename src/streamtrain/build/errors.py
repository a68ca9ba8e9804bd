"""What a build that fails raises."""

__all__ = ["BuildError"]


class BuildError(Exception):
    """A step of a build failed.

    Parameters
    ----------
    reason : :class:`str`
        First line of the error.
    step : :class:`str`
        Name of the step.
    log : :class:`pathlib.Path`, optional
        Where the whole story is.
    """

    def __init__(self, reason, *, step, log=None):
        self.reason, self.step, self.log = reason, step, log
        super().__init__(f"{step} failed: {reason}" + (f" (log: {log})" if log else ""))
