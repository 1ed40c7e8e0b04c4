-- Deltas come to the counters they belong to, and what was used of credits is taken off.
-- As the owner, for producers do so too when there are many, and may not touch counters.
create function backlane.fold(most int) returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    folded int;
begin
    with gone as materialized (
        delete from backlane.tally
        where ctid = any (array(
            select ctid
            from backlane.tally
            limit most
            for update skip locked
        ))
        returning *
    ),
    spent as (
        update backlane.credit
        set jobs = credit.jobs - used.jobs,
            bytes = credit.bytes - used.bytes
        from (
            select gone.credit, sum(appended) as jobs, sum(gone.bytes) as bytes
            from gone
            where gone.credit is not null
            group by gone.credit
        ) as used
        where credit.id = used.credit
    ),
    counted as (
        insert into backlane.counter as base (queue, priority, scheduled, ready, running, bytes,
            appended, retried, succeeded, failed, cancelled, expired, kept_done, kept_failed,
            started, ended, ran_ms, foretold, foretold_ms, waited_ms, blocked)
        select queue, priority, coalesce(sum(scheduled), 0), coalesce(sum(ready), 0),
            coalesce(sum(running), 0), coalesce(sum(bytes), 0), coalesce(sum(appended), 0),
            coalesce(sum(retried), 0), coalesce(sum(succeeded), 0), coalesce(sum(failed), 0),
            coalesce(sum(cancelled), 0), coalesce(sum(expired), 0),
            coalesce(sum(kept_done), 0), coalesce(sum(kept_failed), 0),
            coalesce(sum(started), 0), coalesce(sum(ended), 0), coalesce(sum(ran_ms), 0),
            coalesce(sum(foretold), 0), coalesce(sum(foretold_ms), 0),
            coalesce(sum(waited_ms), 0), coalesce(sum(blocked), 0)
        from gone
        group by queue, priority
        order by queue, priority            -- so that no two wait for each other in a circle
        on conflict (queue, priority) do update
        set scheduled = base.scheduled + excluded.scheduled,
            ready = base.ready + excluded.ready,
            running = base.running + excluded.running,
            bytes = base.bytes + excluded.bytes,
            appended = base.appended + excluded.appended,
            retried = base.retried + excluded.retried,
            succeeded = base.succeeded + excluded.succeeded,
            failed = base.failed + excluded.failed,
            cancelled = base.cancelled + excluded.cancelled,
            expired = base.expired + excluded.expired,
            kept_done = base.kept_done + excluded.kept_done,
            kept_failed = base.kept_failed + excluded.kept_failed,
            started = base.started + excluded.started,
            ended = base.ended + excluded.ended,
            ran_ms = base.ran_ms + excluded.ran_ms,
            foretold = base.foretold + excluded.foretold,
            foretold_ms = base.foretold_ms + excluded.foretold_ms,
            waited_ms = base.waited_ms + excluded.waited_ms,
            blocked = base.blocked + excluded.blocked
    )
    select count(*) into folded from gone;
    return folded;
end
$$;

-- The same for groups; one that has no jobs left is forgotten.
create function backlane.fold_groups(most int) returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    folded int;
begin
    with gone as materialized (
        delete from backlane.group_tally
        where ctid = any (array(
            select ctid
            from backlane.group_tally
            where xid is null
            or pg_visible_in_snapshot(xid, pg_current_snapshot())
            limit most
            for update skip locked
        ))
        returning *
    ),
    counted as (
        insert into backlane.group_counter as base (queue, jobs, name)
        select queue, sum(jobs), name
        from gone
        where xid is null                   -- else it was booked, and those are counted by now
        group by queue, name
        order by queue, md5(name)
        on conflict (queue, md5(name)) do update
        set jobs = base.jobs + excluded.jobs
    )
    select count(*) into folded from gone;
    delete from backlane.group_counter
    where jobs = 0;
    return folded;
end
$$;

