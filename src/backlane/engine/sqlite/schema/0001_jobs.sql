-- One narrow table per state: what a claim scans stays tiny, whatever the history.
-- Names carry a prefix because the file may be the application's own: only then can
-- a job be enqueued in the application's transaction. For the same reason all are strict:
-- what another program writes into a column is at least of the type that we read.

create table backlane_meta (
    name text primary key,
    value any
) strict, without rowid;

insert into backlane_meta (name, value)
values ('forgotten_ms', -1), ('pruned_seq', 0), ('lapse_ms', null), ('boot', null);

create table backlane_queue (
    id integer primary key,
    name text not null unique,
    kind text not null,
    declared_jobs integer not null,
    declared_bytes integer not null,
    tuned_jobs integer,
    tuned_bytes integer,
    paused integer not null default 0
) strict;

-- Depth and lifetime counts, changed in the transaction that changes the rows.
create table backlane_counter (
    queue integer not null,
    priority integer not null,
    scheduled integer not null default 0,
    ready integer not null default 0,
    running integer not null default 0,
    bytes integer not null default 0,
    appended integer not null default 0,
    retried integer not null default 0,
    succeeded integer not null default 0,
    failed integer not null default 0,
    cancelled integer not null default 0,
    expired integer not null default 0,
    kept_done integer not null default 0,   -- rows of finished: all but failed
    kept_failed integer not null default 0,
    primary key (queue, priority)
) strict, without rowid;

-- What a job is. Only where it waits (queue to owner) ever changes. The body comes
-- last, so that reading the rest of a large one touches no overflow page.
create table backlane_job (
    seq integer primary key,                -- the order of append
    id blob not null,
    queue integer not null,
    lane integer not null,
    priority integer not null,
    place integer not null,                 -- due time, wall clock: the order within a rank
    started_ms integer,                     -- of the last attempt that came back
    owner text,                             -- who ran it
    enqueued_ms integer not null,
    deadline_ms integer,
    size integer not null,
    task text,
    key_scope text,
    key_name text,
    group_name text,
    parent blob,
    policy blob,                            -- null: the default
    headers blob,
    body blob not null
) strict;
create unique index backlane_job_id on backlane_job (id);
create index backlane_job_key on backlane_job (key_name, seq) where key_name is not null;
create index backlane_job_group on backlane_job (group_name, seq) where group_name is not null;

-- The priority is stored inverted (rank 0 is the most urgent), so that a claim is one
-- ascending range of this key: a mixed-direction sort made it 17 times slower.
create table backlane_ready (
    queue integer not null,
    lane integer not null,
    rank integer not null,                  -- 9 - priority, less a level for every 5 minutes
    place integer not null,
    seq integer not null,
    priority integer not null,
    attempt integer not null,
    token integer not null,
    revision integer not null,
    crashes integer not null,
    parked_ms integer,                      -- wall clock: since when no worker knows its task
    size integer not null,
    primary key (queue, lane, rank, place, seq)
) strict, without rowid;

create table backlane_scheduled (
    due_ms integer not null,
    seq integer not null,
    queue integer not null,
    lane integer not null,
    priority integer not null,
    attempt integer not null,
    token integer not null,
    revision integer not null,
    crashes integer not null,
    parked_ms integer,
    size integer not null,
    primary key (due_ms, seq)
) strict, without rowid;

create table backlane_lease (
    id blob primary key,
    token integer not null,
    seq integer not null,
    queue integer not null,
    priority integer not null,
    attempt integer not null,
    revision integer not null,
    size integer not null,
    started_ms integer not null,
    owner text not null,
    is_plain integer not null,              -- 1: no key to free, no deadline to forget
    cancelling integer not null,
    lane integer not null,
    place integer not null,
    crashes integer not null,
    parked_ms integer,
    until_ms integer not null               -- boot clock
) strict, without rowid;
create index backlane_lease_cancelling on backlane_lease (owner) where cancelling = 1;

create table backlane_finished (
    seq integer primary key,
    state integer not null,                 -- 1 succeeded, 2 failed, 3 cancelled, 4 expired
    reason text,
    queue integer not null,
    attempt integer not null,
    token integer not null,
    revision integer not null,
    started_ms integer,
    ended_ms integer not null,
    ran_ms integer not null,
    owner text,
    result blob
) strict;
create index backlane_finished_failed on backlane_finished (seq) where state = 2;

create table backlane_attempt_error (
    seq integer not null,
    token integer not null,
    attempt integer not null,
    at_ms integer not null,
    kind text not null,
    message text not null,
    traceback text not null,
    fingerprint text not null
) strict;
create unique index backlane_attempt_error_of on backlane_attempt_error (seq, token);

create table backlane_progress (
    seq integer primary key,
    token integer not null,
    fraction real,
    message text
) strict;

-- Jobs not finished that have a key, or a deadline.
create table backlane_unique_key (
    scope text not null,
    name text not null,
    seq integer not null,
    id blob not null,
    primary key (scope, name)
) strict, without rowid;

create table backlane_deadline (
    deadline_ms integer not null,
    seq integer not null,
    primary key (deadline_ms, seq)
) strict, without rowid;

create table backlane_worker (
    owner text not null unique,
    host text not null,
    pid integer not null,
    queues text not null,
    slots integer not null,
    running integer not null,
    started_ms integer not null,
    beat_ms integer not null                -- boot clock
) strict;
