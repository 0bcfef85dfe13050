"""Errors. The messages are those of `moe-data`: the file, what was expected, what was found, what to do."""


class Error(Exception):
    """Any error of this package."""


class FormatError(Error, ValueError):
    """A file is damaged, of a newer version, or does not belong to the others."""


class MissingError(Error, FileNotFoundError):
    """A file is missing; the message names the command that makes it."""


class OutOfRangeError(Error, IndexError):
    """No such sample or document. An epoch never ends silently, and negative numbers do not count from the end."""


class SystemRefusal(Error, OSError):
    """An error of the operating system."""


class InternalError(Error, RuntimeError):
    """A bug of this package."""
