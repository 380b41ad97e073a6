"""The one exception for bad input from a user; the command line prints it and exits with code 2."""


class UserError(ValueError):
    """Bad input: the message names the file, key or row, and says what to do."""
