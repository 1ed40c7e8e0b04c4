-- One narrow table per state: what a claim scans stays tiny, whatever the history. Each
-- row that changes often is written anew, never updated in place a thousand times: under
-- a snapshot held elsewhere every version of it would stay, and be walked over.
--
-- Ids, bodies, headers, policies and results are bytes. Text is text; what may hold a NUL
-- or half a surrogate, which a text column cannot (messages, names of groups and keys), is
-- escaped by the driver (`text.py`), so that equal text stays equal.
--
-- Times are wall-clock milliseconds, but for `until_ms` of a lease and `beat_ms` of a
-- worker: those are of the clock that leases are measured by.

create function backlane.now_ms() returns bigint
language sql volatile
return floor(date_part('epoch', clock_timestamp()) * 1000)::bigint;

-- What stands for a name of any length in an index: names of up to a few hundred letters
-- would fit, longer ones would fail.
create function backlane.digest(scope text, name text) returns bytea
language sql immutable parallel safe
return sha256(convert_to(length(scope) || ':' || scope || name, 'UTF8'));

create table backlane.meta (
    name text primary key,
    number bigint,
    value bytea
) with (fillfactor = 50);

-- `secret` is what tickets are signed with; gen_random_uuid() is the strong random source
-- that every server has without an extension: 244 bits of it. `seal` is null while the
-- store is open, else the seal of a move (JSON).
insert into backlane.meta (name, number, value)
values
    ('forgotten_ms', -1, null),
    ('pruned_seq', 0, null),
    ('pruned_failed', 0, null),
    ('seal', null, null),
    ('secret', null, uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

create table backlane.queue (
    id int generated always as identity primary key,
    name text not null unique,
    kind text not null,
    declared_jobs bigint not null,
    declared_bytes bigint not null,
    declared_wait_ms bigint,
    declared_share float8,
    tuned_jobs bigint,
    tuned_bytes bigint,
    tuned_wait_ms bigint,                   -- 0: not bounded
    tuned_share float8,
    paused boolean not null default false
) with (fillfactor = 50);

-- Apart from the queue, for it moves at every refusal; no row: never moved.
create table backlane.virtual_clock (
    queue int primary key,
    clock_us bigint not null                -- wall clock
) with (fillfactor = 10, autovacuum_vacuum_threshold = 1000);

-- Depth and lifetime counts. What holds is the sum of a row here and of all rows of
-- `tally` for the same queue and priority (the view `counted`): verbs only insert what
-- they changed, and a sweep folds it in here. So no two verbs wait for one row, and none
-- is updated so often that a held snapshot would make it slow.
create table backlane.counter (
    queue int not null,
    priority smallint not null,
    scheduled bigint not null default 0,
    ready bigint not null default 0,
    running bigint not null default 0,
    bytes bigint not null default 0,
    appended bigint not null default 0,
    retried bigint not null default 0,
    succeeded bigint not null default 0,
    failed bigint not null default 0,
    cancelled bigint not null default 0,
    expired bigint not null default 0,
    kept_done bigint not null default 0,    -- rows of finished whose job says not how long
    kept_failed bigint not null default 0,  -- of failed likewise
    started bigint not null default 0,      -- leases given
    ended bigint not null default 0,        -- attempts
    ran_ms bigint not null default 0,       -- what those ran
    foretold bigint not null default 0,     -- begun, of those that were told a wait
    foretold_ms bigint not null default 0,
    waited_ms bigint not null default 0,
    primary key (queue, priority)
) with (fillfactor = 50);

-- Null is nothing, and takes no room: few verbs change more than four of these.
create table backlane.tally (
    queue int not null,
    priority smallint not null,
    credit bigint,                          -- whose places `appended` and `bytes` used up
    scheduled int,
    ready int,
    running int,
    bytes bigint,
    appended int,
    retried int,
    succeeded int,
    failed int,
    cancelled int,
    expired int,
    kept_done int,
    kept_failed int,
    started int,
    ended int,
    ran_ms bigint,
    foretold int,
    foretold_ms bigint,
    waited_ms bigint
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 1, autovacuum_analyze_threshold = 100000,
    vacuum_truncate = off);

create view backlane.counted as
select queue, priority, sum(scheduled)::bigint as scheduled, sum(ready)::bigint as ready,
    sum(running)::bigint as running, sum(bytes)::bigint as bytes,
    sum(appended)::bigint as appended, sum(retried)::bigint as retried,
    sum(succeeded)::bigint as succeeded, sum(failed)::bigint as failed,
    sum(cancelled)::bigint as cancelled, sum(expired)::bigint as expired,
    sum(kept_done)::bigint as kept_done, sum(kept_failed)::bigint as kept_failed,
    sum(started)::bigint as started, sum(ended)::bigint as ended,
    sum(ran_ms)::bigint as ran_ms, sum(foretold)::bigint as foretold,
    sum(foretold_ms)::bigint as foretold_ms, sum(waited_ms)::bigint as waited_ms
from (
    select * from backlane.counter
    union all
    select queue, priority, coalesce(scheduled, 0), coalesce(ready, 0), coalesce(running, 0),
        coalesce(bytes, 0), coalesce(appended, 0), coalesce(retried, 0),
        coalesce(succeeded, 0), coalesce(failed, 0), coalesce(cancelled, 0),
        coalesce(expired, 0), coalesce(kept_done, 0), coalesce(kept_failed, 0),
        coalesce(started, 0), coalesce(ended, 0), coalesce(ran_ms, 0),
        coalesce(foretold, 0), coalesce(foretold_ms, 0), coalesce(waited_ms, 0)
    from backlane.tally
) as both_parts
group by queue, priority;

-- Places and bytes of a queue that a process may fill without asking again. Open is what
-- is granted less what `tally` says was used: in one snapshot, counted + open <= bound.
create table backlane.credit (
    id bigint generated always as identity primary key,
    queue int not null,
    owner text not null,                    -- random for each process
    jobs bigint not null,
    bytes bigint not null,
    xid xid8,                               -- granted to this transaction of a caller: it
    -- counts until that ends, however it does
    until_ms bigint not null                -- a sweep takes it back after this
) with (fillfactor = 50);
create index credit_of_queue on backlane.credit (queue);

-- The order of append. A number is taken before the commit, so a smaller one may appear
-- after a larger one.
create sequence backlane.job_seq;

-- What a job is. Only where it waits (lane, place), and of which queue and priority it is,
-- ever changes: when it comes back from a lease, or by hand. From these its row in `ready`
-- or `scheduled` is found by key (rank by ten probes, for ageing moves it there alone).
create table backlane.job (
    seq bigint primary key,
    place bigint not null,                  -- due time: the order within a rank
    enqueued_ms bigint not null,
    deadline_ms bigint,
    started_ms bigint,                      -- of the last attempt that came back
    predicted_ms bigint,                    -- what one job of each append was told to wait
    queue int not null,
    lane int not null,                      -- twice the resource's id (0: none) plus the kind
    size int not null,                      -- of executor: 0 shared, 1 exclusive
    attempts int not null,                  -- allowed; the policy's
    priority smallint not null,
    id bytea not null,
    owner text,                             -- who ran it last
    task text,
    key_scope text,
    key_name text,
    group_name text,
    parent bytea,
    policy bytea,                           -- JSON; null: the default
    headers bytea,
    body bytea not null
) with (fillfactor = 95);
create unique index job_id on backlane.job (id);
create index job_key on backlane.job (md5(key_name), seq) where key_name is not null;
create index job_group on backlane.job (md5(group_name), seq) where group_name is not null;

-- The priority is stored inverted (rank 0 is the most urgent), so that a claim is one
-- ascending range of this key: a mixed-direction sort made it 17 times slower.
create table backlane.ready (
    place bigint not null,
    seq bigint not null,
    token bigint not null,
    parked_ms bigint,                       -- since when no worker knows its task
    queue int not null,
    lane int not null,
    attempt int not null,
    revision int not null,
    crashes int not null,
    size int not null,
    rank smallint not null,                 -- 9 - priority, less a level for every 5 minutes
    priority smallint not null,
    primary key (queue, lane, rank, place, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 1, autovacuum_analyze_threshold = 100000,
    vacuum_truncate = off);

create table backlane.scheduled (
    due_ms bigint not null,
    seq bigint not null,
    token bigint not null,
    parked_ms bigint,
    queue int not null,
    lane int not null,
    attempt int not null,
    revision int not null,
    crashes int not null,
    size int not null,
    priority smallint not null,
    primary key (due_ms, seq)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1,
    vacuum_truncate = off);

-- When leases lapse, one row for all that were given or extended together: the earliest
-- is found without walking over all those that were settled in the meantime. A row goes
-- when its time comes, whatever became of its leases.
create sequence backlane.term_seq;
create table backlane.term (
    id bigint primary key,
    until_ms bigint not null,
    leases int not null,                    -- at first
    owner text not null
) with (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
create index term_until on backlane.term (until_ms);

create table backlane.lease (
    seq bigint not null,
    token bigint not null,
    started_ms bigint not null,
    place bigint not null,
    until_ms bigint not null,
    term bigint not null,                   -- whose `until_ms` this is
    parked_ms bigint,
    queue int not null,
    lane int not null,
    attempt int not null,
    revision int not null,
    crashes int not null,
    size int not null,
    priority smallint not null,
    is_plain boolean not null,              -- no key to free, no deadline, group or traits
    cancelling boolean not null default false,
    id bytea primary key,
    owner text not null
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 1,
    autovacuum_analyze_threshold = 100000, vacuum_truncate = off);
create index lease_term on backlane.lease (term);
create index lease_cancelling on backlane.lease (owner) where cancelling;

-- The history of all that did not fail, in parts by the order of append: a part is made
-- ahead of its first job, and dropped once nothing in it is kept. What belongs to no part
-- (nobody swept for long) goes to the last one.
create table backlane.finished (
    seq bigint not null,
    token bigint not null,
    started_ms bigint,
    ended_ms bigint not null,
    ran_ms bigint not null,
    queue int not null,
    attempt int not null,
    revision int not null,
    state smallint not null,                -- 1 succeeded, 3 cancelled, 4 expired
    owner text,
    result bytea,
    primary key (seq)
) partition by range (seq);

create table backlane.finished_rest partition of backlane.finished default;
create table backlane.finished_0 partition of backlane.finished for values from (0) to (1048576);
create table backlane.finished_1 partition of backlane.finished
    for values from (1048576) to (2097152);

-- Dead letters: kept 30 times as long, so not in the parts that are dropped.
create table backlane.failed (
    seq bigint primary key,
    token bigint not null,
    started_ms bigint,
    ended_ms bigint not null,
    ran_ms bigint not null,
    queue int not null,
    attempt int not null,
    revision int not null,
    reason text not null,
    owner text
);

-- All that ended; a look-up by seq is one in each of the two.
create view backlane.ended as
select seq, token, started_ms, ended_ms, ran_ms, queue, attempt, revision, state,
    null::text as reason, owner, result
from backlane.finished
union all
select seq, token, started_ms, ended_ms, ran_ms, queue, attempt, revision, 2::smallint,
    reason, owner, null::bytea
from backlane.failed;

create table backlane.attempt_error (
    seq bigint not null,
    token bigint not null,
    at_ms bigint not null,
    attempt int not null,
    kind text not null,
    message text not null,
    traceback text not null,
    fingerprint text not null,
    primary key (seq, token)
);

create table backlane.progress (
    seq bigint primary key,
    token bigint not null,
    fraction float8,
    message text
) with (fillfactor = 50);

-- Jobs not finished that have a key, or a deadline.
create table backlane.unique_key (
    seq bigint not null,
    digest bytea primary key,               -- of key_scope and key_name of the job
    id bytea not null
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);

create table backlane.deadline (
    deadline_ms bigint not null,
    seq bigint not null,
    primary key (deadline_ms, seq)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);

-- How many jobs not finished each group has in a queue: base and changes, as of counters.
create table backlane.group_counter (
    queue int not null,
    jobs bigint not null,
    name text not null
) with (fillfactor = 80);
create unique index group_counter_name on backlane.group_counter (queue, md5(name));

create table backlane.group_tally (
    queue int not null,
    jobs int not null,
    name text not null,
    xid xid8                                -- booked for this transaction of a caller: it
    -- counts until that ends, however it does
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
create index group_tally_name on backlane.group_tally (queue, md5(name));

-- Outlives the job, so that a request that comes again is answered with the first one's.
create table backlane.idempotency (
    until_ms bigint not null,
    digest bytea primary key,               -- of scope and name
    id bytea not null,
    print bytea not null,
    scope text not null,
    name text not null
);
create index idempotency_until on backlane.idempotency (until_ms);

create table backlane.worker (
    owner text primary key,
    started_ms bigint not null,
    beat_ms bigint not null,
    pid int not null,
    slots int not null,
    running int not null,
    host text not null,
    queues text[] not null,
    most jsonb not null default '{}'        -- by queue
) with (fillfactor = 50);

-- Resources that jobs depend on. A claim passes the lanes of one that is down by without
-- looking at a single job.
create table backlane.resource (
    id int generated always as identity primary key,
    name text not null unique,
    state text not null default 'closed',   -- of its breaker, so that few are read at all
    breaker bytea                           -- MessagePack; null: nothing is remembered
) with (fillfactor = 50);
create index resource_not_closed on backlane.resource (id) where state <> 'closed';

-- Where the job next in line may be: not in the lanes of a resource that is down.
create view backlane.lane as
select 0 as lane
union all
select 1
union all
select 2 * id from backlane.resource where state = 'closed'
union all
select 2 * id + 1 from backlane.resource where state = 'closed';