-- Waiting jobs past their deadline end. A running one loses only the note of it: should it
-- come back, the note comes with it.
create function backlane.expire(
    now_ms bigint,
    most int,
    out met int,
    out expired bytea[],
    out changed bytea[],                    -- jobs that waited for these, and wait no more
    out rung int[]
)
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    seqs bigint[];
begin
    with over as materialized (
        delete from backlane.deadline
        where ctid = any (array(
            select ctid
            from backlane.deadline
            where deadline_ms <= expire.now_ms
            order by deadline_ms, seq
            limit most
            for update skip locked
        ))
        returning seq
    )
    select array_agg(seq order by seq), count(*) into seqs, met from over;
    if seqs is null then
        return;
    end if;
    with held as materialized (
        select seq, id, queue, lane, place
        from backlane.job
        where seq = any (seqs)
    ),
    unready as (
        delete from backlane.ready
        using held
        where ready.queue = held.queue
        and ready.lane = held.lane
        and ready.rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
        and ready.place = held.place
        and ready.seq = held.seq
        returning ready.seq, ready.token, ready.queue, ready.attempt, ready.revision, ready.size,
            ready.priority, 7 as state, held.id
    ),
    unscheduled as (
        delete from backlane.scheduled
        using held
        where scheduled.due_ms = held.place
        and scheduled.seq = held.seq
        returning scheduled.seq, scheduled.token, scheduled.queue, scheduled.attempt,
            scheduled.revision, scheduled.size, scheduled.priority, 6 as state, held.id
    ),
    unblocked as (
        delete from backlane.blocked
        using held
        where blocked.seq = held.seq
        returning blocked.seq, blocked.token, blocked.queue, blocked.attempt, blocked.revision,
            blocked.size, blocked.priority, 8 as state, held.id
    ),
    gone as materialized (
        select * from unready
        union all
        select * from unscheduled
        union all
        select * from unblocked
    ),
    ended as (
        insert into backlane.finished (seq, token, started_ms, ended_ms, ran_ms, queue, attempt,
            revision, state, owner)
        select gone.seq, token, job.started_ms, expire.now_ms, 0, gone.queue, attempt,
            revision + 1, 4, job.owner
        from gone
        join backlane.job on job.seq = gone.seq
    ),
    counted as (
        insert into backlane.tally (queue, priority, scheduled, ready, blocked, bytes, expired,
            kept_done)
        select queue, priority, nullif(-count(*) filter (where state = 6), 0),
            nullif(-count(*) filter (where state = 7), 0),
            nullif(-count(*) filter (where state = 8), 0), -sum(size), count(*), count(*)
        from gone
        group by queue, priority
    )
    select array_agg(id), array_agg(seq) into expired, seqs from gone;
    if seqs is not null then
        perform backlane.let_go(seqs);
        perform backlane.open_gates(seqs);
        select it.rung, it.changed into rung, changed
        from backlane.follow(
            now_ms, null, expired, array_fill(4::smallint, array[cardinality(expired)]), true
        ) as it;
    end if;
end
$$;

-- What has waited long is raised, a level for every five minutes. For each level that a
-- priority may have gained so far, one range of the key of `ready`.
create function backlane.age(now_ms bigint, most int) returns int
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    aged int;
begin
    with spot as materialized (
        select old.at
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
        cross join generate_series(0, 8) as level
        cross join generate_series(1, 9 - level) as standing
        cross join lateral (
            select ready.ctid as at
            from backlane.ready
            where ready.queue = queue.id
            and ready.lane = kind.lane
            and ready.rank = standing
            and ready.place <= age.now_ms - 300000 * (10 - level - standing)
            and ready.priority = level
            limit most
            for update skip locked
        ) as old
        where not exists (                  -- places there say nothing of how long one waited
            select 1
            from backlane.fair_clock
            where fair_clock.queue = queue.id
        )
        limit most
    ),
    gone as materialized (
        delete from backlane.ready
        using spot
        where ready.ctid = spot.at
        returning ready.*
    ),
    come as (
        insert into backlane.ready (place, seq, token, parked_ms, queue, lane, attempt, revision,
            crashes, size, rank, priority, is_gated)
        select place, seq, token, parked_ms, queue, lane, attempt, revision, crashes, size,
            greatest(0, 9 - priority - (age.now_ms - place) / 300000), priority, is_gated
        from gone
    )
    select count(*) into aged from gone;
    return aged;
