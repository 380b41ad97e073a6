"""Writing that a crash, a full disk or a second writer cannot spoil, on a local or network file system (`Path`) and on
object stores (`UPath`: s3://, gs:// and whatever fsspec knows).
"""

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from vvlm_ray.errors import UserError

T = TypeVar("T")
LONGEST_PAUSE = 30.0  # seconds between two tries while storage refuses


def open_storage(location: str | Path) -> Path:
    """The folder at a path or URL; a URL's is a `UPath`, which has the methods of a `Path`.

    Raises:
        UserError: no such kind of storage, or what reads it is not installed.
    """
    text = str(location)
    if "://" not in text:
        return Path(text).expanduser()
    from upath import UPath

    try:
        folder = UPath(text)
        _ = folder.fs  # finds out now whether what reads it is installed
    except (ImportError, ValueError) as error:
        kinds = "s3://, gs:// and what fsspec knows (`pip install s3fs` or `gcsfs`), or a path"
        raise UserError(f"--storage {text}: {error}; storage is {kinds}") from None
    return folder


def is_local(path: Path) -> bool:
    """Whether a path is one of the operating system."""
    return isinstance(path, Path)


def absolute(path: Path) -> Path:
    """The path from the root, in any process's words."""
    return path.resolve() if is_local(path) else path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part."""
    data = content.encode() if isinstance(content, str) else content
    if not is_local(path):
        path.write_bytes(data)  # an object appears whole or not at all
        return
    with _temporary(path, data) as temporary:
        os.replace(temporary, path)


def create(path: Path, content: str) -> bool:
    """Write a file that must not be there yet; False where it is. Of several writers at once, one succeeds."""
    if not is_local(path):
        try:
            path.fs.pipe_file(path.path, content.encode(), mode="create")  # a conditional write
        except FileExistsError:
            return False
        return True
    with _temporary(path, content.encode()) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            if path.exists():
                return False
            os.replace(temporary, path)
    return True


@contextlib.contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A complete file beside `path`, removed afterwards if it is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are private, and records on a shared file system are for colleagues too.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file that this process alone writes; a line torn by a crash or a full disk stays by itself."""
    data = line.encode() + b"\n"
    if not is_local(path):  # objects cannot grow
        old = path.read_bytes() if path.exists() else b""
        path.write_bytes(old + (b"" if not old or old.endswith(b"\n") else b"\n") + data)
        return
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                data = b"\n" + data
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            folder.fs.rm(folder.path, recursive=True)


def put_tree(source: Path, target: Path) -> None:
    """Copy the files of a local folder to a folder of the storage."""
    if is_local(target):
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
        return
    for file in source.rglob("*"):
        if file.is_file():
            target.fs.put_file(str(file), f"{target.path}/{file.relative_to(source).as_posix()}")


@contextlib.contextmanager
def local_output(folder: Path) -> Iterator[Path]:
    """A local folder to write to, for libraries that need one; what lies in it in the end is in `folder`."""
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="vvlm-ray-") as scratch:
        yield Path(scratch)
        put_tree(Path(scratch), folder)


def local_place(path: Path) -> Path:
    """The path itself where it is local, else where this machine keeps what belongs there."""
    if is_local(path):
        return path
    return Path(tempfile.gettempdir(), f"vvlm-ray-{os.getuid()}", path.protocol, path.path.lstrip("/"))


def local_copy(path: Path) -> Path:
    """The file or folder itself where it is local, else a copy on this machine, fetched once.

    A copy is complete when it is seen: it is fetched beside its place and renamed.
    """
    target = local_place(path)
    if target != path and not target.exists() and path.exists():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        path.fs.get(path.path, str(partial), recursive=True)
        try:
            os.rename(partial, target)
        except OSError:  # another process was first
            shutil.rmtree(partial, ignore_errors=True)
    return target


def storage_errors() -> tuple[type[Exception], ...]:
    """What storage raises when it refuses or is away."""
    errors: list[type[Exception]] = [OSError]
    with contextlib.suppress(ImportError):
        from botocore.exceptions import BotoCoreError, ClientError

        errors += [BotoCoreError, ClientError]
    return tuple(errors)


def patiently(action: Callable[[], T], what: str, say: Callable[[str], Any], *, seconds: float = float("inf")) -> T:
    """`action()`, tried again while storage refuses it: every try is said, with the reason; after `seconds` it
    raises.
    """
    end, pause = time.monotonic() + seconds, 1.0
    parked = None
    while True:
        try:
            result = action()
        except storage_errors() as error:
            if time.monotonic() + pause > end:
                raise
            parked = parked or time.monotonic()
            say(f"waiting for storage: {what} cannot be written ({error}); trying again in {pause:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if parked:
                say(f"going on: {what} is written after {time.monotonic() - parked:.0f} s")
            return result
