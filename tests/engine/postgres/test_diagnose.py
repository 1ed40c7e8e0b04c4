"""The doctor finds each of these states on a real server, and its remedy ends it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.engine.postgres.clinic import Clinic
from tests.servers import postgres
from tests.servers.missing import Missing, give_up
from tests.servers.pgbouncer import PgBouncer

from backlane.engine.postgres import PostgresEngine
from backlane.engine.postgres.doctor.examination import diagnose
from backlane.engine.postgres.store.address import parse
from backlane.engine.protocol import Admission, Presence, Wanted
from backlane.model.clock import FakeClock, SystemClock
from backlane.model.ids import new_id
from backlane.model.job import Job

READY = {
    "max_prepared_transactions": "5",
    "wal_level": "logical",
    "max_connections": "40",
}


@pytest.fixture(scope="module", params=[15, None], ids=["old", "newest"])
def clinic(request: pytest.FixtureRequest) -> Iterator[Clinic]:
    try:
        with postgres.started(request.param, **READY) as server:
            yield Clinic(server)
    except Missing as why:
        give_up("postgresql", why)


# -- the server --


def test_a_server_that_is_well_is_said_to_be(clinic: Clinic) -> None:
    for subject in ("server", "writes", "encoding", "clock", "connections", "durability"):
        assert clinic.is_well(subject), subject


def test_without_a_server_it_says_so_and_no_password() -> None:
    (finding,) = diagnose(parse("postgresql://ann:s3cret@127.0.0.1:1/jobs"), SystemClock())

    assert (finding.subject, finding.state) == ("server", "error")
    assert finding.remedy
    assert "s3cret" not in finding.text


def test_clocks_that_disagree_are_told_apart(clinic: Clinic) -> None:
    clock = FakeClock(datetime.now(UTC) - timedelta(minutes=10))

    finding = clinic.finding("clock", clock=clock)

    assert finding.state == "warning"
    assert "600." in finding.text or "599." in finding.text
    assert "behind" in finding.text
    assert finding.remedy == "timedatectl set-ntp true"


def test_an_encoding_that_cannot_keep_all_text_is_found(clinic: Clinic) -> None:
    clinic.say("create database narrow encoding 'LATIN1' locale 'C' template template0")

    url = clinic.server.url.removesuffix("postgres") + "narrow"
    finding = clinic.finding("encoding", url=url)

    assert (finding.state, "LATIN1" in finding.text) == ("error", True)
    clinic.say("drop database narrow")


def test_connections_that_run_out_are_told_in_time(clinic: Clinic) -> None:
    held = [clinic.connect() for _ in range(25)]

    finding = clinic.finding("connections", connection_share=0.7)

    assert finding.state == "warning"
    assert "of the 37 connections that the server allows" in finding.text
    assert finding.remedy is not None
    assert "max_connections" in finding.remedy
    for one in held:
        one.close()


def test_the_limit_of_a_database_is_a_limit_too(clinic: Clinic) -> None:
    clinic.say("alter database postgres connection limit 2")

    finding = clinic.finding("connections", connection_share=0.5)
    clinic.say(finding.remedy.split(";")[0] if finding.remedy else "")

    assert "database" in finding.text
    assert clinic.is_well("connections", connection_share=0.5)
    clinic.say("alter database postgres connection limit -1")


# -- settings --


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_setting_that_loses_jobs_is_an_error(clinic: Clinic, name: str) -> None:
    with clinic.set_to(name, "off"):
        finding = clinic.finding("durability")
        assert (finding.state, name in finding.text) == ("error", True)

        clinic.obey(finding)
        clinic.wait_for(f"current_setting('{name}') = 'on'")

        assert clinic.is_well("durability")


def test_a_setting_is_mended_where_it_was_set(clinic: Clinic) -> None:
    clinic.say("alter database postgres set synchronous_commit = off")

    finding = clinic.finding("durability")
    clinic.obey(finding)

    assert finding.remedy == "alter database postgres reset synchronous_commit"
    assert clinic.is_well("durability")


def test_a_setting_of_the_url_is_taken_out_there(clinic: Clinic) -> None:
    url = f"{clinic.server.url}?options=-csynchronous_commit%3Doff"

    finding = clinic.finding("durability", url=url)

    assert finding.state == "error"
    assert (
        finding.remedy == "take synchronous_commit out of the URL's options, and out of PGOPTIONS"
    )


def test_local_commits_before_a_standby_that_is_waited_for_are_found(clinic: Clinic) -> None:
    with (
        clinic.set_to("synchronous_commit", "local"),
        clinic.set_to("synchronous_standby_names", "twin"),
    ):
        finding = clinic.finding("durability")

    assert (finding.state, "twin" in finding.text) == ("warning", True)


@pytest.mark.parametrize("name", ["autovacuum", "track_counts"])
def test_autovacuum_that_is_off_is_found(clinic: Clinic, name: str) -> None:
    with clinic.set_to(name, "off"):
        finding = clinic.finding("autovacuum")
        clinic.obey(finding)
        clinic.wait_for(f"current_setting('{name}') = 'on'")

        assert (finding.state, name in finding.text) == ("error", True)
        assert clinic.is_well("autovacuum")


def test_another_isolation_is_found(clinic: Clinic) -> None:
    clinic.say("alter role postgres set default_transaction_isolation = 'serializable'")

    finding = clinic.finding("isolation")
    clinic.obey(finding)

    assert (finding.state, "serializable" in finding.text) == ("warning", True)
    assert clinic.is_well("isolation")


def test_a_database_that_only_reads_is_found(clinic: Clinic) -> None:
    clinic.say("alter database postgres set default_transaction_read_only = on")

    finding = clinic.finding("writes")
    with clinic.connect() as connection:
        connection.execute("set default_transaction_read_only = off")
        for statement in (finding.remedy or "").split("; "):
            connection.execute(statement.encode())

    assert (finding.state, "read-only" in finding.text) == ("error", True)
    assert clinic.is_well("writes")


# -- what holds vacuum up --


def test_a_long_transaction_is_named_with_what_ends_it(clinic: Clinic) -> None:
    reader = clinic.connect(application_name="reports")
    reader.execute("begin isolation level repeatable read")
    reader.execute("select 1")
    clinic.wait_for(
        "clock_timestamp() > (select max(xact_start) + interval '60 ms' from "
        "pg_stat_activity where application_name = 'reports')"
    )

    finding = clinic.finding("transactions", long_seconds=0.05)

    assert finding.state == "warning"
    assert f"pid {reader.info.backend_pid} (reports, role postgres" in finding.text
    assert "idle in transaction" in finding.text
    assert clinic.is_well("transactions", long_seconds=60)
    clinic.obey(finding)
    clinic.wait_for("not exists (select from pg_stat_activity where application_name = 'reports')")
    assert clinic.is_well("transactions", long_seconds=0.05)


def test_a_forgotten_prepared_transaction_is_named(clinic: Clinic) -> None:
    with clinic.connect() as connection:
        connection.execute("begin")
        connection.execute("create table held (id int)")
        connection.execute("prepare transaction 'o''brien'")

    finding = clinic.finding("prepared", long_seconds=0)
    clinic.obey(finding)

    assert (finding.state, '"o\'brien"' in finding.text) == ("warning", True)
    assert clinic.is_well("prepared", long_seconds=0)


def test_a_slot_that_nobody_reads_is_named(clinic: Clinic) -> None:
    clinic.say("select pg_create_physical_replication_slot('gone', true)")
    clinic.say("create table written as select generate_series(1, 1000) as id")

    finding = clinic.finding("slots", log_bytes=0)
    clinic.obey(finding)

    assert "'gone' is read by nobody" in finding.text
    assert clinic.is_well("slots", log_bytes=0)
    clinic.say("drop table written")


def test_a_role_that_sees_little_is_told_so(clinic: Clinic) -> None:
    clinic.say("create role blind login")
    url = clinic.server.url.replace("postgres@", "blind@")

    finding = clinic.finding("sight", url=url)
    clinic.obey(finding)

    assert (finding.state, "blind" in finding.text) == ("warning", True)
    assert clinic.is_well("sight", url=url)
    clinic.say("drop role blind")


def test_a_role_that_sees_little_finds_the_oldest_snapshot_all_the_same(clinic: Clinic) -> None:
    clinic.say("create role blind login")
    reader = clinic.connect(application_name="reports")
    reader.execute("begin isolation level repeatable read")
    reader.execute("select 1")
    for _ in range(20):
        clinic.say("select pg_current_xact_id()")

    url = clinic.server.url.replace("postgres@", "blind@")
    found = clinic.findings("transactions", url=url, pinned=10)

    assert [f"pid {reader.info.backend_pid}" in one.text for one in found] == [True]
    reader.close()
    clinic.say("drop role blind")


# -- sessions --


def test_no_pooler_and_a_notification_that_arrives_are_well(clinic: Clinic) -> None:
    assert clinic.is_well("pooler")
    assert clinic.is_well("notify")


@pytest.mark.parametrize(
    ("mode", "said", "state", "remedy"),
    [
        ("transaction", None, "warning", "?pooler=transaction"),
        ("transaction", "transaction", "ok", ""),
        ("transaction", "none", "error", "?pooler=transaction"),
        ("session", None, "warning", "?pooler=none"),
        ("session", "transaction", "warning", "?pooler=none"),
        ("session", "none", "ok", ""),
    ],
)
def test_a_pooler_is_to_be_what_the_url_says(
    clinic: Clinic, mode: str, said: str | None, state: str, remedy: str
) -> None:
    pooler = _pooler(clinic, mode)
    try:
        url = f"{pooler.url}?pooler={said}" if said else pooler.url
        finding, notify = clinic.finding("pooler", url=url), clinic.finding("notify", url=url)
    finally:
        pooler.process.remove()

    assert (finding.state, remedy in (finding.remedy or "")) == (state, True)
    assert notify.state == ("ok" if (mode, said) == ("session", "none") else "warning")


def test_a_pooler_that_the_url_tells_of_and_that_is_not_there_costs_for_nothing(
    clinic: Clinic,
) -> None:
    finding = clinic.finding("pooler", url=f"{clinic.server.url}?pooler=transaction")

    assert (finding.state, "not there" in finding.text) == ("warning", True)


def _pooler(clinic: Clinic, mode: str) -> PgBouncer:
    try:
        pooler = PgBouncer(clinic.server.url)
    except Missing as why:
        give_up("pgbouncer", why)
    settings = pooler.process.folder / "ini"
    settings.write_text(settings.read_text().replace("= transaction", f"= {mode}"))
    pooler.process.start()
    return pooler


# -- our own tables --


@pytest.fixture
def migrated(clinic: Clinic) -> Iterator[Clinic]:
    """The clinic, with the tables of backlane."""
    engine = PostgresEngine(clinic.server.url)
    engine.migrate()
    engine.close()
    yield clinic
    clinic.say("drop schema backlane cascade")


def test_a_schema_without_tables_is_an_error(clinic: Clinic) -> None:
    finding = clinic.finding("schema")

    assert (finding.state, finding.remedy) == (
        "error",
        f"backlane migrate --url {clinic.server.url}",
    )
    assert not clinic.findings("workers"), "what is missing is told once"


def test_tables_that_are_up_to_date_and_ours_to_use_are_well(migrated: Clinic) -> None:
    for subject in ("schema", "access", "parts", "locks", "dead rows"):
        assert migrated.is_well(subject), migrated.findings(subject)


def test_an_engine_tells_what_the_doctor_found(migrated: Clinic) -> None:
    engine = PostgresEngine(migrated.server.url)

    subjects = [finding.subject for finding in engine.diagnose()]
    engine.close()

    assert subjects[0] == "server"
    assert {"schema", "notify", "clock", "transactions"} <= set(subjects)


def test_tables_that_lack_a_migration_are_an_error(migrated: Clinic) -> None:
    migrated.say(
        "delete from backlane.migration where name = (select max(name) from backlane.migration)"
    )

    finding = migrated.finding("schema")

    assert (finding.state, "older than this backlane" in finding.text) == ("error", True)
    assert (finding.remedy or "").startswith("backlane migrate")


def test_tables_newer_than_this_backlane_are_told(migrated: Clinic) -> None:
    migrated.say("insert into backlane.migration (name) values ('9999_tomorrow')")

    finding = migrated.finding("schema")

    assert (finding.state, "9999_tomorrow" in finding.text) == ("warning", True)
    assert finding.remedy == "pip install --upgrade backlane"


@pytest.fixture
def guest(migrated: Clinic) -> Iterator[str]:
    """The URL of a role that was granted nothing."""
    migrated.say("create role guest login")
    yield migrated.server.url.replace("postgres@", "guest@")
    migrated.say("drop owned by guest")
    migrated.say("drop role guest")


def test_a_role_is_led_from_grant_to_grant(migrated: Clinic, guest: str) -> None:
    finding = migrated.finding("schema", url=guest)
    assert (finding.state, "may not use" in finding.text) == ("error", True)
    migrated.obey(finding)
    migrated.say("grant select on backlane.migration to guest")

    finding = migrated.finding("access", url=guest)
    assert (finding.state, "may not read" in finding.text) == ("error", True)
    migrated.obey(finding)

    finding = migrated.finding("access", url=guest)
    assert (finding.state, "look, but not append" in finding.text) == ("warning", True)
    migrated.say("grant insert on all tables in schema backlane to guest")

    finding = migrated.finding("access", url=guest)
    assert (finding.state, "draw numbers" in finding.text) == ("error", True)
    migrated.obey(finding)

    finding = migrated.finding("access", url=guest)
    assert (finding.state, "append, but not claim" in finding.text) == ("warning", True)
    migrated.obey(finding)

    assert migrated.is_well("access", url=guest)


def test_history_that_outgrew_its_parts_is_found(migrated: Clinic) -> None:
    migrated.say("select setval('backlane.job_seq', 1000000000)")

    finding = migrated.finding("parts")

    assert (finding.state, "1,000,000,000" in finding.text) == ("warning", True)
    assert "worker" in (finding.remedy or "")


def test_history_that_has_no_part_of_its_own_is_found(migrated: Clinic) -> None:
    migrated.say(
        "insert into backlane.finished (seq, token, ended_ms, ran_ms, queue, attempt, revision, "
        "state) values (1000000000, 1, 1, 1, 1, 1, 1, 1)"
    )

    finding = migrated.finding("parts")

    assert (finding.state, "finished_rest" in finding.text) == ("warning", True)


def test_tables_that_autovacuum_passes_by_are_named(migrated: Clinic) -> None:
    migrated.say("alter table backlane.ready set (autovacuum_enabled = false)")

    finding = migrated.finding("autovacuum")
    migrated.obey(finding)

    assert (finding.state, "backlane.ready" in finding.text) == ("error", True)
    assert migrated.is_well("autovacuum")


def test_dead_rows_that_vacuum_does_not_get_at_are_counted(migrated: Clinic) -> None:
    migrated.say("alter table backlane.deadline set (autovacuum_enabled = false)")
    migrated.say("insert into backlane.deadline select n, n from generate_series(1, 500) as n")
    migrated.say("delete from backlane.deadline")
    migrated.wait_for(
        "(select n_dead_tup >= 500 from pg_stat_user_tables "
        "where schemaname = 'backlane' and relname = 'deadline')"
    )

    finding = migrated.finding("dead rows", dead_rows=400)
    migrated.obey(finding)
    migrated.wait_for(
        "(select n_dead_tup = 0 from pg_stat_user_tables "
        "where schemaname = 'backlane' and relname = 'deadline')"
    )

    assert (finding.state, "500 dead rows" in finding.text) == ("warning", True)
    assert migrated.is_well("dead rows", dead_rows=400)


def test_a_session_that_holds_our_rows_and_does_nothing_is_named(migrated: Clinic) -> None:
    with contextlib.closing(migrated.connect(application_name="shop")) as session:
        session.execute("begin")
        session.execute("insert into backlane.progress (seq, token) values (1, 1)")

        finding = migrated.finding("locks", idle_seconds=0)
        assert finding.state == "warning"
        assert f"pid {session.info.backend_pid} (shop, role postgres) changed" in finding.text
        assert "progress" in finding.text
        assert migrated.is_well("locks", idle_seconds=60)

        migrated.say((finding.remedy or "").split("; ")[0])
        migrated.wait_for(
            "not exists (select from pg_stat_activity where application_name = 'shop')"
        )
        assert migrated.is_well("locks", idle_seconds=0)


def test_a_table_that_somebody_locked_does_not_hold_the_doctor_up(migrated: Clinic) -> None:
    with contextlib.closing(migrated.connect(application_name="shop")) as session:
        session.execute("begin")
        session.execute("lock table backlane.finished_rest in access exclusive mode")

        found = migrated.findings("schema")
        (locks,) = migrated.findings("locks", idle_seconds=0)

    assert "lock timeout" in found[-1].text
    assert "finished_rest" in locks.text


# -- workers --


@pytest.fixture
def worker(migrated: Clinic) -> Iterator[PostgresEngine]:
    """An engine whose worker ann has announced itself."""
    engine = PostgresEngine(migrated.server.url)
    presence = Presence(owner="ann", host="h", pid=1, queues=("mail",), slots=1, running=0)
    engine.run(engine.announce(presence))
    yield engine
    engine.close()


def test_workers_of_whom_none_listens_are_told(migrated: Clinic, worker: PostgresEngine) -> None:
    finding = migrated.finding("listeners")
    assert (finding.state, "none of them listens" in finding.text) == ("warning", True)

    bell = worker.listen(["mail"])
    migrated.wait_for("exists (select from pg_locks where locktype = 'advisory')")

    assert migrated.is_well("listeners")
    bell.close()


def test_a_worker_that_died_just_now_is_none_that_could_listen(
    migrated: Clinic, worker: PostgresEngine
) -> None:
    worker.enlist("ann").close()

    assert migrated.is_well("listeners")


def test_an_owner_that_died_and_holds_leases_is_named(
    migrated: Clinic, worker: PostgresEngine
) -> None:
    job = Job(id=new_id(SystemClock().wall_ms()), queue="mail", task="send", body=b"{}")
    worker.run(worker.append([job], Admission()))
    alive = worker.enlist("ann")
    worker.run(worker.claim(Wanted(owner="ann", number=1, lease_ms=60_000, queues=("mail",))))
    assert migrated.is_well("owners")

    alive.close()

    finding = migrated.finding("owners")
    assert (finding.state, "ann" in finding.text) == ("warning", True)


# -- standbys --


@pytest.fixture(scope="module")
def standby(clinic: Clinic) -> Iterator[Clinic]:
    """A server that follows the clinic's, and tells it what its queries still need."""
    with clinic.followed(name="twin", hot_standby_feedback="on") as follower:
        yield Clinic(follower)