end
$$;

-- History past its age, or beyond the number kept of its queue, is forgotten. It goes round
-- with a cursor and looks at 10,000 rows a call, so that a history of millions costs no
-- more than one of thousands; one sweep at a time does so.
create function backlane.prune(
    now_ms bigint,
    are_failed boolean,
    age_ms bigint,
    kept bigint,
    least_ms bigint,
    most int
)
returns bytea[]
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    looked_at constant int := 10000;
    cursor_name text := case when are_failed then 'pruned_failed' else 'pruned_seq' end;
    began bigint;
    ends bigint;
    looked int;
    old bigint[];
    ids bytea[];
    newest bigint;
begin
    select number into began
    from backlane.meta
    where name = cursor_name
    for update skip locked;
    if not found or most <= 0 then
        return '{}';
    end if;
    with slice as materialized (
        (select seq, queue, ended_ms
        from backlane.finished
        where not are_failed
        and seq > began
        order by seq
        limit looked_at)
        union all
        (select seq, queue, ended_ms
        from backlane.failed
        where are_failed
        and seq > began
        order by seq
        limit looked_at)
    ),
    excess as materialized (
        select queue, sum(case when are_failed then kept_failed else kept_done end) - kept as number
        from backlane.counted
        group by queue
    ),
    aged as (
        select slice.seq, slice.queue, now_ms - ended_ms as age, its.keep_ms,
            row_number() over (
                partition by slice.queue, its.keep_ms is null
                order by slice.seq
            ) as nth
        from slice
        left join lateral (
            -- Served by job_keep, which is small where few jobs have it.
            select job.keep_ms
            from backlane.job
            where job.seq = slice.seq
            and job.keep_ms is not null
            limit 1
        ) as its on true
        where now_ms - ended_ms >= least_ms
    ),
    over as (
        select aged.seq, row_number() over (order by aged.seq) as nth
        from aged
        left join excess on excess.queue = aged.queue
        where case
            when aged.keep_ms is null then aged.age >= age_ms or aged.nth <= excess.number
            else aged.keep_ms >= 0 and aged.age >= aged.keep_ms
        end
        and not exists (
            select 1
            from backlane.job
            join backlane.edge on edge.awaited = job.id
            where job.seq = aged.seq
        )
    )
    select (select array_agg(seq order by seq) from over where nth <= most),
        (select max(seq) from slice), (select count(*) from slice)
    into old, ends, looked;
    if cardinality(old) = most then
        ends := old[most];
    elsif looked < looked_at then
        ends := 0;
    end if;
    update backlane.meta
    set number = ends
    where name = cursor_name
    and number <> ends;
    if old is null then
        return '{}';
    end if;
    with gone as materialized (
        delete from backlane.finished
        where not are_failed
        and seq = any (old)
        returning seq, queue, ended_ms
    ),
    dead as materialized (
        delete from backlane.failed
        where are_failed
        and seq = any (old)
        returning seq, queue, ended_ms
    ),
    forgotten as materialized (
        delete from backlane.job
        using (select * from gone union all select * from dead) as past
        where job.seq = past.seq
        returning job.seq, job.id, job.priority, job.key_scope, job.key_name, job.keep_ms,
            past.queue, past.ended_ms
    ),
    -- Of dead letters that held theirs until they succeed; a window outlives its job.
    freed as (
        delete from backlane.unique_key
        using forgotten
        where key_name is not null
        and digest = backlane.digest(key_scope, key_name)
        and unique_key.seq = forgotten.seq
        and until_ms is null
    ),
    counted as (
        insert into backlane.tally (queue, priority, kept_done, kept_failed)
        select queue, priority, case when not are_failed then -count(*) end,
            case when are_failed then -count(*) end
        from forgotten
        where keep_ms is null
        group by queue, priority
    )
    -- An id is older than its job's end, unless its maker's clock was ahead: then its own
    -- time would make everybody's ids stale.
    select array_agg(id), array_agg(seq), max(least(
        ('x' || encode(substr(id, 1, 6), 'hex'))::bit(48)::bigint, ended_ms
    ))
    into ids, old, newest
    from forgotten;
    if ids is null then
        return '{}';
    end if;
    delete from backlane.attempt_error where seq = any (old);
    delete from backlane.progress where seq = any (old);
    delete from backlane.step where seq = any (old);
    delete from backlane.tag where seq = any (old);
    update backlane.meta
    set number = newest
    where name = 'forgotten_ms'
    and number < newest;
    return ids;
