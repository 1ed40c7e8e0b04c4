"""Files that are not what they should be: each gives a named error that says what to do."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import Desk

from backlane.engine.sqlite import SqliteEngine, open_url
from backlane.engine.sqlite.store.address import type_of_mount
from backlane.engine.sqlite.store.migrations import available
from backlane.errors import (
    BadOption,
    EngineUnavailable,
    SchemaMismatch,
    StoreCorrupt,
    UnknownOption,
)
from backlane.model.clock import SystemClock


def test_nothing_is_made_before_the_first_use(engine: SqliteEngine, path: Path):
    assert not path.exists()

    engine.migrate()

    assert path.exists()


def test_the_file_is_for_its_user_alone(engine: SqliteEngine, path: Path):
    engine.migrate()

    modes = [stat.S_IMODE(os.stat(f"{path}{end}").st_mode) for end in ("", "-wal", "-shm")]

    assert modes == [0o600] * 3
    assert stat.S_IMODE(os.stat(f"{path}-side").st_mode) == 0o700


def test_a_file_made_by_us_says_so(engine: SqliteEngine, path: Path):
    engine.migrate()
    engine.close()  # which empties the log

    assert path.read_bytes()[68:72] == b"blne"


def test_an_applications_file_keeps_its_own_id_and_version(engine: SqliteEngine, path: Path):
    shop = apsw.Connection(str(path))
    shop.execute("create table queue (mine); pragma application_id = 7; pragma user_version = 9")

    engine.migrate()

    assert (shop.pragma("application_id"), shop.pragma("user_version")) == (7, 9)


@pytest.mark.parametrize(
    "content", [b"hello, I am a text file " * 99, b"\0" * 8192, b"SQLite format 3\0" + b"x" * 9000]
)
def test_a_file_that_is_no_database(engine: SqliteEngine, path: Path, content: bytes):
    path.write_bytes(content)

    with pytest.raises(StoreCorrupt, match="another"):
        engine.migrate()

    assert path.read_bytes() == content


def test_a_newer_schema_is_refused(engine: SqliteEngine, path: Path):
    engine.migrate()
    engine.close()
    apsw.Connection(str(path)).execute("update backlane_meta set value = 99 where name = 'schema'")

    with pytest.raises(SchemaMismatch, match="upgrade backlane"):
        engine.migrate()


@pytest.mark.parametrize(
    "script",
    [
        "create table backlane_job (mine)",
        "create table backlane_meta (mine)",
        "create table backlane_meta (name, value)",
        "create table backlane_meta as select 'schema' as name, 'one' as value",
        "create table backlane_meta (name, value); insert into backlane_meta values ('schema', 1)",
        "create table backlane_ready (mine)",
    ],
)
def test_tables_of_our_names_that_are_not_ours(desk: Desk, path: Path, script: str):
    apsw.Connection(str(path)).execute(script)

    with pytest.raises(StoreCorrupt, match="backlane"):
        desk.add()


def test_a_directory(engine: SqliteEngine, path: Path):
    path.mkdir()

    with pytest.raises(EngineUnavailable, match="is a directory"):
        engine.migrate()


def test_no_directory(tmp_path: Path):
    engine = SqliteEngine(tmp_path / "none" / "jobs.db")

    with pytest.raises(EngineUnavailable, match="there is no directory"):
        engine.migrate()


def test_a_file_in_place_of_the_directory_beside_it(engine: SqliteEngine, path: Path):
    Path(f"{path}-side").write_text("")

    with pytest.raises(EngineUnavailable):
        engine.migrate()


def test_a_failed_opening_is_tried_anew(engine: SqliteEngine, path: Path):
    path.mkdir()
    with pytest.raises(EngineUnavailable):
        engine.migrate()
    path.rmdir()

    assert engine.migrate() == [name for _, name, _ in available()]


def test_a_file_that_vanished_is_not_made_again(desk: Desk, engine: SqliteEngine, path: Path):
    desk.add()
    store = engine._process.handles().store
    store.drop()
    path.unlink()

    with pytest.raises(EngineUnavailable, match="cannot be opened"):
        desk.add()

    assert not path.exists()


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /srv rw - nfs4 server:/export rw
31 30 0:41 / /srv/local rw - ext4 /dev/vdb rw
32 22 0:42 / /mnt/my\\040disk rw - fuse.sshfs me@host: rw
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/jobs", "nfs4"),
        ("/srvother", "ext4"),
        ("/srv/local/jobs", "ext4"),
        ("/mnt/my disk", "fuse.sshfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(directory: str, kind: str):
    assert type_of_mount(directory, MOUNTS) == kind


def test_a_network_file_system_is_refused(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backlane.engine.sqlite.store.address.file_system", lambda _: "nfs4")

    with pytest.raises(EngineUnavailable, match="file locks do not keep two machines apart"):
        engine.migrate()


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "sqlite://jobs.db", "sqlite:jobs.db", "sqlite:///:memory:",
     "sqlite:///jobs.db?durability=none", "sqlite:///jobs.db?durability=",
     "sqlite:///jobs.db?filesystem=nfs"],
)  # fmt: skip
def test_an_address_that_names_no_file(url: str):
    with pytest.raises(BadOption, match=r"use|write"):
        open_url(url, SystemClock())


def test_an_unknown_option_offers_the_nearest():
    with pytest.raises(UnknownOption, match="did you mean 'durability'"):
        open_url("sqlite:///jobs.db?durabilty=full", SystemClock())


def test_an_address_with_a_durability(tmp_path: Path):
    engine = open_url(f"sqlite:///{tmp_path}/jobs.db?durability=normal", SystemClock())

    states = {finding.subject: finding.state for finding in engine.diagnose()}
    engine.close()

    assert states["durability"] == "warning"
    assert {state for subject, state in states.items() if subject != "durability"} == {"ok"}


def test_diagnose_tells_of_damage_instead_of_raising(engine: SqliteEngine, path: Path):
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)

    findings = engine.diagnose()

    assert [one.subject for one in findings if one.state == "error"] == ["file"]


def test_diagnose_names_what_others_may_read(engine: SqliteEngine, path: Path):
    engine.migrate()
    path.chmod(0o644)

    (finding,) = [one for one in engine.diagnose() if one.state != "ok"]

    assert finding.remedy == f"chmod 600 {path}"
