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
    rank smallint not null,                 -- 9 - priority; for a turn 0
    priority smallint not null
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
    gate bigint not null,
    id bigint not null default nextval('backlane.opening_seq'),
    queue int not null,
    limit_no int not null,
    primary key (queue, at_ms, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1,
    vacuum_truncate = off);

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
        select least(greatest(0, spent_us - wall_ms * 1000), it.whole_us) into missing_us
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
        select greatest(0, least(greatest(0, spent_us - wall_ms * 1000), whole_us)
            + interval_us - whole_us + 999) / 1000
        from backlane.limits
        join backlane.bucket on bucket.gate = of_gate
        where limits.id = of_limit
        and interval_us is not null
    ), 0)
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
            (9 - job.priority)::smallint as rank
        from unnest(seqs, their_places) with ordinality as given (seq, place, nth)
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
            if (ranks[at], places[at], firsts[at]) < (their_rank, one.place, one.seq)
                or ready[at] >= rooms[at]
                or holders[at] is not null
            then
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
    out come int,                           -- that are ready now
    out rung int[]                          -- and their queues
)
language plpgsql
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
        array_agg(coalesce(virtual.place_ms, it.place, it.due_ms) order by it.ordinality)
    into lines, places
    from unnest(given) with ordinality as it
    left join unnest(virtual_lines, virtual_places) as virtual (seq, place_ms)
    on virtual.seq = it.seq
    where it.waits_for = 0
    and coalesce(it.due_ms, get_in_line.wall_ms) <= get_in_line.wall_ms;
    select * into back
    from backlane.held_back(
        get_in_line.wall_ms, get_in_line.boot_ms, lines, places, get_in_line.may_hold
    );
    with line as materialized (
        select it.*, job.queue, job.lane, job.size, job.priority, job.place as old_place,
            job.due_ms as old_due_ms, job.gates is not null as is_gated, virtual.place_ms,
            held.gate, held.limit_no,
            case
                when it.waits_for > 0 then 1
                when it.due_ms > get_in_line.wall_ms then 2
                when held.gate is not null then 3
                else 4
            end as stage
        from unnest(given) as it
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
            revision, crashes, size, limit_no, waits_for, rank, priority)
        select place_then, seq, token, gate, parked_ms, queue, lane, attempt, revision, crashes,
            size, limit_no, waits_for, case when limit_no < 0 then 0 else 9 - priority end,
            priority
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
            9 - priority, priority, nullif(is_gated, false)
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
