"""Faults: what SQLite and the system raise, told as errors that say what to do.

Foreign errors are translated here and nowhere else.
"""

from __future__ import annotations

import errno

import apsw

from backlane.errors import (
    BacklaneError,
    EngineBusy,
    EngineUnavailable,
    StoreCorrupt,
    StoreFull,
    TooLarge,
)

# What is wrong with the values of one plan, not with the store.
OF_THE_VALUES = (
    apsw.TooBigError,
    apsw.MismatchError,
    apsw.ConstraintError,
    apsw.RangeError,
    OverflowError,
    UnicodeEncodeError,
    TypeError,
)
# After these the connection is given up: what it believes of the file may be wrong.
BREAKING = (apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.CantOpenError)


def translated(error: BaseException, path: str) -> BaseException:  # long: a table, read down
    """Return the error of ours that tells of a foreign one; others as they are."""
    match error:
        case BacklaneError():
            return error
        case apsw.FullError():
            return _full(path)
        case apsw.BusyError() | apsw.LockedError():
            return EngineBusy(f"{path} is locked by another transaction; try again")
        case apsw.NotADBError():
            return StoreCorrupt(
                f"{path} is no SQLite database; use another path, or restore it from a backup"
            )
        case apsw.CorruptError():
            return StoreCorrupt(
                f"{path} is damaged ({error}). Stop all workers, keep a copy, and recover what "
                "can be read with the 'recover' command of the sqlite3 shell"
            )
        case apsw.ReadOnlyError() | apsw.PermissionsError() | PermissionError():
            return EngineUnavailable(
                f"{path} cannot be written ({error}): the file, its directory or the file "
                "system is read-only, or belongs to another user; give this user write "
                "access to the file and its directory"
            )
        case apsw.CantOpenError():
            return EngineUnavailable(
                f"{path} cannot be opened ({error}); check that its directory exists, that "
                "this user may write to both, and that files may still be opened (ulimit -n)"
            )
        case apsw.IOError():
            return EngineUnavailable(
                f"the disk of {path} failed ({error}), and nothing was stored; check the "
                "disk and the system's log"
            )
        case apsw.SQLError() | apsw.SchemaChangeError():
            return StoreCorrupt(
                f"{path} has tables of backlane's names that are not as backlane made them "
                f"({error}); use another file, or restore this one from a backup"
            )
        case apsw.TooBigError():
            return TooLarge(f"a value is larger than {path} can keep: {error}")
        case apsw.Error():
            return EngineUnavailable(f"{path}: SQLite refused the work: {error}")
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return _full(path)
        case OSError():
            return EngineUnavailable(f"{path}: {error}; check the path and its permissions")
        case TypeError() | ValueError() | LookupError() | ArithmeticError():
            return StoreCorrupt(
                f"{path}: a value in it, or on its way into it, is not one that backlane writes "
                f"({type(error).__name__}: {error}); check the file with 'backlane doctor', and "
                "mend the row or restore the file from a backup"
            )
        case _:
            return error


def _full(path: str) -> StoreFull:
    return StoreFull(
        f"the disk of {path} is full, so nothing was stored; what was acknowledged before is "
        "safe. Free some space: work resumes by itself"
    )
