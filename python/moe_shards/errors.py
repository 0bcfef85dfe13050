"""What can go wrong. The messages are those of `moe-data`: the file, what was expected, what was found, what to do."""


class Error(Exception):
    """Anything that this package refuses."""


class FormatError(Error, ValueError):
    """A file is damaged, of a newer version, or does not belong to the others."""


class MissingError(Error, FileNotFoundError):
    """A file is not there; the message names the command that makes it."""


class OutOfRangeError(Error, IndexError):
    """No such sample or document. An epoch never ends silently, and nothing counts from the end."""


class SystemRefusal(Error, OSError):
    """The operating system refused."""


class InternalError(Error, RuntimeError):
    """A bug of this package."""