def test_a_standby_takes_no_jobs(standby: Clinic) -> None:
    finding = standby.finding("writes")

    assert (finding.state, "standby" in finding.text) == ("error", True)
    assert "target_session_attrs=read-write" in (finding.remedy or "")


def test_a_standby_whose_query_keeps_rows_is_named(clinic: Clinic, standby: Clinic) -> None:
    with standby.connect() as reader:
        reader.execute("begin isolation level repeatable read")
        reader.execute("select count(*) from pg_class")
        clinic.wait_for("(select bool_or(backend_xmin is not null) from pg_stat_replication)", 30)
        for _ in range(20):
            clinic.say("select pg_current_xact_id()")

        (finding,) = clinic.findings("standbys", pinned=10)

    assert (finding.state, "twin" in finding.text) == ("warning", True)
    assert "hot_standby_feedback" in (finding.remedy or "")


# -- notifications --


def test_a_queue_of_notifications_that_fills_up_is_told_in_time(clinic: Clinic) -> None:
    with contextlib.closing(clinic.connect()) as deaf, clinic.connect() as loud:
        deaf.execute("listen news")
        deaf.execute("begin")
        for _ in range(20):
            loud.execute("select pg_notify('news', repeat('x', 7000))")

        finding = clinic.finding("notify queue", notify_share=1e-6)

        assert (finding.state, "in use" in finding.text) == ("warning", True)
        clinic.obey(finding)

    assert clinic.is_well("notify queue", notify_share=1e-3)
