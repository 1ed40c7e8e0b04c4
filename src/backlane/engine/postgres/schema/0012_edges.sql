-- Edges: jobs that wait for others to end.
--
-- An edge is made while the job that is waited for is held where it is (`pin`), so that
-- either its end is seen here, or whoever ends it sees the edge. `waits_for` of the job that
-- waits says how many have not ended: it is changed under the lock of its row, in order of
-- seq, so that of two who end the last two of them one finds nothing left.

-- What has become of each of these jobs: 0 it has not ended, else its final state; -1 nobody
-- knows it. Those that have not ended are held until this transaction ends. Where a job is,
-- is known only once it is held: between two looks it may go anywhere.
create function backlane.pin(
    ids bytea[],
    out states smallint[],
    out queues int[]                        -- of those that were ready: a claim passes by
)                                           -- what is held, so they are to be rung
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    rest bytea[] := ids;                    -- not found yet, and at which place they were given
    spots int[] := array(select generate_series(1, cardinality(ids)));
    last_queue int;
    it record;
begin
    states := array_fill(null::smallint, array[cardinality(ids)]);
    for look in 1 .. 100 loop
        -- As a rule at the rank of its priority: the others are looked for below.
        for it in
            select given.at, job.queue
            from unnest(rest, spots) as given (id, at)
            cross join lateral (
                select *
                from backlane.job
                where job.id = given.id
                offset 0
            ) as job
            cross join lateral (
                select 1
                from backlane.ready
                where ready.queue = job.queue
                and ready.lane = job.lane
                and ready.rank = (9 - job.priority)::smallint
                and ready.place = job.place
                and ready.seq = job.seq
                for key share
            ) as held
        loop
            states[it.at] := 0;
            if it.queue is distinct from last_queue then
                last_queue := it.queue;
                queues := queues || last_queue;
            end if;
        end loop;
        select coalesce(array_agg(id), '{}'), coalesce(array_agg(at), '{}') into rest, spots
        from unnest(rest, spots) as given (id, at)
        where states[at] is null;
        exit when rest = '{}';
        -- Changed and not only locked: a transaction whose snapshot is older, and which would
        -- not see the edge, may not settle it then.
        update backlane.lease
        set is_plain = false
        where id = any (rest);
        if found then
            for it in
                select given.at
                from unnest(rest, spots) as given (id, at)
                join backlane.lease on lease.id = given.id
            loop
                states[it.at] := 0;
            end loop;
            select coalesce(array_agg(id), '{}'), coalesce(array_agg(at), '{}') into rest, spots
            from unnest(rest, spots) as given (id, at)
            where states[at] is null;
        end if;
        for it in
            select given.at
            from unnest(rest, spots) as given (id, at)
            cross join lateral (
                select *
                from backlane.job
                where job.id = given.id
                offset 0
            ) as job
            cross join lateral (
                select 1
                from backlane.blocked
                where blocked.seq = job.seq
                for key share
            ) as held
        loop
            states[it.at] := 0;
        end loop;
        for it in
            select given.at
            from unnest(rest, spots) as given (id, at)
            cross join lateral (
                select *
                from backlane.job
                where job.id = given.id
                offset 0
            ) as job
            cross join lateral (
                select 1
                from backlane.scheduled
                where scheduled.due_ms = job.place
                and scheduled.seq = job.seq
                for key share
            ) as held
        loop
            states[it.at] := 0;
        end loop;
        for it in
            select given.at
            from unnest(rest, spots) as given (id, at)
            cross join lateral (
                select *
                from backlane.job
                where job.id = given.id
                offset 0
            ) as job
            cross join lateral (
                select 1
                from backlane.ready
                where ready.queue = job.queue
                and ready.lane = job.lane
                and ready.rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
                and ready.place = job.place
                and ready.seq = job.seq
                for key share
            ) as held
        loop
            states[it.at] := 0;
        end loop;
        -- What ended before comes last: who moves a job out of there holds it by then.
        for it in
            select given.at, case when job.id is null then -1 else ended.state end as state
            from unnest(rest, spots) as given (id, at)
            left join lateral (
                select id, seq
                from backlane.job
                where job.id = given.id
                limit 1
            ) as job on true
            left join lateral (
                select state
                from backlane.ended
                where ended.seq = job.seq
                limit 1
            ) as ended on true
            where job.id is null
            or ended.state is not null
        loop
            if states[it.at] is null then
                states[it.at] := it.state;
            end if;
        end loop;
        select coalesce(array_agg(id), '{}'), coalesce(array_agg(at), '{}') into rest, spots
        from unnest(rest, spots) as given (id, at)
        where states[at] is null;
        exit when rest = '{}';
    end loop;
    if rest <> '{}' then
        raise serialization_failure using message = 'jobs that are waited for keep moving';
    end if;
