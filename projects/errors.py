"""The base of every error that a user can mend, and the message of any error as one line."""


class MMXrayError(Exception):
    """What a user can mend: one line that names the file, what was expected and the remedy."""


class UsageError(MMXrayError, ValueError):
    """The command line asks for what cannot be; one line with the remedy."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return what an exception of any library says, in one line.

    Args:
        error: The exception.
        limit: Most characters.

    Returns:
        Its message; the name of its class where it has none.
    """
    return ' '.join(str(error).split())[:limit] or type(error).__name__
