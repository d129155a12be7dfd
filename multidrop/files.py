"""Writes files atomically. Imports only the standard library, because it is needed at start-up.

The content is written to a temporary file in the same folder, synced to the disk, and renamed to the destination. The
writer holds a lock (flock) on its temporary file, which the system releases when the process ends, however it ends. So
a temporary file without a lock was left by a killed process, and the next writer of the same destination removes it. A
process number in the file's name could not replace the lock: process numbers are reused, and on a shared file system or
in a container they may belong to another machine.
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
# By system: the environment variable that names the user's cache folder, and its default within the home folder.
_CACHES = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("", "Library/Caches")}

_ATTEMPTS = 3
_DAY = 24 * 3600.0  # seconds
_OPEN = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
# Opens a leftover without following a link or blocking on a pipe. For writing, because NFS grants no exclusive lock on
# a file that is open for reading.
_LOOK = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def cache_folder() -> Path:
    """The folder of the library's cache; it need not exist.

    The environment variable MULTIDROP_CACHE names it. Without the variable it is `multidrop` in the user's cache
    folder: `$XDG_CACHE_HOME` or `~/.cache`, on macOS `~/Library/Caches`, on Windows `%LOCALAPPDATA%`.

    Raises:
        OSError: if the variable is not set and the user has no home folder.
    """
    if given := os.environ.get(VARIABLE):
        return Path(given)
    variable, in_home = _CACHES.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    folder = os.environ.get(variable, "")
    if not os.path.isabs(folder):  # the XDG specification says to ignore relative paths
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise FileNotFoundError(errno.ENOENT, f"there is no home folder for a cache; set {VARIABLE} to a folder")
        folder = os.path.join(home, in_home)
    return Path(folder, "multidrop")


def write(path: str | os.PathLike[str], data: bytes | Callable[[BinaryIO], object]) -> None:
    """Writes or replaces a file atomically, and syncs it to the disk.

    A new file gets the mode that the umask leaves. A replaced file keeps its mode, and its owner if the process may
    change owners. A symbolic link is kept, and its target is written; other hard links keep the old content. If two
    processes write at once, the later one wins. A device or a pipe is written to directly.

    Where locks do not work (Windows, some shared file systems), the leftovers of killed processes are removed after a
    day.

    Args:
        path: the destination.
        data: the content, or a function that writes it into a binary file. It runs in memory, before the disk is
            touched.

    Raises:
        OSError: if the destination cannot be written: its folder is missing or read-only, it is a folder or
            write-protected, or the disk is full. The error names the destination, and the previous file is unchanged.
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
            # Renaming would replace even a write-protected file.
            if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
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
    """The status of a path's target; None if there is none."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _replace(target: str, content: bytes, before: os.stat_result | None) -> bool:
    """Makes one attempt to replace `target`. Returns False if another process removed the temporary file as a leftover.

    That can happen before this process has its lock, or if several machines share a folder but not their locks.
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
            if os.name == "posix":  # while it is locked
                return _rename(temporary, target)
        finally:
            os.close(descriptor)
        return _rename(temporary, target)  # Windows cannot rename an open file
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
    """Gives a file the mode of `before`, and its owner if that is allowed."""
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
    """Writes to a device or a pipe, which has no previous content to keep. A folder is an error."""
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def _sync_folder(folder: str) -> None:
    """Syncs the folder, so that the new name survives a power cut. Ignores errors, because the file itself is already
    complete and in place: Windows cannot open folders, and some file systems cannot sync them."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _prefix(target: str) -> str:
    """The prefix of the names of a destination's temporary files. The destination's name is cut to 40 characters,
    because a name may have at most 255 bytes. Destinations that share a prefix may remove each other's leftovers, and
    nothing else."""
    return f".{os.path.basename(target)[:40]}.multidrop-"


def _sweep(target: str) -> None:
    """Removes the temporary files of a destination that killed processes left."""
    pattern = re.compile(re.escape(_prefix(target)) + "[0-9a-f]{16}")
    folder = os.path.dirname(target)
    with suppress(OSError):  # the folder cannot be listed, or another process removes the same file
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
        if os.name == "posix":  # while it is locked, so that a writer that has just created it notices
            os.unlink(temporary)
            return
    finally:
        os.close(descriptor)
    os.unlink(temporary)


if sys.platform == "win32":

    def _lock(descriptor: int) -> bool | None:
        """Returns None: Windows has no such locks."""
        return None

else:
    import fcntl

    def _lock(descriptor: int) -> bool | None:
        """Takes the lock on an open file: True if this process has it now, False if another has it, None if locks do
        not work here."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True
