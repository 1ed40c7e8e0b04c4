-- Blocked jobs, limits, turns and fair queues.
--
-- A limit is known by a number. What a use stands for (a limit, or a part of it, or a turn)
-- is known by its gate, 64 bits of a digest of these, so that nothing has to be made before
-- a job can name it. The number of a turn is that of its name, negative.

-- All of these are null for plain jobs.
alter table backlane.job
    add column gates bigint[],              -- of its uses, turns first
    add column limits int[],                -- and the numbers of their limits
    add column extra bytea,                 -- MessagePack: rule, uses, after, tags
    add column due_ms bigint;               -- where its place is not when it is due: fair queues
alter table backlane.ready add column is_gated boolean;      -- null: it is under no limit
alter table backlane.scheduled add column is_gated boolean;
alter table backlane.lease add column is_gated boolean;      -- or of a fair or limited queue
alter table backlane.queue
    add column is_fair boolean not null default false,
    add column limit_no int;                -- its own limit, if that bounds anything
create index queue_fair on backlane.queue (id) where is_fair;
insert into backlane.meta (name, number) values ('opened_gate', -9223372036854775808);
alter table backlane.counter add column blocked bigint not null default 0;
alter table backlane.tally add column blocked int;

create or replace view backlane.counted as
select queue, priority, sum(scheduled)::bigint as scheduled, sum(ready)::bigint as ready,
    sum(running)::bigint as running, sum(bytes)::bigint as bytes,
    sum(appended)::bigint as appended, sum(retried)::bigint as retried,
    sum(succeeded)::bigint as succeeded, sum(failed)::bigint as failed,
    sum(cancelled)::bigint as cancelled, sum(expired)::bigint as expired,
    sum(kept_done)::bigint as kept_done, sum(kept_failed)::bigint as kept_failed,
    sum(started)::bigint as started, sum(ended)::bigint as ended,
    sum(ran_ms)::bigint as ran_ms, sum(foretold)::bigint as foretold,
    sum(foretold_ms)::bigint as foretold_ms, sum(waited_ms)::bigint as waited_ms,
    sum(blocked)::bigint as blocked
from (
    select * from backlane.counter
    union all
    select queue, priority, coalesce(scheduled, 0), coalesce(ready, 0), coalesce(running, 0),
        coalesce(bytes, 0), coalesce(appended, 0), coalesce(retried, 0),
        coalesce(succeeded, 0), coalesce(failed, 0), coalesce(cancelled, 0),
        coalesce(expired, 0), coalesce(kept_done, 0), coalesce(kept_failed, 0),
        coalesce(started, 0), coalesce(ended, 0), coalesce(ran_ms, 0),
        coalesce(foretold, 0), coalesce(foretold_ms, 0), coalesce(waited_ms, 0),
        coalesce(blocked, 0)
    from backlane.tally
) as both_parts
group by queue, priority;

-- Jobs that wait for others (`gate` is null), or for a limit or their turn.
create table backlane.blocked (
    place bigint not null,
    seq bigint primary key,
    token bigint not null,
    gate bigint,                            -- what it waits for; null: other jobs
    parked_ms bigint,
    queue int not null,
    lane int not null,
    attempt int not null,
    revision int not null,
    crashes int not null,
    size int not null,
    limit_no int,                           -- of the gate
    waits_for int not null default 0,       -- jobs that have not ended
    rank smallint not null,                 -- of the ready job that it was or is; for a turn 0
    priority smallint not null,
    raised smallint                         -- the rank that ageing gave it; null: none did
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1,
    vacuum_truncate = off);
create index blocked_in_line on backlane.blocked (gate, queue, rank, place, seq)
    where gate is not null;

-- Numbers of limits, and what is in force. One that bounds nothing was only named.
create table backlane.limits (
    id int generated always as identity primary key,
    name text not null unique,
    declared bytea,                         -- JSON
    tuned bytea,                            -- JSON
    concurrency bigint,                     -- null: any number
    interval_us bigint,                     -- of the rate; null: there is none
    whole_us bigint,                        -- an empty bucket is full after so long
    per_group boolean not null default false
) with (fillfactor = 50);

-- Buckets that are not full, by gate: a sweep forgets the others.
create table backlane.bucket (
    gate bigint primary key,
    spent_us bigint not null
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000);
create index bucket_spent on backlane.bucket (spent_us);

-- Who holds a use: jobs that run under it, those that have their turn, and what was acquired
-- outside of jobs, until its time is over (by the clock of leases).
create table backlane.holding (
    gate bigint not null,
    seq bigint,                             -- of a job
    until_ms bigint,                        -- of what was acquired
    limit_no int not null,
    holder bytea                            -- of what was acquired
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1,
    vacuum_truncate = off);
create unique index holding_gate on backlane.holding (gate, seq);
create index holding_seq on backlane.holding (seq) where seq is not null;
create unique index holding_holder on backlane.holding (gate, holder) where holder is not null;
create index holding_until on backlane.holding (until_ms) where until_ms is not null;

