"""Addresses: `sqlite:///jobs.db?durability=full` taken apart, and what it names checked."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from backlane.engine.url import options_of
from backlane.errors import BadOption, EngineUnavailable, StoreCorrupt

DURABILITIES = ("full", "normal")
SMALLEST_DATABASE = 512  # bytes: one page of the least size
# Their locks do not hold between machines, or at all: SQLite would be damaged there.
NETWORK_FILE_SYSTEMS = frozenset(
    name
    for family in (
        "9p afpfs afs beegfs ceph cifs glusterfs gfs gfs2 lustre ncpfs nfs nfs4 ocfs2 orangefs",
        "smb2 smb3 smbfs vboxsf webdav",
        "fuse.ceph fuse.glusterfs fuse.rclone fuse.s3fs fuse.sshfs",
    )
    for name in family.split()
)


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL asks for."""

    path: str
    durability: str = "full"
    may_be_remote: bool = False


def parse(url: str) -> Address:
    """Take a URL apart.

    Raises:
        BadOption: the URL names no file, or an option has a value that cannot work.
        UnknownOption: it has an option that does not exist.
    """
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/") or len(parts.path) < 2:
        raise BadOption(
            f"{url!r} names no file: write sqlite:///jobs.db for a path from here, "
            "sqlite:////var/lib/app/jobs.db for a path from the root"
        )
    path = unquote(parts.path[1:])
    if "\0" in path or path.startswith(":memory:"):
        raise BadOption(f"{url!r}: this engine keeps jobs in a file; use memory:// for tests")
    options = options_of(parts.query, ("durability", "filesystem"), repr(url))
    durability = options.get("durability", "full")
    if durability not in DURABILITIES:
        raise BadOption(
            f"{url!r}: durability is {durability!r}; use 'full' (survives power loss) or "
            "'normal' (may lose the last commits when the power fails)"
        )
    filesystem = options.get("filesystem", "local")
    if filesystem not in ("local", "any"):
        raise BadOption(
            f"{url!r}: filesystem is {filesystem!r}; use 'local', or 'any' to allow a network "
            "file system at your own risk"
        )
    return Address(path, durability, filesystem == "any")


def check_place(path: Path, *, may_be_remote: bool) -> None:
    """Refuse a path at which no database can live.

    Raises:
        EngineUnavailable: it is a directory, has no directory, or is on a network.
        StoreCorrupt: it is a file too small to be a database.
    """
    if path.is_dir():
        raise EngineUnavailable(f"{path} is a directory; name a file in it, such as jobs.db")
    if path.exists() and not path.is_file():
        raise EngineUnavailable(f"{path} is a device, pipe or socket; name a plain file")
    if path.is_file() and 0 < path.stat().st_size < SMALLEST_DATABASE:
        # SQLite takes such a file for an empty one, and would write over it.
        raise StoreCorrupt(f"{path} is no SQLite database; use another path, or delete the file")
    if not path.parent.is_dir():
        raise EngineUnavailable(
            f"{path} cannot be made, for there is no directory {path.parent}; make it first"
        )
    kind = file_system(path.parent)
    if kind in NETWORK_FILE_SYSTEMS and not may_be_remote:
        raise EngineUnavailable(
            f"{path} is on a network file system ({kind}), where file locks do not keep two "
            "machines apart and SQLite files get damaged; use a local disk, or a server engine"
        )


def file_system(directory: Path) -> str | None:
    """Return the type of the file system that holds a directory; None where unknown."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    except OSError:
        return None
    return type_of_mount(str(directory.resolve()), mounts)


def type_of_mount(directory: str, mounts: str) -> str | None:
    """Return the type of the last mount at or above a directory, of a mountinfo text."""
    best, found = -1, None
    for line in mounts.splitlines():
        head, _, tail = line.partition(" - ")
        fields = head.split()
        if len(fields) < 5 or not tail:
            continue
        point = fields[4].replace("\\040", " ")
        is_above = directory == point or directory.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= best:
            best, found = len(point), tail.split()[0]
    return found