end
$$;

-- What else is over: idempotency keys, credits of who is gone, and those of callers'
-- transactions that have ended.
create function backlane.clear(now_ms bigint, most int) returns int
language plpgsql
as $$
declare
    cleared int;
begin
    delete from backlane.credit
    where (xid is null and until_ms <= now_ms)
    or (xid is not null and pg_visible_in_snapshot(xid, pg_current_snapshot()));
    delete from backlane.idempotency
    where ctid = any (array(
        select ctid
        from backlane.idempotency
        where until_ms <= now_ms
        order by until_ms
        limit greatest(0, most)
        for update skip locked
    ));
    get diagnostics cleared = row_count;
    delete from backlane.unique_key
    where ctid = any (array(
        select ctid
        from backlane.unique_key
        where until_ms <= now_ms
        order by until_ms
        limit greatest(0, most - cleared)
        for update skip locked
    ));
    return cleared;
end
$$;

-- Parts of the history are made ahead of the jobs that will end in them, and dropped when
-- nothing is left in them. Who cannot have a lock at once leaves it to the next sweep:
-- nothing fails without a part, for what belongs to none is kept in the last one. It
-- belongs to the owner of the tables, whoever calls it.
create function backlane.arrange_parts() returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
as $$
declare
    part_size constant bigint := 1048576;
    home text;
    newest bigint;
    part bigint;
    is_empty boolean;
    changed int := 0;
begin
    select nspname into home
    from pg_catalog.pg_class
    join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
    where pg_class.oid = (select tableoid from backlane.meta limit 1);
    if not pg_try_advisory_xact_lock('backlane.finished'::regclass::oid::bigint) then
        return 0;                           -- another sweep is at it
    end if;
    select last_value / part_size into newest from backlane.job_seq;
    for part in newest + 1 .. newest + 2 loop
        continue when to_regclass(format('%I.%I', home, 'finished_' || part)) is not null;
        execute format(
            'create table %1$I.%2$I (like %1$I.finished including all)', home, 'finished_' || part
        );
        execute format(
            'alter table %1$I.finished attach partition %1$I.%2$I for values from (%3$s) to (%4$s)',
            home, 'finished_' || part, part * part_size, (part + 1) * part_size
        );
        changed := changed + 1;
    end loop;
    for part in
        select substr(relname, 10)::bigint
        from pg_catalog.pg_class
        join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        where nspname = home
        and relname ~ '^finished_[0-9]+$'
        and relkind = 'r'
        and substr(relname, 10)::bigint < newest - 1
    loop
        -- Nothing comes in while it is looked whether it is empty.
        execute format('lock table %I.%I in access exclusive mode', home, 'finished_' || part);
        execute format('select not exists (select 1 from %I.%I)', home, 'finished_' || part)
        into is_empty;
        if is_empty then
            execute format('drop table %I.%I', home, 'finished_' || part);
            changed := changed + 1;
        end if;
    end loop;
    return changed;
exception
    when lock_not_available or deadlock_detected then
        return 0;
end
$$;
