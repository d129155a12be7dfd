"""How the library writes a file: whole or not at all. It imports the standard library alone, for it is needed at start.

The content goes into a temporary file in the same folder, to the disk, and then takes the destination's name in one
step. A writer holds a lock (flock) on its temporary file, and the system lets go of it when the process ends, however
that happens: what the next writer of the same destination finds there without a lock was left by a process that was
killed, and is removed. A process number in the name would not do instead: numbers are used again, and on a shared file
system or in a container they are another machine's.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

VARIABLE = "MULTIDROP_CACHE"
# By system: the environment variable that names the user's folder for caches, and where it is in the home folder.
_CACHES = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("", "Library/Caches")}

_ATTEMPTS = 3
_DAY = 24 * 3600.0  # seconds
_OPEN = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
# For a file that is found: follows no link and waits for no pipe's other end. It opens for writing, without which NFS
# gives no exclusive lock.
_LOOK = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def cache_folder() -> Path:
    """The folder for what can be made or fetched again; it need not exist.

    The environment variable MULTIDROP_CACHE names it; else it is `multidrop` in the user's folder for caches:
    `$XDG_CACHE_HOME` or `~/.cache`, on macOS `~/Library/Caches`, on Windows `%LOCALAPPDATA%`.

    Raises:
        OSError: where the variable is not set and the user has no home folder.
    """
    if given := os.environ.get(VARIABLE):
        return Path(given)
    variable, in_home = _CACHES.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    folder = os.environ.get(variable, "")
    if not os.path.isabs(folder):  # the XDG specification has relative ones ignored
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise FileNotFoundError(errno.ENOENT, f"there is no home folder for a cache; set {VARIABLE} to a folder")
        folder = os.path.join(home, in_home)
    return Path(folder, "multidrop")


def write(path: str | os.PathLike[str], data: bytes | Callable[[BinaryIO], object]) -> None:
    """Writes a file in the place of the one before, all or nothing, to the disk.

    A new file's mode is what the umask leaves; one that takes another's place keeps its mode, and its owner where the
    process may give files away. A symbolic link stays, and its target is written; other hard links keep the old
    content. Of two writers at once the later one wins. A device or a pipe is written to as it is.

    Where locks do not work (Windows, some shared file systems), what a killed process left is removed a day later.

    Args:
        path: the destination.
        data: the content, or what writes it into a binary file; that is held in memory before the disk is touched.

    Raises:
        OSError: naming the destination, where it cannot be written: its folder is missing or read-only, the
            destination is a folder or may not be written, or the disk is full. A file that was there is untouched.
    """
    content = data if isinstance(data, bytes) else _rendered(data)
    kept = "there was none before it"
    try:
        before = _status(path)
        if before is not None:
            kept = "the one before it is kept"
            if not stat.S_ISREG(before.st_mode):
                _write_into(path, content)
                return
            if not os.access(
                path, os.W_OK, effective_ids=os.access in os.supports_effective_ids
            ):  # replaced, a file that is protected would be lost all the same
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        target = os.path.realpath(path)
        _sweep(target)
        for attempt in range(1, _ATTEMPTS + 1):
            if _replace(target, content, before):
                return
            if attempt == _ATTEMPTS:
                raise FileNotFoundError(errno.ENOENT, "its temporary file was removed")
    except OSError as error:
        reason = f"could not be written ({error.strerror or error}); {kept}"
        raise OSError(error.errno or errno.EIO, reason, os.fspath(path)) from error


def _rendered(data: Callable[[BinaryIO], object]) -> bytes:
    buffer = io.BytesIO()
    data(buffer)
    return buffer.getvalue()


def _status(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Of what a path leads to; None where there is nothing."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _replace(target: str, content: bytes, before: os.stat_result | None) -> bool:
    """One attempt; False where another process took the temporary file for one that was left.

    That happens before this one has its lock, or where locks hold on one machine of several that share a folder.
    """
    temporary = os.path.join(os.path.dirname(target), f"{_prefix(target)}{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, _OPEN, 0o666 if before is None else stat.S_IMODE(before.st_mode) & 0o666)
        try:
            if _lock(descriptor) is False or os.fstat(descriptor).st_nlink == 0:
                return False
            if before is not None:
                _take_after(descriptor, before)
            _write_all(descriptor, content)
            os.fsync(descriptor)
            if os.name == "posix":  # under its lock
                return _rename(temporary, target)
        finally:
            os.close(descriptor)
        return _rename(temporary, target)  # Windows renames no open file
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _rename(temporary: str, target: str) -> bool:
    try:
        os.replace(temporary, target)
    except FileNotFoundError:
        return False
    _sync_folder(os.path.dirname(target))
    return True


def _take_after(descriptor: int, before: os.stat_result) -> None:
    """Gives a file the owner, where that is allowed, and the mode of another."""
    if hasattr(os, "fchown"):
        now = os.fstat(descriptor)
        if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
            with suppress(OSError):
                os.fchown(descriptor, before.st_uid, before.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _write_into(path: str | os.PathLike[str], content: bytes) -> None:
    """For a device or a pipe, which has no content that could be kept; a folder is an error."""
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def _sync_folder(folder: str) -> None:
    """Has the new name outlive a power cut too, where the system can (Windows opens no folder, and some file systems
    sync none). The file is whole and in its place already, so that to fail here would say what is not so."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _prefix(target: str) -> str:
    """What the names of a destination's temporary files begin with; cut, for a name may have no more than 255 bytes.
    Destinations that share it may remove what a killed process left of each other's, and nothing else."""
    return f".{os.path.basename(target)[:40]}.multidrop-"


def _sweep(target: str) -> None:
    """Removes the temporary files that killed processes left of a destination."""
    pattern = re.compile(re.escape(_prefix(target)) + "[0-9a-f]{16}")
    folder = os.path.dirname(target)
    with suppress(OSError):  # a folder that cannot be listed, or what another process removes at the same time
        for name in os.listdir(folder):
            if pattern.fullmatch(name):
                with suppress(OSError):
                    _remove_abandoned(os.path.join(folder, name))


def _remove_abandoned(temporary: str) -> None:
    descriptor = os.open(temporary, _LOOK)
    try:
        status = os.fstat(descriptor)
        free = _lock(descriptor)
        if free is None:
            free = time.time() - status.st_mtime > _DAY
        if not free or not stat.S_ISREG(status.st_mode):
            return
        if os.name == "posix":  # under the lock, so that no writer who just made it goes on with it
            os.unlink(temporary)
            return
    finally:
        os.close(descriptor)
    os.unlink(temporary)


if sys.platform == "win32":

    def _lock(descriptor: int) -> bool | None:
        """None: this system has no such locks."""
        return None

else:
    import fcntl

    def _lock(descriptor: int) -> bool | None:
        """Whether the lock on an open file was free, and now is this process'; None where locks do not work."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True