end
$$;

-- Jobs that waited for others, and wait no more: in line, at the place they had.
create function backlane.unblock(
    now_ms bigint,
    boot_ms bigint,
    seqs bigint[],
    revisions int,                          -- later than they are
    may_hold boolean
)
returns int[]
language plpgsql
as $$
declare
    freed backlane.waiter[];
begin
    with gone as materialized (
        delete from backlane.blocked
        where seq = any (seqs)
        returning blocked.*
    ),
    counted as (
        insert into backlane.tally (queue, priority, blocked)
        select queue, priority, -count(*)
        from gone
        group by queue, priority
    )
    -- Who has run already is due, whatever the clock says by now.
    select array_agg((
        seq, token, parked_ms, attempt, revision + revisions, crashes,
        case when token = 0 then place end, place, 0
    )::backlane.waiter order by seq)
    into freed
    from gone;
    if freed is null then
        return null;
    end if;
    return (
        select rung
        from backlane.get_in_line(
            unblock.now_ms, coalesce(unblock.boot_ms, unblock.now_ms), freed,
            may_hold => may_hold
        )
    );
end
$$;

-- Jobs that hoped in vain end; why is kept with each.
create function backlane.skip_jobs(
    now_ms bigint,
    seqs bigint[],
    culprits bytea[],                       -- which job failed each of them
    states smallint[]                       -- and how it ended
)
returns bytea[]
language plpgsql
as $$
declare
    ids bytea[];
    ended bigint[];
begin
    with gone as materialized (
        delete from backlane.blocked
        using unnest(seqs, culprits, states) as given (waiting, culprit, state)
        where blocked.seq = given.waiting
        and blocked.seq = any (seqs)
        returning blocked.*, given.culprit, given.state
    ),
    finished as (
        insert into backlane.finished (seq, token, started_ms, ended_ms, ran_ms, queue, attempt,
            revision, state, owner)
        select gone.seq, token, job.started_ms, skip_jobs.now_ms, 0, gone.queue, attempt,
            revision + 1, 3, job.owner
        from gone
        join backlane.job on job.seq = gone.seq
    ),
    told as (
        insert into backlane.attempt_error (seq, token, at_ms, attempt, kind, message, traceback,
            fingerprint)
        select seq, token, skip_jobs.now_ms, attempt + 1, 'Skipped',
            'job ' || encode(culprit, 'hex')::uuid || ', which it waited for, ended as '
                || (array['succeeded', 'failed', 'cancelled', 'expired'])[state],
            '', ''
        from gone
        on conflict (seq, token) do update
        set at_ms = excluded.at_ms,
            attempt = excluded.attempt,
            kind = excluded.kind,
            message = excluded.message,
            traceback = excluded.traceback,
            fingerprint = excluded.fingerprint
    ),
    counted as (
        insert into backlane.tally (queue, priority, blocked, bytes, cancelled, kept_done)
        select queue, priority, -count(*), -sum(size), count(*), count(*)
        from gone
        group by queue, priority
    )
    select array_agg(job.id), array_agg(gone.seq) into ids, ended
    from gone
    join backlane.job on job.seq = gone.seq;
    if ended is not null then
        perform backlane.let_go(ended);
        perform backlane.open_gates(ended);
    end if;
    return ids;
end
$$;

-- Whether a job that ended so fails an edge that hopes so (1: it must succeed, 2: it must not).
create function backlane.is_vain(hope smallint, state smallint) returns boolean
language sql immutable parallel safe
return (hope = 1 and state <> 1) or (hope = 2 and state = 1);

