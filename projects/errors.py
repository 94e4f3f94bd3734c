"""Errors: the base class of those that a user can correct, and any error's message as one line."""


class MMXrayError(Exception):
    """An error that a user can correct: one line with the file, what was expected and the remedy."""


class UsageError(MMXrayError, ValueError):
    """The command line asks for something impossible; one line with the remedy."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return the message of an exception of any library as one line.

    Args:
        error: The exception.
        limit: Most characters.

    Returns:
        The message, or the name of the exception's class where the message is empty.
    """
    return ' '.join(str(error).split())[:limit] or type(error).__name__
