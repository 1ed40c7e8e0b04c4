-- Jobs that are blocked, and what they are blocked on. What only few jobs have is packed into
-- one column of theirs (`extra`), so that plain jobs cost what they did.

alter table backlane_job add column extra blob;             -- null: nothing of it
alter table backlane_job add column due_ms integer;         -- where place is a virtual time
alter table backlane_counter add column blocked integer not null default 0;
alter table backlane_scheduled add column is_plain integer not null default 1;
alter table backlane_queue add column is_fair integer not null default 0;
alter table backlane_queue add column virtual_ms integer;   -- the greatest place that was taken
alter table backlane_queue add column mean_us integer;      -- of what its attempts ran

-- Both kinds: a job waits for others (gate is null), or for room at a gate.
create table backlane_blocked (
    seq integer primary key,
    gate integer,
    waits_for integer not null,             -- jobs that have not ended
    queue integer not null,
    lane integer not null,
    level integer not null,                 -- as rank; 0 at the gate of a turn
    rank integer not null,
    place integer not null,
    priority integer not null,
    attempt integer not null,
    token integer not null,
    revision integer not null,
    crashes integer not null,
    parked_ms integer,
    size integer not null
) strict;
create index backlane_blocked_gate on backlane_blocked (gate, queue, level, place, seq)
where gate is not null;

create table backlane_limit (
    name text primary key,
    declared blob not null,
    tuned blob                              -- null: as declared
) strict, without rowid;

-- One for each use: a limit, a part of one, or a turn. It goes when nobody needs it.
create table backlane_gate (
    id integer primary key,
    name text not null,
    part text not null,
    turn integer not null,
    running integer not null default 0,     -- leases under it
    holder integer,                         -- seq of the job that has the turn
    spent_us integer not null default 0     -- wall clock: when its bucket is full again
) strict;
create unique index backlane_gate_use on backlane_gate (name, part, turn);
create index backlane_gate_spent on backlane_gate (spent_us) where spent_us > 0;

-- Who waits at a gate, by queue. A claim looks where `open_ms` has come, and nowhere else.
create table backlane_gate_queue (
    gate integer not null,
    queue integer not null,
    ready integer not null,
    blocked integer not null,
    open_ms integer,                        -- boot clock; null: not before something is freed
    open_wall_ms integer,                   -- the same, to be told when that clock was set
    primary key (gate, queue)
) strict, without rowid;
create index backlane_gate_queue_open on backlane_gate_queue (queue, open_ms)
where open_ms is not null;

-- What was acquired outside of jobs.
create table backlane_acquired (
    gate integer not null,
    holder blob not null,
    until_ms integer not null,              -- boot clock
    primary key (gate, holder)
) strict, without rowid;
create index backlane_acquired_until on backlane_acquired (until_ms);

-- Fair queues: where each group has got to, in virtual time.
create table backlane_flow (
    queue integer not null,
    name text not null,                     -- of the group; '': jobs without one
    finish_ms integer,                      -- when its work so far is done
    latest_ms integer not null,             -- the latest place it got
    mean_us integer,                        -- of what its attempts ran
    primary key (queue, name)
) strict, without rowid;
create index backlane_flow_latest on backlane_flow (queue, latest_ms);
