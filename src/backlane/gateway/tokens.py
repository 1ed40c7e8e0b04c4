"""Tokens: who may call the gateway, and for what.

A token is a name, the SHA-256 of its secret and its scopes, in a TOML file that
`backlane token add` writes. The secret itself is shown once and kept nowhere. A scope is a
word, or a word narrowed to one task or queue: `submit`, `send:orders`.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from backlane.errors import BadOption, nearest
from backlane.model.queue import checked_name

log = logging.getLogger("backlane.gateway")

SCOPES = ("submit", "read", "send", "receive", "operate")
PREFIX = "blt_"  # so that a leaked one is recognised by scanners, and by people
SECRET_BYTES = 32
LOOK_SECONDS = 1.0  # between two looks at whether the file has changed

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may call, and for what."""

    name: str
    sha256: str
    scopes: tuple[str, ...]

    def allows(self, scope: str, names: Sequence[str] = ()) -> bool:
        """Say whether it has this scope, or has it for one of these tasks or queues."""
        scopes = self.scopes
        return scope in scopes or any(f"{scope}:{name}" in scopes for name in names)

    def may(self, scope: str) -> bool:
        """Say whether it has this scope in any width."""
        return any(it == scope or it.startswith(f"{scope}:") for it in self.scopes)


ANYONE = Token("", "", SCOPES)  # where no tokens are asked for


class _File(msgspec.Struct, forbid_unknown_fields=True):
    token: list[Token] = []


class Tokens:
    """The tokens of a file, read again when it changes.

    A file that is gone lets nobody in. One that cannot be read any more is told in the
    log, and what was read before stays in force.

    Raises:
        BadOption: the file cannot be read, or is not a list of tokens.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._seen = self._told = _mark(path)
        self._tokens = read(path)
        self._looked = clock()

    def found(self, secret: str) -> Token | None:
        """Return the token of a secret; takes as long whether there is one or not."""
        self._look()
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.sha256, digest):
                found = token  # no early end: the time must not tell how far the search went
        return found

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        mark = _mark(self.path)
        if mark == self._seen:
            return
        try:
            self._tokens = [] if mark is None else read(self.path)
        except BadOption as error:
            if mark != self._told:  # it is read again every second, for it may be a moment's
                log.error("%s; the tokens read before stay in force", error)
            self._told = mark
        else:
            self._seen = self._told = mark


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when the file, its owner or its mode does; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ctime_ns, found.st_size, found.st_ino


def read(path: Path) -> list[Token]:
    """Return the tokens of a file.

    Raises:
        BadOption: says what is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        is_open = bool(path.stat().st_mode & stat.S_IWOTH)
    except FileNotFoundError as error:
        raise BadOption(
            f"there is no tokens file {path}; make one with `backlane token add NAME --file {path}`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"cannot read the tokens file {path}: {error}; correct it") from error
    if is_open:
        raise BadOption(f"anybody may write the tokens file {path}; set its mode: chmod 600 {path}")
    try:
        found = msgspec.convert(tomllib.loads(text), _File).token
        for token in found:
            _check(token)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, BadOption) as error:
        raise BadOption(
            f"the tokens file {path} is not as `backlane token add` writes it: {error}"
        ) from error
    return found


def _check(token: Token) -> None:
    checked_name(token.name, "token")
    if not _SHA256.fullmatch(token.sha256):
        raise BadOption(f"sha256 of token {token.name!r} is not one; add the token anew")
    for scope in token.scopes:
        check_scope(scope)


def check_scope(scope: str) -> None:
    """Refuse what is no scope.

    Raises:
        BadOption: offers the nearest one.
    """
    word, narrowed, name = scope.partition(":")
    if word not in SCOPES:
        raise BadOption(f"no scope {word!r}{nearest(word, SCOPES)}; use {', '.join(SCOPES)}")
    if narrowed:
        checked_name(name, "task or queue")


# -- writing --


def add(path: Path, name: str, scopes: Sequence[str]) -> str:
    """Add a token to the file, made where there is none; return its secret.

    Raises:
        BadOption: there is one of this name, or a scope does not exist.
    """
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    token = Token(name, hashlib.sha256(secret.encode()).hexdigest(), tuple(dict.fromkeys(scopes)))
    if not scopes:
        raise BadOption(f"token {name!r} would open nothing; give it a --scope")
    _check(token)
    with _locked(path):
        tokens = read(path)
        if any(it.name == name for it in tokens):
            raise BadOption(f"there is a token {name!r} in {path} already; name another one")
        _write(path, [*tokens, token])
    return secret


def remove(path: Path, name: str) -> None:
    """Take a token out of the file; running gateways follow within a second or two.

    Raises:
        BadOption: there is none of this name.
    """
    read(path)  # removing makes no file
    with _locked(path):
        tokens = read(path)
        names = [it.name for it in tokens]
        if name not in names:
            raise BadOption(
                f"no token {name!r} in {path}{nearest(name, names)}; see `backlane token list`"
            )
        _write(path, [it for it in tokens if it.name != name])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep others from writing the file, which is made where there is none."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever held the lock before may have put another file in its place.
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                yield
                return
        finally:
            os.close(descriptor)


_HEAD = "# Tokens of the gateway: `backlane token add NAME --scope SCOPE`. Secrets are not kept.\n"


def _write(path: Path, tokens: Sequence[Token]) -> None:
    """Replace the file at once, so that nobody reads half of it."""
    # A list of names and scopes, which hold no quotes, is the same in JSON and in TOML.
    blocks = [
        f'\n[[token]]\nname = "{token.name}"\nsha256 = "{token.sha256}"\n'
        f"scopes = {json.dumps(token.scopes)}\n"
        for token in tokens
    ]
    path = path.resolve()  # what a link leads to is replaced, and not the link
    before = path.stat()
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            # The gateway may run as somebody else, who must still be able to read it.
            _keep_owner(descriptor, before)
            file.write(_HEAD + "".join(blocks))
            file.flush()
            os.fsync(descriptor)
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def _keep_owner(descriptor: int, before: os.stat_result) -> None:
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.fchown(descriptor, before.st_uid, before.st_gid)
        except PermissionError:
            return  # only its owner and root may; it is then the caller's own, and closed
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
