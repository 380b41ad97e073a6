"""A problem of a study: which file and key, what is wrong, what to do about it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Printed as "file: key: what is wrong; what to do"."""

    file: str
    key: str
    what: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return f"{where}: {self.what}; {self.remedy}"


def problem_of(file: object, key: str, message: str, remedy: str) -> Problem:
    """A problem from an error's message, whose own remedy, behind its last "; ", goes before `remedy`."""
    message = message.removeprefix(f"{key}: ")
    head, found, own = message.partition("; ")
    return Problem(str(file), key, head, own) if found else Problem(str(file), key, message, remedy)
