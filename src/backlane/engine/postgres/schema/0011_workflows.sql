-- What few jobs have is packed in `job.extra`, and what is looked for by it is in tables of
-- its own. `traits` are bits, null for a plain job: 1 its newest result is kept
-- for its task; 2 it waits, or waited, for jobs, so there are rows of `edge` to forget; 4 it says for how
-- long its record is kept, and counts to no number.
alter table backlane.job
    add column keep_ms bigint,              -- of the record once it ended; -1: for ever
    add column traits smallint,
    add column workflow bytea;
create index job_workflow on backlane.job (workflow, seq) where workflow is not null;
create index job_keep on backlane.job (seq) where keep_ms is not null;

-- `hold`: 0 until it finished, 1 until it started, 2 until it succeeded. With `until_ms` it
-- is held until then, whatever becomes of the job.
alter table backlane.unique_key
    add column until_ms bigint,
    add column hold smallint not null default 0;
create index unique_key_until on backlane.unique_key (until_ms) where until_ms is not null;

-- Leases of jobs that have a key and begin, so that most claims need not look for any.
alter table backlane.term add column keyed int;

create table backlane.tag (
    seq bigint not null,
    name text not null
);
create index tag_name on backlane.tag (md5(name), seq);
create index tag_seq on backlane.tag (seq);

-- Whom jobs wait for. A row stays until the job that waits has ended, so that until then
-- nothing is pruned that it waited for; it says nothing any more (`is_open` false) once the
-- other job ended and begins anew. By id, for in a store that another one moves to the other
-- job may come later.
create table backlane.edge (
    waiting bigint not null,
    hope smallint not null,                 -- bits: 1 it must succeed, 2 it must not
    is_open boolean not null,
    awaited bytea not null,
    primary key (awaited, waiting)
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1, vacuum_truncate = off);
create index edge_waiting on backlane.edge (waiting);

create table backlane.step (
    seq bigint not null,
    number bigint generated always as identity,  -- the order of the first notes
    name text not null,
    result bytea not null
);
create unique index step_name on backlane.step (seq, md5(name));

create table backlane.latest (
    ended_ms bigint not null,
    task text primary key,
    job bytea not null,
    result bytea not null
) with (fillfactor = 50);

create table backlane.schedule (
    last_ms bigint not null,                -- all that was due up to then is done with
    next_ms bigint,                         -- null: at once
    declared_ms bigint not null,            -- when code last declared it, by the lease clock
    revision bigint not null,
    is_declared boolean not null,
    paused boolean not null default false,
    name text collate "C" primary key,
    task text not null,
    spec bytea not null,
    last_job bytea
) with (fillfactor = 50);
create index schedule_next on backlane.schedule (coalesce(next_ms, -1), name) where not paused;
