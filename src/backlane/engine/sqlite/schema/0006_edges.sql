-- The table of jobs is made anew: behind the body of a large job, where columns are added, to
-- read one costs a page for each 4 KiB.

create table backlane_job_of_6 (
    seq integer primary key,                -- the order of append
    id blob not null,
    queue integer not null,
    lane integer not null,
    priority integer not null,
    place integer not null,                 -- due time, wall clock: the order within a rank
    started_ms integer,                     -- of the last attempt that came back
    owner text,                             -- who ran it
    enqueued_ms integer not null,
    due_ms integer,                         -- where place is a virtual time
    deadline_ms integer,
    size integer not null,
    predicted_ms integer,                   -- the wait that one job of an append was told
    task text,
    key_scope text,
    key_name text,
    group_name text,
    parent blob,
    workflow blob,
    policy blob,                            -- null: the default
    extra blob,                             -- what few jobs have; null: nothing of it
    headers blob,
    body blob not null
) strict;
insert into backlane_job_of_6 (seq, id, queue, lane, priority, place, started_ms, owner,
    enqueued_ms, due_ms, deadline_ms, size, predicted_ms, task, key_scope, key_name, group_name,
    parent, policy, extra, headers, body)
select seq, id, queue, lane, priority, place, started_ms, owner, enqueued_ms, due_ms,
    deadline_ms, size, predicted_ms, task, key_scope, key_name, group_name, parent, policy,
    extra, headers, body
from backlane_job
order by seq;
drop table backlane_job;
alter table backlane_job_of_6 rename to backlane_job;
create unique index backlane_job_id on backlane_job (id);
create index backlane_job_key on backlane_job (key_name, seq) where key_name is not null;
create index backlane_job_group on backlane_job (group_name, seq) where group_name is not null;
create index backlane_job_workflow on backlane_job (workflow, seq) where workflow is not null;

create table backlane_tag (
    name text not null,
    seq integer not null,
    primary key (name, seq)
) strict, without rowid;

-- How long a key is held: 0 until its job starts, 1 finishes, 2 succeeds; 3 until a time.
alter table backlane_unique_key add column until integer not null default 1;
alter table backlane_unique_key add column until_ms integer;      -- wall clock; null but for 3
create index backlane_unique_key_until on backlane_unique_key (until_ms)
where until_ms is not null;

-- Who waits, or waited, for which job; kept until the waiting job has ended, so that what it
-- waited for is not pruned. An edge is followed when `job` ends, if it is open by then: it is
-- closed when an ended job begins anew.
create table backlane_edge (
    job integer not null,                   -- seq
    waiter integer not null,                -- seq
    kind integer not null,                  -- the end it waits for: 1 success, 2 any other, 3 any
    is_open integer not null,
    primary key (job, waiter)
) strict, without rowid;

-- The edges of a job that has not ended, from its side: seqs, 8 bytes each. One row, for an
-- index by waiter would cost each leaf of a chord two entries more.
create table backlane_awaited (
    seq integer primary key,
    jobs blob not null
) strict;

-- Edges to jobs that another store has not handed over yet.
create table backlane_expected (
    id blob not null,
    waiter integer not null,
    kind integer not null,
    primary key (id, waiter)
) strict, without rowid;
create index backlane_expected_of on backlane_expected (waiter);

-- A job that was skipped has an error of an attempt that never began: errors are kept in the
-- order they came in, and a token may have two.
drop index backlane_attempt_error_of;
create index backlane_attempt_error_of on backlane_attempt_error (seq);

-- Steps of a job that are done, in the order of `number`.
create table backlane_step (
    number integer primary key,
    seq integer not null,
    name text not null,
    result blob not null
) strict;
create unique index backlane_step_of on backlane_step (seq, name);

-- The newest result of a task: a copy.
create table backlane_latest (
    task text not null unique,
    job blob not null,
    ended_ms integer not null,
    result blob not null
) strict;

-- Jobs whose record is kept for a time of their own; -1: for ever.
create table backlane_keep (
    seq integer primary key,
    keep_ms integer not null
) strict;

create table backlane_keep_count (
    queue integer not null,
    is_failed integer not null,
    jobs integer not null,                  -- that have ended
    primary key (queue, is_failed)
) strict, without rowid;

create table backlane_schedule (
    name text not null unique,
    spec blob not null,
    task text not null,
    is_declared integer not null,
    paused integer not null default 0,
    revision integer not null,
    last_ms integer not null,               -- wall clock
    next_ms integer,                        -- wall clock; null: at once
    last_job blob,
    declared_ms integer                     -- boot clock; null: look again from now on
) strict;
create index backlane_schedule_next on backlane_schedule (next_ms) where paused = 0;