-- Ready jobs under limits (not turns), by use: kept by triggers of `ready`.
create table backlane.ready_use (
    gate bigint not null,
    seq bigint not null,
    queue int not null,
    primary key (gate, queue, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1,
    vacuum_truncate = off);

-- Gates that may have room for jobs of a queue that wait for it (queue 0: of any), from a
-- time on. Rows are only added, by whoever frees room and by whoever begins to wait; so
-- nobody waits for anybody, and whichever of the two commits last is seen.
create sequence backlane.opening_seq;
create table backlane.opening (
    at_ms bigint not null,
    since_ms bigint not null default 0,     -- when that was said: later than now, it is void
    gate bigint not null,
    id bigint not null default nextval('backlane.opening_seq'),
    queue int not null,
    limit_no int not null,
    primary key (queue, at_ms, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1,
    vacuum_truncate = off);
create index opening_since on backlane.opening (queue, since_ms) where since_ms > 0;

-- A job that waits from now on: `place` is kept, null asks for one.
create type backlane.waiter as (
    seq bigint,
    token bigint,
    parked_ms bigint,
    attempt int,
    revision int,                           -- as it is to be
    crashes int,
    due_ms bigint,
    place bigint,
    waits_for int                           -- jobs that have not ended
);

create function backlane.gate(limit_no int, part text) returns bigint
language sql immutable parallel safe
return ('x' || encode(
    substr(sha256(convert_to(limit_no || ':' || coalesce(part, ''), 'UTF8')), 1, 8), 'hex'
))::bit(64)::bigint;

-- What a bucket lacks that is full again at `spent_us`, as the model says.
create function backlane.missing_us(spent_us bigint, whole_us bigint, now_us bigint)
returns bigint
language sql immutable parallel safe
return case
    when spent_us - now_us > whole_us + 1000000 then 0
    else least(greatest(0, spent_us - now_us), whole_us)
end;

-- How many more may begin under a gate; null: any number. `running` are those that run under
-- it without being counted as holding it.
create function backlane.room_of(
    of_limit int,
    of_gate bigint,
    wall_ms bigint,
    boot_ms bigint,
    running bigint default 0
)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    it record;
    held bigint;
    most bigint;
    missing_us bigint;
begin
    if of_limit < 0 then
        return case
            when exists (select 1 from backlane.holding where gate = of_gate) then 0
            else 1
        end;
    end if;
    select concurrency, interval_us, whole_us into it
    from backlane.limits
    where id = of_limit;
    if it.concurrency is not null then
        select count(*) into held
        from (
            select 1
            from backlane.holding
            where gate = of_gate
            and (until_ms is null or until_ms > boot_ms)
            limit it.concurrency
        ) as those;
        most := greatest(0, it.concurrency - held - running);
    end if;
    if it.interval_us is not null then
        select backlane.missing_us(spent_us, it.whole_us, wall_ms * 1000) into missing_us
        from backlane.bucket
        where gate = of_gate;
        most := least(most, (it.whole_us - coalesce(missing_us, 0)) / it.interval_us);
    end if;
    return most;
end
$$;

-- How long until the next token of a gate; 0: there is one, or none is needed.
create function backlane.token_in_ms(of_limit int, of_gate bigint, wall_ms bigint)
returns bigint
language sql stable
set enable_seqscan = off
as $$
    select coalesce((
        select greatest(
            0,
            case
                when backlane.missing_us(spent_us, whole_us, wall_ms * 1000) = 0 then 0
                else spent_us - wall_ms * 1000
            end + interval_us - whole_us + 999
        ) / 1000
        from backlane.limits
        join backlane.bucket on bucket.gate = of_gate
        where limits.id = of_limit
        and interval_us is not null
    ), 0)
$$;

-- How long until there is one more token than there are; null: never, or no rate.
create function backlane.another_token_ms(of_limit int, of_gate bigint, wall_ms bigint)
returns bigint
language sql stable
set enable_seqscan = off
as $$
    select (missing - missing / interval_us * interval_us
        + case when missing % interval_us = 0 then interval_us else 0 end + 999) / 1000
    from (
        select interval_us, backlane.missing_us(spent_us, whole_us, wall_ms * 1000) as missing
        from backlane.limits
        join backlane.bucket on bucket.gate = of_gate
        where limits.id = of_limit
        and interval_us is not null
    ) as bucket
    where missing > 0
$$;

-- Locks that nobody waits for: who does not get one comes again. Who gives leases, or
-- acquires, holds that of the limit, to the commit; who takes a turn, that of its gate.
create function backlane.try_limit(of_limit int) returns boolean
language sql volatile
return pg_try_advisory_xact_lock(
    ('backlane.limits'::regclass::oid::bigint << 32) | abs(of_limit)
);
create function backlane.try_gate(of_gate bigint) returns boolean
language sql volatile
return pg_try_advisory_xact_lock(of_gate # 'backlane.limits'::regclass::oid::bigint);

-- Which of these jobs, in this order, have to wait for a use, and for which: the first of
-- which as many are ready as there is room, or for which one waits that goes before. Turns
-- that are free are taken, where they may be.
create function backlane.held_back(
    wall_ms bigint,
    boot_ms bigint,
    seqs bigint[],
    their_places bigint[],
    raised smallint[],                      -- the ranks that ageing gave them, where it did
    woken_at bigint,                        -- the gate that lets them in; null: none
    may_hold boolean,
    out held bigint[],
    out gates bigint[],
    out limits int[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    one record;
    first record;
    known text[] := '{}';                   -- a gate in a queue each
    rooms bigint[] := '{}';
    ready bigint[] := '{}';
    holders bigint[] := '{}';               -- of turns
    ranks smallint[] := '{}';               -- of the first that waits: these three
    places bigint[] := '{}';
    firsts bigint[] := '{}';
    spots int[];
    at int;
    is_turn boolean;
    their_rank smallint;
    full_at int;
begin
    for one in
        select job.seq, job.queue, job.gates, job.limits, given.place,
            coalesce(given.rank, 9 - job.priority)::smallint as rank
        from unnest(seqs, their_places, raised) with ordinality as given (seq, place, rank, nth)
        join backlane.job on job.seq = given.seq
        where job.gates is not null
        order by nth
    loop
        spots := '{}';
        full_at := null;
        for i in 1 .. cardinality(one.gates) loop
            is_turn := one.limits[i] < 0;
            their_rank := case when is_turn then 0 else one.rank end;
            at := array_position(known, one.gates[i] || '/' || one.queue);
            if at is null then
                known := known || (one.gates[i] || '/' || one.queue);
                at := cardinality(known);
                if is_turn then
                    holders[at] := (
                        select holding.seq from backlane.holding where gate = one.gates[i] limit 1
                    );
                    ready[at] := 0;
                    rooms[at] := null;
                else
                    holders[at] := null;
                    rooms[at] := backlane.room_of(
                        one.limits[i], one.gates[i], wall_ms, boot_ms
                    );
                    ready[at] := (
                        select count(*)
                        from (
                            select 1
                            from backlane.ready_use
                            where gate = one.gates[i]
                            and queue = one.queue
                            limit coalesce(rooms[at], 0)
                        ) as those
                    );
                end if;
                select blocked.rank, blocked.place, blocked.seq into first
                from backlane.blocked
                where gate = one.gates[i]
                and queue = one.queue
                order by blocked.rank, blocked.place, blocked.seq
                limit 1;
                ranks[at] := first.rank;
                places[at] := first.place;
                firsts[at] := first.seq;
            end if;
            spots := spots || at;
            continue when is_turn and holders[at] = one.seq;
            if holders[at] is not null or one.gates[i] is distinct from woken_at and (
                ready[at] >= rooms[at]
                or (ranks[at], places[at], firsts[at]) < (their_rank, one.place, one.seq)
            ) then
                full_at := i;
                exit;
            end if;
            if is_turn then
                if not may_hold or not backlane.try_gate(one.gates[i])
                    or exists (select 1 from backlane.holding where gate = one.gates[i])
                then
                    full_at := i;
                    exit;
                end if;
                insert into backlane.holding (gate, seq, limit_no)
                values (one.gates[i], one.seq, one.limits[i]);
                holders[at] := one.seq;
            end if;
        end loop;
        if full_at is null then
            foreach at in array spots loop
                ready[at] := ready[at] + 1;
            end loop;
        else
            at := spots[full_at];
            if firsts[at] is null
                or (their_rank, one.place, one.seq) < (ranks[at], places[at], firsts[at])
            then
                ranks[at] := their_rank;
                places[at] := one.place;
                firsts[at] := one.seq;
            end if;
            held := held || one.seq;
            gates := gates || one.gates[full_at];
            limits := limits || one.limits[full_at];
        end if;
    end loop;
end
$$;

-- The one way for jobs to wait: for others, for their time, for a limit or their turn, or
-- ready. Their rows of `job` are there, and none of a state. All that they are now is
-- counted here; what they were before is the caller's to count. A caller's transaction
-- may stay open for long, and takes no turn that others would wait for.
create function backlane.get_in_line(
    wall_ms bigint,
    boot_ms bigint,
    given backlane.waiter[],
    may_hold boolean default true,
    woken_at bigint default null,           -- the gate that lets them in; null: none
    raised smallint[] default null,         -- the ranks that ageing gave them, where it did
    out come int,                           -- that are ready now
    out rung int[]                          -- and their queues
)
language plpgsql
security definer                            -- producers call it, and touch nothing of this else
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    back record;
    fair int[];
    lines bigint[];
    virtual_lines bigint[];                 -- whose place is of virtual time
    virtual_places bigint[];
    places bigint[];
    ranks smallint[];
begin
    select array_agg(id) into fair from backlane.queue where is_fair;
    if fair is not null then
        select it.seqs, it.places into virtual_lines, virtual_places
        from backlane.virtual_places(get_in_line.wall_ms, array(
            select job.seq
            from unnest(given) with ordinality as it
            join backlane.job on job.seq = it.seq
            where it.waits_for = 0
            and coalesce(it.due_ms, get_in_line.wall_ms) <= get_in_line.wall_ms
            and job.queue = any (fair)
            and (it.place is null or job.due_ms is null)
            order by it.ordinality
        ), get_in_line.may_hold) as it;
    end if;
    select array_agg(it.seq order by it.ordinality),
        array_agg(coalesce(virtual.place_ms, it.place, it.due_ms) order by it.ordinality),
        array_agg(get_in_line.raised[it.ordinality] order by it.ordinality)
    into lines, places, ranks
    from unnest(given) with ordinality as it
    left join unnest(virtual_lines, virtual_places) as virtual (seq, place_ms)
    on virtual.seq = it.seq
    where it.waits_for = 0
    and coalesce(it.due_ms, get_in_line.wall_ms) <= get_in_line.wall_ms;
    select * into back
    from backlane.held_back(
        get_in_line.wall_ms, get_in_line.boot_ms, lines, places, ranks, get_in_line.woken_at,
        get_in_line.may_hold
    );
    with line as materialized (
        select it.*, job.queue, job.lane, job.size, job.priority, job.place as old_place,
            job.due_ms as old_due_ms, job.gates is not null as is_gated, virtual.place_ms,
            held.gate, held.limit_no, get_in_line.raised[it.ordinality] as raised,
            case
                when it.waits_for > 0 then 1
                when it.due_ms > get_in_line.wall_ms then 2
                when held.gate is not null then 3
                else 4
            end as stage
        from unnest(given) with ordinality as it
        join backlane.job on job.seq = it.seq
        left join unnest(virtual_lines, virtual_places) as virtual (seq, place_ms)
        on virtual.seq = it.seq
        left join unnest(back.held, back.gates, back.limits) as held (seq, gate, limit_no)
        on held.seq = it.seq
    ),
    placed as materialized (
        select line.*,
            case
                when stage = 2 then due_ms
                else coalesce(place_ms, place, due_ms)
            end as place_then,
            case
                when stage = 2 or (place is null and place_ms is null) then null
                when place_ms is not null then coalesce(due_ms, place)
                else old_due_ms
            end as due_then
        from line
    ),
    blocked as (
        insert into backlane.blocked (place, seq, token, gate, parked_ms, queue, lane, attempt,
            revision, crashes, size, limit_no, waits_for, rank, priority, raised)
        select place_then, seq, token, gate, parked_ms, queue, lane, attempt, revision, crashes,
            size, limit_no, waits_for,
            case when limit_no < 0 then 0 else coalesce(raised, 9 - priority) end, priority,
            raised
        from placed
        where stage in (1, 3)
    ),
    scheduled as (
        insert into backlane.scheduled (due_ms, seq, token, parked_ms, queue, lane, attempt,
            revision, crashes, size, priority, is_gated)
        select place_then, seq, token, parked_ms, queue, lane, attempt, revision, crashes, size,
            priority, nullif(is_gated, false)
        from placed
        where stage = 2
    ),
    ready as (
        insert into backlane.ready (place, seq, token, parked_ms, queue, lane, attempt, revision,
            crashes, size, rank, priority, is_gated)
        select place_then, seq, token, parked_ms, queue, lane, attempt, revision, crashes, size,
            coalesce(raised, 9 - priority), priority, nullif(is_gated, false)
        from placed
        where stage = 4
    ),
    moved as (
        update backlane.job
        set place = place_then,
            due_ms = due_then
        from placed
        where job.seq = placed.seq
        and (place_then, due_then) is distinct from (old_place, old_due_ms)
    ),
    counted as (
        insert into backlane.tally (queue, priority, blocked, scheduled, ready)
        select queue, priority, nullif(count(*) filter (where stage in (1, 3)), 0),
            nullif(count(*) filter (where stage = 2), 0),
            nullif(count(*) filter (where stage = 4), 0)
        from placed
        group by queue, priority
    )
    select count(*) filter (where stage = 4), array_agg(distinct queue) filter (where stage = 4)
    into come, rung
    from placed;
end
$$;

revoke execute on function backlane.get_in_line from public;

-- -- who uses what: rows that follow those of other tables --

create function backlane.note_ready() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'INSERT' then
        insert into backlane.ready_use (gate, seq, queue)
        select used.gate, new.seq, new.queue
        from backlane.job
        cross join unnest(gates, limits) as used (gate, limit_no)
        where job.seq = new.seq
        and used.limit_no > 0
        on conflict do nothing;
    else
        delete from backlane.ready_use
        where gate = any ((select gates from backlane.job where job.seq = old.seq)::bigint[])
        and ready_use.queue = old.queue
        and ready_use.seq = old.seq;
    end if;
    return null;
end
$$;
create trigger ready_comes after insert on backlane.ready
for each row when (new.is_gated) execute function backlane.note_ready();
create trigger ready_goes after delete on backlane.ready
for each row when (old.is_gated) execute function backlane.note_ready();

-- Who begins to wait may have missed that room was freed just then.
create function backlane.note_blocked() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into backlane.opening (at_ms, gate, queue, limit_no)
    select distinct 0, gate, queue, limit_no
    from come
    where gate is not null;
    return null;
end
$$;
create trigger blocked_comes after insert on backlane.blocked
referencing new table as come
for each statement execute function backlane.note_blocked();

create function backlane.note_freed() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into backlane.opening (at_ms, gate, queue, limit_no)
    select distinct 0, gate, 0, limit_no
    from gone;
    return null;
end
$$;
create trigger holding_goes after delete on backlane.holding
referencing old table as gone
for each statement execute function backlane.note_freed();

-- A queue that is made after its limit is under it from the beginning.
create function backlane.note_queue() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    new.limit_no := (
        select id
        from backlane.limits
        where limits.name = 'queue:' || new.name
        and not per_group
        and coalesce(tuned, declared) is not null
    );
    return new;
end
$$;
create trigger queue_comes before insert on backlane.queue
for each row execute function backlane.note_queue();

-- -- room that is freed --

-- The queues with jobs that wait for these gates: one step into `blocked_in_line` for each.
create function backlane.blocked_queues(of_gates bigint[]) returns table (gate bigint, queue int)
language sql stable
set enable_seqscan = off
as $$
    with recursive spot as (
        select given.gate, (
            select blocked.queue
            from backlane.blocked
            where blocked.gate = given.gate
            order by blocked.queue
            limit 1
        ) as queue
        from (select distinct unnest(of_gates) as gate) as given
        union all
        select spot.gate, (
            select blocked.queue
            from backlane.blocked
            where blocked.gate = spot.gate
            and blocked.queue > spot.queue
            order by blocked.queue
            limit 1
        )
        from spot
        where spot.queue is not null
    )
    select spot.gate, spot.queue
    from spot
    where spot.queue is not null
$$;

-- Attempts have ended: what jobs held but for their turns is free, and groups of fair queues
-- are charged what they ran. The queues to ring are returned.
create function backlane.leave_gates(
    now_ms bigint,
    seqs bigint[],
    ids bytea[],                            -- of these and of others; and what they ran
    ran bigint[],
    outcomes smallint[] default null
)
returns int[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    queues int[];
    groups text[];
    times bigint[];
begin
    delete from backlane.holding
    where seq = any (seqs)
    and limit_no > 0;
    if exists (select 1 from backlane.queue where is_fair) then
        select array_agg(job.queue order by nth), array_agg(group_name order by nth),
            array_agg(ran_ms order by nth)
        into queues, groups, times
        from unnest(ids, ran, outcomes) with ordinality as given (id, ran_ms, outcome, nth)
        join backlane.job on job.id = given.id
        join backlane.queue on queue.id = job.queue
        where job.seq = any (seqs)
        and queue.is_fair
        and (outcome is null or outcome not in (7, 8));
        if queues is not null then
            perform backlane.fair_ended(now_ms, queues, groups, times);
        end if;
    end if;
    return array(
        select waiting.queue
        from backlane.blocked_queues(array(
            select unnest(gates)
            from backlane.job
            where seq = any (seqs)
        )) as waiting
        union
        select queue.id
        from backlane.job
        join backlane.queue on queue.id = job.queue
        where job.seq = any (seqs)
        and queue.limit_no is not null
    );
end
$$;

-- Jobs left ready otherwise than by a claim: who is blocked may be ready in their place.
create function backlane.open_gates(seqs bigint[]) returns void
language sql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
    insert into backlane.opening (at_ms, gate, queue, limit_no)
    select distinct 0, used.gate, 0, used.limit_no
    from unnest(seqs) as given (seq)
    join backlane.job on job.seq = given.seq
    cross join unnest(job.gates, job.limits) as used (gate, limit_no)
$$;

-- What is over is forgotten: places outside of jobs, full buckets, groups that are behind the
-- clock of their queue for long. And some gates at a time are opened again, should any have
-- been missed.
create function backlane.tidy_limits(wall_ms bigint, boot_ms bigint, most int) returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_variable
declare
    one record;
    read record;
    tidied int;
    at_gate bigint;
    next_gates bigint[];
begin
    delete from backlane.holding
    where ctid = any (array(
        select ctid
        from backlane.holding
        where until_ms <= boot_ms
        limit most
        for update skip locked
    ));
    delete from backlane.bucket
    where ctid = any (array(
        select ctid
        from backlane.bucket
        where spent_us <= wall_ms * 1000
        limit most
        for update skip locked
    ));
    get diagnostics tidied = row_count;
    for one in
        select line, min(queue) as queue
        from (select line, queue from backlane.fair_mark order by line, id limit most) as marks
        group by line
    loop
        select * into read from backlane.fair_read(one.line, one.queue, true);
        if read.is_held then
            update backlane.fair_line
            set finish_ms = (read.state).finish_ms,
                latest_ms = (read.state).latest_ms,
                mean_us = (read.state).mean_us,
                at_ms = wall_ms - wall_ms % 3600000
            where line = one.line;
        end if;
    end loop;
    delete from backlane.fair_line
    where ctid = any (array(
        select fair_line.ctid
        from backlane.fair_line
        where at_ms < wall_ms - 7200000
        and finish_ms <= (
            select place_ms
            from backlane.fair_clock
            where fair_clock.queue = fair_line.queue
            order by place_ms desc
            limit 1
        )
        order by at_ms
        limit most
        for update skip locked
    ));
    select number into at_gate
    from backlane.meta
    where name = 'opened_gate'
    for update skip locked;
    if not found then
        return tidied;
    end if;
    with recursive spot as (
        select (
            select gate
            from backlane.blocked
            where gate > at_gate
            order by gate
            limit 1
        ) as gate, 1 as nth
        union all
        select (
            select gate
            from backlane.blocked
            where blocked.gate > spot.gate
            order by blocked.gate
            limit 1
        ), nth + 1
        from spot
        where spot.gate is not null
        and nth < 20
    )
    select array_agg(gate) into next_gates from spot where gate is not null;
    insert into backlane.opening (at_ms, gate, queue, limit_no)
    select 0, gate, 0, (
        select limit_no
        from backlane.blocked
        where blocked.gate = given.gate
        limit 1
    )
    from unnest(next_gates) as given (gate);
    update backlane.meta
    set number = coalesce(next_gates[20], -9223372036854775808)
    where name = 'opened_gate';
    return tidied;
end
$$;

-- What has waited long in fair queues is raised, as `age` does it elsewhere: of each line of
-- them the first that are in it are looked at.
create function backlane.age_fairly(now_ms bigint, most int) returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    aged int;
begin
    if not exists (select 1 from backlane.fair_clock) then
        return 0;
    end if;
    with spot as materialized (
        select old.at, job.due_ms
        from backlane.queue
        cross join (
            select 0 as lane
            union all
            select 1
            union all
            select 2 * resource.id + half
            from backlane.resource
            cross join generate_series(0, 1) as half
        ) as kind
        cross join generate_series(1, 9) as standing
        cross join lateral (
            select ready.ctid as at, ready.seq, ready.priority, ready.place
            from backlane.ready
            where ready.queue = queue.id
            and ready.lane = kind.lane
            and ready.rank = standing
            order by ready.place, ready.seq
            limit most
        ) as old
        join backlane.job on job.seq = old.seq
        where exists (                      -- it is, or was, a fair one
            select 1
            from backlane.fair_clock
            where fair_clock.queue = queue.id
        )
        and 9 - old.priority - (age_fairly.now_ms - coalesce(job.due_ms, old.place)) / 300000
            < standing
        limit most
    ),
    held as materialized (
        select ready.ctid as at
        from backlane.ready
        where ready.ctid = any (array(select spot.at from spot))
        for update skip locked
    ),
    gone as materialized (
        delete from backlane.ready
        using held
        join spot on spot.at = held.at
        where ready.ctid = held.at
        returning ready.*, coalesce(spot.due_ms, ready.place) as since_ms
    ),
    come as (
        insert into backlane.ready (place, seq, token, parked_ms, queue, lane, attempt, revision,
            crashes, size, rank, priority, is_gated)
        select place, seq, token, parked_ms, queue, lane, attempt, revision, crashes, size,
            greatest(0, 9 - priority - (age_fairly.now_ms - since_ms) / 300000), priority,
            is_gated
        from gone
    )
    select count(*) into aged from gone;
    return aged;
end
$$;

-- Blocked jobs of these queues become ready as there is room. `is_busy` says that another
-- claim was at a limit.
create function backlane.wake(
    queues int[],
    wall_ms bigint,
    boot_ms bigint,
    most int,
    out moved int,
    out is_busy boolean,
    out woken int[]                         -- queues
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    one record;
    come record;
    free bigint;
    room bigint;
    got backlane.waiter[];
    raised smallint[];
    wait_ms bigint;
begin
    moved := 0;
    is_busy := false;
    woken := '{}';
    delete from backlane.holding
    where ctid = any (array(
        select ctid
        from backlane.holding
        where until_ms <= boot_ms
        order by until_ms
        limit 1000
        for update skip locked
    ));
    with freed as (
        delete from backlane.opening
        where ctid = any (array(
            select ctid
            from backlane.opening
            where queue = 0
            order by at_ms, id
            limit 1000
            for update skip locked
        ))
        returning gate, limit_no
    ),
    known as (
        select distinct gate, limit_no from freed
    )
    insert into backlane.opening (at_ms, gate, queue, limit_no)
    select 0, known.gate, waiting.queue, known.limit_no
    from backlane.blocked_queues(array(select gate from known)) as waiting
    join known on known.gate = waiting.gate;
    for one in
        with taken as (
            delete from backlane.opening
            where ctid = any (array(
                select of_queue.at
                from unnest(queues) as wanted (queue)
                cross join lateral (
                    select ctid as at
                    from backlane.opening
                    where opening.queue = wanted.queue
                    and at_ms <= wall_ms
                    order by at_ms, id
                    limit 1000
                    for update skip locked
                ) as of_queue
                limit 1000
            ) || array(
                -- The clock was set back.
                select of_queue.at
                from unnest(queues) as wanted (queue)
                cross join lateral (
                    select ctid as at
                    from backlane.opening
                    where opening.queue = wanted.queue
                    and since_ms > 0
                    and since_ms > wall_ms + 1000
                    limit 1000
                    for update skip locked
                ) as of_queue
                limit 1000
            ))
            returning gate, limit_no, queue
        )
        select gate, limit_no, array_agg(distinct queue) as of_queues
        from taken
        join backlane.limits on limits.id = abs(limit_no)
        group by gate, limit_no, limits.name
        order by limits.name collate "C", limit_no < 0, gate
    loop
        if moved >= most or not backlane.try_limit(one.limit_no) then
            is_busy := is_busy or moved < most;
            insert into backlane.opening (at_ms, gate, queue, limit_no)
            select 0, one.gate, of_queue, one.limit_no
            from unnest(one.of_queues) as of_queue;
            continue;
        end if;
        free := 1;
        while free > 0 and moved < most loop
            free := backlane.room_of(one.limit_no, one.gate, wall_ms, boot_ms);
            if free is not null and one.limit_no > 0 then
                free := free - (
                    select count(*)
                    from (
                        select 1
                        from backlane.ready_use
                        where gate = one.gate
                        and queue = any (queues)
                        limit free
                    ) as those
                );
            end if;
            free := least(free, most - moved);
            exit when free <= 0;
            with gone as (
                delete from backlane.blocked
                where ctid = any (array(
                    select spot.at
                    from unnest(queues) as wanted (queue)
                    cross join lateral (
                        select ctid as at, rank, place, seq
                        from backlane.blocked
                        where blocked.gate = one.gate
                        and blocked.queue = wanted.queue
                        order by rank, place, seq
                        limit free
                        for update skip locked
                    ) as spot
                    order by spot.rank, spot.place, spot.seq
                    limit free
                ))
                returning *
            ),
            counted as (
                insert into backlane.tally (queue, priority, blocked)
                select queue, priority, -count(*)
                from gone
                group by queue, priority
            )
            select array_agg(
                (seq, token, parked_ms, attempt, revision + 1, crashes, null, place, 0)
                    ::backlane.waiter
                order by rank, place, seq
            ),
            array_agg(gone.raised order by rank, place, seq)
            into got, raised
            from gone;
            exit when got is null;
            moved := moved + cardinality(got);
            select * into come
            from backlane.get_in_line(wall_ms, boot_ms, got, true, one.gate, raised);
            woken := woken || come.rung;
        end loop;
        -- Full by its number: who gives up what he holds opens it. By its rate: in a while. And
        -- a claim for fewer queues may find room that is not there beside what is ready in
        -- the others.
        wait_ms := case
            when one.limit_no > 0
            then coalesce(
                nullif(backlane.token_in_ms(one.limit_no, one.gate, wall_ms), 0),
                -- Those that are there are for who is ready: one more is for who waits.
                backlane.another_token_ms(one.limit_no, one.gate, wall_ms)
            )
        end;
        room := backlane.room_of(one.limit_no, one.gate, wall_ms, boot_ms);
        insert into backlane.opening (at_ms, since_ms, gate, queue, limit_no)
        select case when is_open then 0 else wall_ms + wait_ms end,
            case when is_open then 0 else wall_ms end, one.gate, waiting.queue, one.limit_no
        from backlane.blocked_queues(array[one.gate]) as waiting
        cross join lateral (
            select room is null or room > (
                select count(*)
                from (
                    select 1
                    from backlane.ready_use
                    where ready_use.gate = one.gate
                    and ready_use.queue = waiting.queue
                    limit room
                ) as those
            ) as is_open
        ) as judged
        where waiting.queue = any (queues)
        and (is_open or wait_ms is not null);
        got := null;
    end loop;
end
$$;

-- Until the next token that jobs of these queues wait for.
create function backlane.next_token_ms(queues int[], wall_ms bigint) returns bigint
language sql volatile
set enable_seqscan = off
as $$
    select min(wait_ms)
    from (
        select first.at_ms - wall_ms as wait_ms
        from unnest(queues) as wanted (queue)
        cross join lateral (
            select at_ms
            from backlane.opening
            where opening.queue = wanted.queue
            and at_ms > wall_ms
            order by at_ms
            limit 1
        ) as first
        union all
        -- Of a queue whose own limit is full, where nothing is woken.
        select nullif(backlane.token_in_ms(limit_no, gate, wall_ms), 0)
        from (
            select distinct first.limit_no, first.gate
            from unnest(queues) as wanted (queue)
            cross join lateral (
                select limit_no, gate
                from backlane.opening
                where opening.queue = wanted.queue
                and at_ms <= wall_ms
                and limit_no > 0
                limit 100
            ) as first
        ) as unseen
        union all
        select nullif(
            backlane.token_in_ms(limit_no, backlane.gate(limit_no, ''), wall_ms), 0
        )
        from backlane.queue
        where queue.id = any (queues)
        and limit_no is not null
        -- One look each. As `exists` it may be planned as a list of all that are ready.
        and coalesce(
            (select true from backlane.ready where ready.queue = queue.id limit 1),
            (select true from backlane.opening where opening.queue = queue.id limit 1)
        )
    ) as waits
$$;

create function backlane.queues_of(jobs bytea[]) returns text[]
language sql stable
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
    select coalesce(array_agg(distinct queue.name), '{}')
    from unnest(jobs) as given (id)
    join backlane.job on job.id = given.id
    join backlane.queue on queue.id = job.queue
$$;

-- What the own limits of queues allow: `shut` are those with no room, or another claim at it.
create function backlane.own_rooms(
    queues int[],
    wall_ms bigint,
    boot_ms bigint,
    out shut int[],
    out limited int[],
    out rooms bigint[],
    out is_busy boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    one record;
    room bigint;
begin
    shut := '{}';
    limited := '{}';
    rooms := '{}';
    is_busy := false;
    for one in
        select id, limit_no
        from backlane.queue
        where id = any (queues)
        and limit_no is not null
        order by id
    loop
        if not backlane.try_limit(one.limit_no) then
            is_busy := true;
            shut := shut || one.id;
            continue;
        end if;
        room := backlane.room_of(
            one.limit_no, backlane.gate(one.limit_no, ''), wall_ms, boot_ms,
            (select count(*) from backlane.lease where lease.queue = one.id)
        );
        if room <= 0 then
            shut := shut || one.id;
        elsif room is not null then
            limited := limited || one.id;
            rooms := rooms || room;
        end if;
    end loop;
end
$$;

-- Which of these ready jobs may be leased, the limits of what they use being locked: those
-- for which there is no room become blocked, and those whose limit another claim is at are
-- left where they are, as are those of queues whose own limits (`limited`, with room for
-- so many) are full then.
create function backlane.admit(
    spots tid[],
    wall_ms bigint,
    boot_ms bigint,
    most int,
    may_give int[],
    limited int[],
    caps bigint[],
    out admitted tid[],
    out moved int,
    out is_busy boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    one record;
    known bigint[] := '{}';
    rooms bigint[] := '{}';
    at int;
    cap int;
    full_at int;
    is_left boolean;
    kept tid[] := '{}';                     -- where they are
    gone tid[] := '{}';
    gone_seqs bigint[] := '{}';
    gates bigint[] := '{}';
    limits int[] := '{}';
begin
    is_busy := false;
    for one in
        select ready.ctid as spot, ready.seq, ready.queue, ready.is_gated, job.gates, job.limits,
            job.deadline_ms
        from backlane.ready
        join backlane.job on job.seq = ready.seq
        where ready.ctid = any (spots)
        and (ready.is_gated or limited <> '{}' or ready.queue <> all (may_give))
        order by ready.rank, ready.place, ready.seq
    loop
        is_left := false;
        full_at := null;
        cap := array_position(limited, one.queue);
        if caps[cap] <= 0 or one.queue <> all (may_give) then
            kept := kept || one.spot;
            continue;
        end if;
        continue when one.deadline_ms <= wall_ms;
        if one.gates is null then
            if cap is not null then
                caps[cap] := caps[cap] - 1;
            end if;
            continue;
        end if;
        for i in 1 .. cardinality(one.gates) loop
            if not backlane.try_limit(one.limits[i]) then
                is_left := true;
                is_busy := true;
            end if;
        end loop;
        if not is_left then
            for i in 1 .. cardinality(one.gates) loop
                if one.limits[i] < 0 then
                    continue when exists (
                        select 1
                        from backlane.holding
                        where gate = one.gates[i]
                        and seq = one.seq
                    );
                    if not backlane.try_gate(one.gates[i])
                        or exists (select 1 from backlane.holding where gate = one.gates[i])
                    then
                        full_at := i;
                        exit;
                    end if;
                    insert into backlane.holding (gate, seq, limit_no)
                    values (one.gates[i], one.seq, one.limits[i]);
                    continue;
                end if;
                at := array_position(known, one.gates[i]);
                if at is null then
                    known := known || one.gates[i];
                    at := cardinality(known);
                    rooms[at] := backlane.room_of(one.limits[i], one.gates[i], wall_ms, boot_ms);
                end if;
                if rooms[at] <= 0 then
                    full_at := i;
                    exit;
                end if;
            end loop;
        end if;
        if full_at is not null and cardinality(gone) < most then
            gone := gone || one.spot;
            gone_seqs := gone_seqs || one.seq;
            gates := gates || one.gates[full_at];
            limits := limits || one.limits[full_at];
        elsif is_left or full_at is not null then
            kept := kept || one.spot;
        else
            if cap is not null then
                caps[cap] := caps[cap] - 1;
            end if;
            for i in 1 .. cardinality(one.gates) loop
                at := array_position(known, one.gates[i]);
                continue when at is null;   -- a turn
                rooms[at] := rooms[at] - 1;
            end loop;
        end if;
    end loop;
    moved := cardinality(gone);
    if moved > 0 then
        with left_line as (
            delete from backlane.ready
            using unnest(gone, gates, limits) as given (spot, gate, limit_no)
            where ready.ctid = given.spot
            returning ready.*, given.gate, given.limit_no
        ),
        counted as (
            insert into backlane.tally (queue, priority, ready, blocked)
            select queue, priority, -count(*), count(*)
            from left_line
            group by queue, priority
        )
        insert into backlane.blocked (place, seq, token, gate, parked_ms, queue, lane, attempt,
            revision, crashes, size, limit_no, rank, priority, raised)
        select place, seq, token, gate, parked_ms, queue, lane, attempt, revision + 1, crashes,
            size, limit_no, case when limit_no < 0 then 0 else rank end, priority,
            nullif(rank, 9 - priority)
        from left_line;
        -- Others may be ready in their place, for the sake of their other uses; and the next
        -- token that they wait for is told.
        perform backlane.open_gates(gone_seqs);
        insert into backlane.opening (at_ms, since_ms, gate, queue, limit_no)
        select distinct wall_ms + next.wait_ms, wall_ms, given.gate, waiting.queue, given.limit_no
        from unnest(gates, limits) as given (gate, limit_no)
        cross join lateral (
            select nullif(backlane.token_in_ms(given.limit_no, given.gate, wall_ms), 0) as wait_ms
        ) as next
        join backlane.blocked_queues(gates) as waiting on waiting.gate = given.gate
        where given.limit_no > 0
        and next.wait_ms is not null;
    end if;
    admitted := array(
        select spot
        from unnest(spots) with ordinality as given (spot, nth)
        where spot <> all (gone)
        and spot <> all (kept)
        order by nth
    );
end
$$;

-- Tokens of these gates are spent, a number of each; under the locks of their limits.
create function backlane.spend(of_limits int[], of_gates bigint[], numbers int[], wall_ms bigint)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
    insert into backlane.bucket as held (gate, spent_us)
    select given.gate, spend.wall_ms * 1000 + given.number * limits.interval_us
    from unnest(of_limits, of_gates, numbers) as given (limit_no, gate, number)
    join backlane.limits on limits.id = given.limit_no
    where limits.interval_us is not null
    on conflict (gate) do update
    set spent_us = excluded.spent_us + backlane.missing_us(
            held.spent_us,
            (
                select whole_us
                from unnest(of_limits, of_gates) as given (limit_no, gate)
                join backlane.limits on limits.id = given.limit_no
                where given.gate = held.gate
                limit 1
            ),
            spend.wall_ms * 1000
        );
    -- Who waits for a token is woken when there is one.
    insert into backlane.opening (at_ms, since_ms, gate, queue, limit_no)
    select case when next.wait_ms = 0 then 0 else spend.wall_ms + next.wait_ms end,
        case when next.wait_ms = 0 then 0 else spend.wall_ms end, waiting.gate, waiting.queue, given.limit_no
    from backlane.blocked_queues(of_gates) as waiting
    join unnest(of_limits, of_gates) as given (limit_no, gate) on given.gate = waiting.gate
    join backlane.limits on limits.id = given.limit_no
    cross join lateral (
        select backlane.token_in_ms(given.limit_no, given.gate, spend.wall_ms) as wait_ms
    ) as next
    where limits.interval_us is not null;
end
$$;

-- What leases hold that were given under limits (the term tells which).
create function backlane.hold(given_as bigint, wall_ms bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    limits int[];
    gates bigint[];
    numbers int[];
begin
    with used as materialized (
        select lease.seq, used.gate, used.limit_no
        from backlane.lease
        join backlane.job on job.seq = lease.seq
        cross join unnest(job.gates, job.limits) as used (gate, limit_no)
        where lease.term = given_as
        and lease.is_gated
        and used.limit_no > 0
    ),
    held as (
        insert into backlane.holding (gate, seq, limit_no)
        select gate, seq, limit_no
        from used
        on conflict do nothing
    ),
    all_used as (
        select gate, limit_no
        from used
        union all
        select backlane.gate(queue.limit_no, ''), queue.limit_no
        from backlane.lease
        join backlane.queue on queue.id = lease.queue
        where lease.term = given_as
        and queue.limit_no is not null
    )
    select array_agg(limit_no), array_agg(gate), array_agg(number)
    into limits, gates, numbers
    from (
        select limit_no, gate, count(*)::int as number
        from all_used
        group by limit_no, gate
    ) as sums;
    if limits is not null then
        perform backlane.spend(limits, gates, numbers, hold.wall_ms);
    end if;
end
$$;

-- A place under a limit outside of jobs: whether it was given, else how long to wait.
create function backlane.acquire(
    of_limit int,                           -- negative: a turn
    part text,
    of_holder bytea,
    lease_ms bigint,
    told_ms bigint,
    told_boot_ms bigint,
    out is_given boolean,
    out wait_ms bigint
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    wall bigint := coalesce(told_ms, backlane.now_ms());
    boot bigint := coalesce(told_boot_ms, wall);
    its_gate bigint := backlane.gate(of_limit, part);
    running bigint;
    most bigint;
begin
    perform pg_advisory_xact_lock(
        ('backlane.limits'::regclass::oid::bigint << 32) | abs(of_limit)
    );
    if of_limit < 0 then
        perform pg_advisory_xact_lock(its_gate # 'backlane.limits'::regclass::oid::bigint);
    end if;
    wait_ms := null;
    update backlane.holding
    set until_ms = boot + lease_ms
    where gate = its_gate
    and holder = of_holder
    and until_ms > boot;
    is_given := found;
    if is_given then
        return;
    end if;
    delete from backlane.holding
    where gate = its_gate
    and until_ms <= boot;
    select count(*) into running
    from backlane.lease
    join backlane.queue on queue.id = lease.queue
    where queue.limit_no = of_limit
    and part = '';
    most := backlane.room_of(of_limit, its_gate, wall, boot, running);
    is_given := most is null or most > 0;
    if is_given then
        insert into backlane.holding (gate, until_ms, limit_no, holder)
        values (its_gate, boot + lease_ms, of_limit, of_holder);
        perform backlane.spend(array[of_limit], array[its_gate], array[1], wall);
        return;
    end if;
    -- Is it a token alone that is missing?
    if of_limit > 0 then
        wait_ms := (
            select nullif(backlane.token_in_ms(of_limit, its_gate, wall), 0)
            from backlane.limits
            where id = of_limit
            and (
                concurrency is null
                or concurrency > running
                    + (select count(*) from backlane.holding where gate = its_gate)
            )
        );
    end if;
end
$$;

-- -- fair queues --

-- How far the groups of fair queues are in virtual time, by a digest of queue and group. A
-- row that another transaction is at is not waited for: what happens then is a row of
-- `fair_mark`, and comes to the line with the next one that has it.
create table backlane.fair_line (
    line bigint primary key,
    queue int not null,
    finish_ms bigint,                       -- F: null, it never got in line
    latest_ms bigint,                       -- the latest place it got
    mean_us bigint,                         -- of what its attempts ran
    at_ms bigint not null                   -- the hour of the last change
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000);
create index fair_line_at on backlane.fair_line (at_ms);
create sequence backlane.fair_seq;
create table backlane.fair_mark (
    line bigint not null,
    id bigint not null default nextval('backlane.fair_seq'),
    queue int not null,
    from_ms bigint,                         -- got in line: V then; null: an attempt ended
    ran_ms bigint,
    mean_us bigint,                         -- its queue's
    primary key (line, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- The greatest place that a claim took, of each queue: of several rows the greatest holds.
create table backlane.fair_clock (
    queue int not null,
    place_ms bigint not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
create index fair_clock_place on backlane.fair_clock (queue, place_ms);

create type backlane.fair_state as (finish_ms bigint, latest_ms bigint, mean_us bigint);

create function backlane.fair_name(of_queue int, of_group text) returns bigint
language sql immutable parallel safe
return backlane.gate(of_queue, case when of_group is null then 'none' else 'of ' || of_group end);

-- A line one event later.
create function backlane.fair_step(
    state backlane.fair_state,
    from_ms bigint,                         -- got in line; null: an attempt ended
    ran_ms bigint,
    queue_mean_us bigint
)
returns backlane.fair_state
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    mean_ms bigint := greatest(1, coalesce(state.mean_us, queue_mean_us, 100000) / 1000);
begin
    if from_ms is not null then
        state.finish_ms := greatest(from_ms, state.finish_ms);
        state.latest_ms := greatest(state.finish_ms, state.latest_ms);
        state.finish_ms := state.finish_ms + mean_ms;
    else
        state.finish_ms := state.finish_ms + greatest(1, ran_ms) - mean_ms;
        state.mean_us := coalesce((4 * state.mean_us + 1000 * ran_ms) / 5, 1000 * ran_ms);
    end if;
    return state;
end
$$;

-- How far a line is; with its row, if that is to be had at once, until the commit.
create function backlane.fair_read(
    of_line bigint,
    of_queue int,
    may_hold boolean,
    out state backlane.fair_state,
    out is_held boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    one record;
    read bigint[] := '{}';
begin
    is_held := false;
    for attempt in 1 .. 2 loop
        exit when not may_hold;
        select finish_ms, latest_ms, mean_us into one
        from backlane.fair_line
        where line = of_line
        for update skip locked;
        is_held := found;
        exit when is_held or exists (select 1 from backlane.fair_line where line = of_line)
            or not backlane.try_gate(of_line);
        insert into backlane.fair_line (line, queue, at_ms)
        values (of_line, of_queue, 0)
        on conflict do nothing;
    end loop;
    if not is_held then
        select finish_ms, latest_ms, mean_us into one
        from backlane.fair_line
        where line = of_line;
    end if;
    state := (one.finish_ms, one.latest_ms, one.mean_us)::backlane.fair_state;
    for one in
        select id, from_ms, ran_ms, mean_us
        from backlane.fair_mark
        where line = of_line
        order by id
    loop
        state := backlane.fair_step(state, one.from_ms, one.ran_ms, one.mean_us);
        read := read || one.id;
    end loop;
    if is_held and read <> '{}' then
        delete from backlane.fair_mark
        where line = of_line
        and id = any (read);
    end if;
end
$$;

-- The places of jobs that get in line in fair queues, in this order.
create function backlane.virtual_places(
    wall_ms bigint,
    of_jobs bigint[],
    may_hold boolean,
    out seqs bigint[],
    out places bigint[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    one record;
    found_line record;
    queues int[] := '{}';
    froms bigint[] := '{}';                 -- V of each
    means bigint[] := '{}';
    lines bigint[] := '{}';
    states backlane.fair_state[] := '{}';
    are_held boolean[] := '{}';
    this bigint;
    v bigint;
    q int;
    at int;
begin
    for one in
        select job.seq, job.queue, backlane.fair_name(job.queue, job.group_name) as line
        from unnest(of_jobs) with ordinality as given (seq, nth)
        join backlane.job on job.seq = given.seq
        order by nth
    loop
        q := array_position(queues, one.queue);
        if q is null then
            queues := queues || one.queue;
            q := cardinality(queues);
            v := (
                select place_ms
                from backlane.fair_clock
                where queue = one.queue
                order by place_ms desc
                limit 1
            );
            if v is null or not (
                exists (select 1 from backlane.ready where queue = one.queue)
                or exists (select 1 from backlane.lease where queue = one.queue)
            ) then
                v := greatest(v, wall_ms);
                perform backlane.set_fair_clock(one.queue, v);
            end if;
            froms[q] := v;
            select * into found_line
            from backlane.fair_read(backlane.gate(one.queue, 'all'), one.queue, false);
            means[q] := (found_line.state).mean_us;
        end if;
        at := array_position(lines, one.line);
        if at is null then
            lines := lines || one.line;
            at := cardinality(lines);
            select * into found_line from backlane.fair_read(one.line, one.queue, may_hold);
            states[at] := found_line.state;
            are_held[at] := found_line.is_held;
        end if;
        states[at] := backlane.fair_step(states[at], froms[q], null, means[q]);
        seqs := seqs || one.seq;
        places := places || (states[at]).latest_ms;
        if not are_held[at] then
            insert into backlane.fair_mark (line, queue, from_ms, mean_us)
            values (one.line, one.queue, froms[q], means[q]);
        end if;
    end loop;
    update backlane.fair_line
    set finish_ms = given.finish_ms,
        latest_ms = given.latest_ms,
        mean_us = given.mean_us,
        at_ms = wall_ms - wall_ms % 3600000
    from (
        select lines[i] as line, (states[i]).finish_ms, (states[i]).latest_ms, (states[i]).mean_us
        from generate_series(1, cardinality(lines)) as i
        where are_held[i]
    ) as given
    where fair_line.line = given.line;
end
$$;

create function backlane.set_fair_clock(of_queue int, new_ms bigint) returns void
language sql
set enable_seqscan = off
as $$
    delete from backlane.fair_clock
    where ctid = any (array(
        select ctid
        from backlane.fair_clock
        where queue = of_queue
        and place_ms <= new_ms
        for update skip locked
    ));
    insert into backlane.fair_clock (queue, place_ms)
    values (of_queue, new_ms);
$$;

-- What a claim took moves the clocks of fair queues.
create function backlane.move_fair_clocks(given_as bigint) returns void
language sql
set enable_seqscan = off
as $$
    select backlane.set_fair_clock(taken.queue, taken.place_ms)
    from (
        select lease.queue, max(lease.place) as place_ms
        from backlane.lease
        join backlane.queue on queue.id = lease.queue
        where lease.term = given_as
        and queue.is_fair
        group by lease.queue
    ) as taken
$$;

-- Attempts that ended in fair queues, by queue and group in their order.
create function backlane.fair_ended(
    wall_ms bigint,
    of_queues int[],
    of_groups text[],
    ran bigint[]
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    one record;
    found_line record;
    mean_us bigint;
    then_state backlane.fair_state;
    line bigint;
begin
    for one in
        select queue, of_group, ran_ms, backlane.gate(queue, 'all') as whole,
            backlane.fair_name(queue, of_group) as line
        from unnest(of_queues, of_groups, ran) with ordinality as given (queue, of_group, ran_ms, nth)
        order by nth
    loop
        mean_us := null;
        foreach line in array array[one.whole, one.line] loop
            select * into found_line from backlane.fair_read(line, one.queue, true);
            if found_line.is_held then
                then_state := backlane.fair_step(found_line.state, null, one.ran_ms, mean_us);
                update backlane.fair_line
                set finish_ms = then_state.finish_ms,
                    latest_ms = then_state.latest_ms,
                    mean_us = then_state.mean_us,
                    at_ms = wall_ms - wall_ms % 3600000
                where fair_line.line = line;
            else
                insert into backlane.fair_mark (line, queue, ran_ms, mean_us)
                values (line, one.queue, one.ran_ms, mean_us);
            end if;
            mean_us := (found_line.state).mean_us;
        end loop;
    end loop;
end
$$;
