"""How decoding fails."""


class CannotDecode(Exception):
    """The file's fault; the message is the reason, one line without the file's name."""


class OutOfMemory(CannotDecode):
    """The file needs more memory than a decoding process may take."""