-- Of jobs that wait, less is to be waited for; or one of them failed, and they end.
create function backlane.release(
    now_ms bigint,
    boot_ms bigint,
    waiting bigint[],                       -- in order
    less int[],
    culprits bytea[],                       -- null: none
    failings smallint[],
    may_hold boolean,
    out rung int[],
    out skipped bytea[],                    -- that ended
    out freed_ids bytea[]                   -- that wait no more
)
language plpgsql
as $$
declare
    freed bigint[];
begin
    -- In order, so that no two wait for each other in a circle.
    perform 1
    from backlane.blocked
    where seq = any (waiting)
    order by seq
    for update;
    with fewer as (
        update backlane.blocked
        set waits_for = waits_for - given.less
        from unnest(waiting, less, culprits) as given (seq, less, culprit)
        where blocked.seq = given.seq
        and blocked.seq = any (release.waiting)
        and waits_for > 0
        and culprit is null
        returning blocked.seq, waits_for
    )
    select array_agg(seq) into freed
    from fewer
    where waits_for <= 0;
    if freed is not null then
        rung := backlane.unblock(now_ms, boot_ms, freed, 1, may_hold);
        freed_ids := array(select id from backlane.job where seq = any (freed));
    end if;
    if array_remove(culprits, null) <> '{}' then
        skipped := (
            select backlane.skip_jobs(
                now_ms, array_agg(seq), array_agg(culprit), array_agg(failing)
            )
            from unnest(waiting, culprits, failings) as given (seq, culprit, failing)
            where culprit is not null
        );
    end if;
end
$$;

-- Jobs ended: who waited for the last of his is in line, who hoped in vain ends, and so on.
-- Whoever calls it plans by keys alone, as `settle` does.
create function backlane.follow(
    now_ms bigint,
    boot_ms bigint,
    ids bytea[],
    states smallint[],                      -- null: all succeeded
    may_hold boolean,
    out rung int[],                         -- queues with something to claim
    out changed bytea[]                     -- jobs that ended by it, or wait no more
)
language plpgsql
as $$
declare
    waiting bigint[];
    less int[];
    culprits bytea[];
    failings smallint[];
    done record;
begin
    loop
        -- One look at the key of `edge` for each: for most jobs this is all.
        select array_agg(one.waiting order by one.waiting),
            array_agg(one.ended order by one.waiting),
            array_agg(one.culprit order by one.waiting),
            array_agg(one.failing order by one.waiting)
        into waiting, less, culprits, failings
        from (
            select edge.waiting, count(*)::int as ended,
                (array_agg(edge.awaited) filter (
                    where backlane.is_vain(hope, coalesce(given.state, 1::smallint))
                ))[1] as culprit,
                (array_agg(coalesce(given.state, 1::smallint)) filter (
                    where backlane.is_vain(hope, coalesce(given.state, 1::smallint))
                ))[1] as failing
            from unnest(ids, states) as given (id, state)
            cross join lateral (
                select *
                from backlane.edge
                where edge.awaited = given.id
                and is_open
                offset 0
            ) as edge
            group by edge.waiting
        ) as one;
        exit when waiting is null;
        select * into done
        from backlane.release(now_ms, boot_ms, waiting, less, culprits, failings, may_hold);
        rung := rung || done.rung;
        changed := changed || done.freed_ids || done.skipped;
        exit when done.skipped is null;
        ids := done.skipped;
        states := array_fill(3::smallint, array[cardinality(ids)]);
    end loop;
end
$$;

