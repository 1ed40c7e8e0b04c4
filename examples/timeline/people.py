"""Who there is, who follows whom, and what everybody reads: tables beside the jobs'.

They are in the same SQLite file as the jobs, so that a post and the job that sends it out
are stored together or not at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

POSTER = "ada"
FOLLOWERS = 5_000
READER = "grace"  # a follower whose timeline the page links to

SCHEMA = """
create table if not exists person (handle text primary key, name text not null) without rowid;
create table if not exists follow (
    followed text, follower text, primary key (followed, follower)) without rowid;
create table if not exists post (
    id integer primary key, author text not null, text text not null, at_ms integer not null,
    followers integer not null, job text, took_ms integer);
create table if not exists timeline (
    reader text, post integer, primary key (reader, post)) without rowid;
create table if not exists heart (post integer, job blob, primary key (post, job)) without rowid;
create view if not exists shown as
    select post.id, handle, name, text, at_ms, followers, job, took_ms,
        (select count(*) from heart where heart.post = post.id) as hearts
    from post
    join person on handle = author;
"""

FIRST = (
    *("Alan", "Barbara", "Charles", "Dana", "Edsger", "Frances", "Guido", "Hedy", "Ivan"),
    *("Joan", "Ken", "Leslie", "Margaret", "Niklaus", "Ole", "Peter", "Radia", "Sophie"),
    *("Tony", "Vint", "Whitfield", "Yukihiro", "Zoe", "Donald", "Karen"),
)
LAST = (
    *("Abel", "Berg", "Costa", "Duarte", "Engel", "Fischer", "Garcia", "Haas", "Iversen"),
    *("Jansen", "Kaya", "Lopez", "Moreau", "Novak", "Okafor", "Petit", "Quist", "Rossi"),
    *("Silva", "Tanaka", "Urban", "Vogel", "Weber", "Xu", "Young", "Zhou", "Adler", "Blum"),
)

OF_READER = """
select * from shown
where id in (select post from timeline where reader = ?)
order by at_ms desc, id desc
limit 30
"""
ONE = "select * from shown where id = ?"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who posts or reads."""

    handle: str
    name: str


@dataclass(frozen=True, slots=True)
class Post:
    """A message as a timeline shows it. `took_ms` is None until every follower has it."""

    id: int
    author: Person
    text: str
    at_ms: int
    followers: int
    job: str | None
    took_ms: int | None
    hearts: int


class People:
    """The tables, read and written by any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()  # a connection for each thread

    @property
    def connection(self) -> apsw.Connection:
        """The calling thread's connection; `with` it for a transaction."""
        found: apsw.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = apsw.Connection(str(self._path))
            found.set_busy_handler(_waited)
            found.execute("pragma journal_mode = wal")
            found.transaction_mode = "immediate"  # `with` takes the write lock at once
        return found

    def settle_in(self) -> bool:
        """Make the tables and the people; say whether they are new."""
        with self.connection as db:
            db.execute(SCHEMA)
            is_new = not db.execute("select count(*) from person").get
            if is_new:
                self._settle(db)
        return is_new

    def _settle(self, db: apsw.Connection) -> None:
        db.executemany("insert into person values (?, ?)", _everybody())
        db.execute(
            "insert into follow select ?, handle from person where handle <> ?", (POSTER, POSTER)
        )
        now = int(time.time() * 1000)
        for minutes, author, text in STORY:
            post = self.add_post(author, text, now - minutes * 60_000, followers=0)
            db.execute("insert or ignore into timeline values (?, ?)", (POSTER, post))

    # -- reading --

    def person(self, handle: str) -> Person | None:
        row = self.connection.execute(
            "select handle, name from person where handle = ?", (handle,)
        ).fetchone()
        return Person(*row) if row else None

    def followers(self, handle: str) -> list[str]:
        found = self.connection.execute(
            "select follower from follow where followed = ? order by follower", (handle,)
        )
        return [follower for (follower,) in found]

    def timeline(self, reader: str) -> list[Post]:
        """Return the newest posts of somebody's timeline, newest first."""
        return list(self._posts(OF_READER, reader))

    def post(self, post: int) -> Post | None:
        return next(self._posts(ONE, post), None)

    def _posts(self, query: str, value: str | int) -> Iterator[Post]:
        for post, handle, name, *rest in self.connection.execute(query, (value,)):
            yield Post(post, Person(handle, name), *rest)

    # -- writing --

    def add_post(self, author: str, text: str, at_ms: int, followers: int) -> int:
        """Add a post and show it to its author; its job sends it to the others."""
        db = self.connection
        db.execute(
            "insert into post (author, text, at_ms, followers) values (?, ?, ?, ?)",
            (author, text, at_ms, followers),
        )
        post = db.last_insert_rowid()
        db.execute("insert into timeline values (?, ?)", (author, post))
        return post

    def is_sent_by(self, post: int, job: str) -> None:
        self.connection.execute("update post set job = ? where id = ?", (job, post))

    def deliver(self, post: int, readers: Sequence[str]) -> None:
        """Put a post on timelines; on those that have it already nothing changes."""
        with self.connection as db:
            rows = [(reader, post) for reader in readers]
            db.executemany("insert or ignore into timeline values (?, ?)", rows)

    def has_delivered(self, post: int) -> None:
        now = int(time.time() * 1000)
        self.connection.execute("update post set took_ms = ? - at_ms where id = ?", (now, post))

    def add_heart(self, post: int, job: bytes) -> None:
        """Count one heart for each job, however often that job runs."""
        self.connection.execute("insert or ignore into heart values (?, ?)", (post, job))


def _waited(times: int) -> bool:
    """Wait for the file's write lock, for some ten seconds in all.

    SQLite's own waiting sleeps longer and longer, up to 0.1 s, and finds the lock taken
    again each time while jobs come in without a pause: a post once waited for 10 s.
    """
    time.sleep(0.001)
    return times < 8_000


STORY = (
    (95, READER, "Found the bug at last. It was an actual moth, so I taped it into the log book."),
    (41, "edsger.fischer", "Simplicity is a great virtue, but it takes hard work to get there."),
    (12, POSTER, "The engine weaves patterns of algebra just as the loom weaves flowers."),
)


def _everybody() -> Iterator[tuple[str, str]]:
    yield POSTER, "Ada Lovelace"
    yield READER, "Grace Hopper"
    made = 1
    for number in range(1, FOLLOWERS):
        for last in LAST:
            for first in FIRST:
                if made == FOLLOWERS:
                    return
                suffix = "" if number == 1 else str(number)
                yield f"{first}.{last}{suffix}".lower(), f"{first} {last}"
                made += 1
