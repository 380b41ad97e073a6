"""The one exception for bad input from a user; the command line prints it and exits with code 2."""

from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message names the file, key or row, and says what to do."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' where something known is close to the name, else ''."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