-- Blocked jobs come to wait for others, as far as these have not ended. Whom one waits for
-- is named once at most. As the owner, for producers do so too when they append, and may not
-- touch what others wait for.
create function backlane.tie(
    now_ms bigint,
    boot_ms bigint,
    waiting bigint[],                       -- these three of each edge
    awaited bytea[],
    hopes smallint[],                       -- 0 it ends, 1 it succeeds, 2 it does not
    await_unknown boolean,                  -- they are still to come
    may_hold boolean,
    out rung int[]
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    states smallint[];
    freed bigint[];
    failed bigint[];
    culprits bytea[];
    failings smallint[];
    skipped bytea[];
begin
    select it.states, it.queues into states, rung
    from backlane.pin(awaited) as it;
    if exists (
        select 1
        from (select distinct unnest(waiting) as seq) as given
        cross join lateral (
            select 1 from backlane.edge where edge.waiting = given.seq limit 1
        ) as before
    ) then
        -- It waits again: for another job, or the same.
        insert into backlane.edge (waiting, hope, is_open, awaited)
        select given.seq, given.hope, given.state <= 0, given.job
        from unnest(waiting, awaited, hopes, states) as given (seq, job, hope, state)
        where given.state >= 0
        or await_unknown
        on conflict on constraint edge_pkey do update
        set hope = excluded.hope,
            is_open = excluded.is_open;
    else
        -- As a rule: nothing can be in the way, so nothing is looked for.
        insert into backlane.edge (waiting, hope, is_open, awaited)
        select given.seq, given.hope, given.state <= 0, given.job
        from unnest(waiting, awaited, hopes, states) as given (seq, job, hope, state)
        where given.state >= 0
        or await_unknown;
    end if;
    with one as materialized (
        select given.seq,
            count(*) filter (where state = 0 or (state < 0 and await_unknown)) as open,
            (array_agg(job) filter (where is_failed))[1] as culprit,
            (array_agg(abs(state) + 2 * (state < 0)::int) filter (where is_failed))[1] as failing
        from unnest(waiting, awaited, hopes, states) as given (seq, job, hope, state)
        cross join lateral (
            select (state > 0 or (state < 0 and not await_unknown))
                and backlane.is_vain(hope, state) as is_failed
        ) as judged
        group by given.seq
    ),
    tied as (
        update backlane.blocked
        set waits_for = one.open
        from one
        where blocked.seq = one.seq
        and blocked.seq = any (tie.waiting)
        and culprit is null
        and one.open > 0
    )
    select array_agg(seq) filter (where open = 0 and culprit is null),
        array_agg(seq) filter (where culprit is not null),
        array_agg(culprit) filter (where culprit is not null),
        array_agg(failing::smallint) filter (where culprit is not null)
    into freed, failed, culprits, failings
    from one;
    if freed is not null then
        rung := rung || backlane.unblock(now_ms, boot_ms, freed, 0, may_hold);
    end if;
    if failed is not null then
        skipped := backlane.skip_jobs(now_ms, failed, culprits, failings);
        rung := rung || (
            select it.rung
            from backlane.follow(
                now_ms, boot_ms, skipped, array_fill(3::smallint, array[cardinality(skipped)]),
                may_hold
            ) as it
        );
    end if;
end
$$;

revoke execute on function backlane.tie from public;

-- The same as `follow`, for who plans otherwise.
create function backlane.follow_all(
    now_ms bigint,
    boot_ms bigint,
    ids bytea[],
    states smallint[],
    out rung int[],
    out changed bytea[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    select it.rung, it.changed into rung, changed
    from backlane.follow(now_ms, boot_ms, ids, states, true) as it;
end
$$;

-- Ids of jobs, 16 bytes each.
create function backlane.ids_in(list bytea) returns setof bytea
language sql immutable
rows 100
as $$
    select substr(list, at, 16) from generate_series(1, length(list), 16) as at
$$;

-- Jobs that gave their leases back (they are in `blocked`) come to wait for others, however
-- these end; or to run again, where all have ended. The queues to ring are returned, also
-- those of whom they wait for: a claim may have passed these by while they were held.
create function backlane.await_all(
    now_ms bigint,
    boot_ms bigint,
    seqs bigint[],
    ids bytea[],                            -- the same
    lists bytea[]                           -- ids of those they wait for
)
returns int[]
language plpgsql
as $$
declare
    waiting bigint[];
    awaited bytea[];
    rung int[];
begin
    -- In the order of their ids, which is about that of their places in all tables and keys.
    select array_agg(seq order by job, seq), array_agg(job order by job, seq)
    into waiting, awaited
    from (
        select distinct given.seq, list.job
        from unnest(seqs, ids, lists) as given (seq, id, list)
        cross join backlane.ids_in(list) as list (job)
        where list.job <> given.id
    ) as edges;
    if waiting is not null then
        rung := backlane.tie(
            now_ms, boot_ms, waiting, awaited,
            array_fill(0::smallint, array[cardinality(waiting)]), false, true
        );
    end if;
    seqs := array(select unnest(seqs) except select unnest(waiting));
    if seqs <> '{}' then
        rung := rung || backlane.unblock(now_ms, boot_ms, seqs, 0, true);
    end if;
    return rung;
end
$$;
