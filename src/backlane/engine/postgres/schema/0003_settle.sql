-- Jobs that end, or are forgotten: their keys are free, their deadlines and places in a
-- group and turns given up; what they wait for, or waited for, may be pruned. Of one that failed the key
-- is held on where it is held until it succeeds.
create function backlane.let_go(seqs bigint[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    had record;
begin
    select count(key_name) as keys, count(deadline_ms) as deadlines, count(group_name) as groups,
        coalesce(bit_or(traits), 0) as traits, count(gates) as gates
    into had
    from backlane.job
    where job.seq = any (seqs);
    if had.keys > 0 then
        delete from backlane.unique_key
        using backlane.job
        where job.seq = any (seqs)
        and job.key_name is not null
        and unique_key.digest = backlane.digest(job.key_scope, job.key_name)
        and unique_key.seq = job.seq
        and unique_key.until_ms is null
        and (unique_key.hold <> 2
            or not exists (select 1 from backlane.failed where failed.seq = job.seq));
    end if;
    if had.deadlines > 0 then
        delete from backlane.deadline
        using backlane.job
        where job.seq = any (seqs)
        and job.deadline_ms is not null
        and (deadline.deadline_ms, deadline.seq) = (job.deadline_ms, job.seq);
    end if;
    if had.groups > 0 then
        insert into backlane.group_tally (queue, jobs, name)
        select queue, -count(*), group_name
        from backlane.job
        where seq = any (seqs)
        and group_name is not null
        group by queue, group_name;
    end if;
    if had.traits & 1 = 1 then
        insert into backlane.latest (task, job, ended_ms, result)
        select distinct on (task) task, job.id, ended_ms, result
        from backlane.job
        join backlane.finished on finished.seq = job.seq
        where job.seq = any (seqs)
        and job.traits & 1 = 1
        and finished.state = 1
        and result is not null
        and task is not null
        order by task, job.id desc          -- so that no two wait for each other in a circle
        on conflict (task) do update
        set job = excluded.job,
            ended_ms = excluded.ended_ms,
            result = excluded.result
        where excluded.job > latest.job;
    end if;
    if had.traits & 4 = 4 then
        -- They were counted among those of which a number is kept.
        insert into backlane.tally (queue, priority, kept_done, kept_failed)
        select job.queue, job.priority,
            nullif(-count(*) filter (where failed.seq is null), 0),
            nullif(-count(failed.seq), 0)
        from backlane.job
        left join backlane.failed on failed.seq = job.seq
        where job.seq = any (seqs)
        and job.traits & 4 = 4
        group by job.queue, job.priority;
    end if;
    if had.traits & 2 = 2 then
        delete from backlane.edge
        where waiting = any (seqs);
    end if;
    if had.gates > 0 then
        delete from backlane.holding        -- turns
        where seq = any (seqs);
    end if;
end
$$;

-- What became of executions, each only if its token is the current one. Sorted by id in
-- all that end leases, so that no two ever wait for each other in a circle.
--
-- outcomes: 1 succeeded, 2 failed, 3 cancelled, 4 retry, 5 crashed, 6 snoozed, 7 released,
-- 8 lapsed (nobody saw its end), 9 awaiting (its result is the ids of whom it waits for).
--
-- Planned once, and only ever along the keys: these tables are empty when they are looked
-- at for statistics, and full of dead rows under a snapshot held elsewhere.
create function backlane.settle(
    now_ms bigint,
    ids bytea[],
    tokens bigint[],
    ran bigint[],
    results bytea[],                        -- null: none has any
    outcomes smallint[],                    -- null, as all that follow: all succeeded
    delays_ms bigint[],
    flags boolean[],                        -- snoozed: parked; crashed: alone
    reasons text[],
    kinds text[],                           -- of errors; null: no error
    messages text[],
    tracebacks text[],
    fingerprints text[],
    boot_ms bigint default null,            -- of the clock of leases, where it is another
    out settled bytea[],
    out buried bytea[],
    out rung int[],                         -- queues with something to claim
    out resourced bytea[],                  -- jobs that depend on resources
    out lanes int[],                        -- and their lanes
    out changed bytea[],                    -- jobs that waited for these, and wait no more
    out came int[]                          -- queues of those that wait no more
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    odd bigint[];
    erred bigint[];
    gated bigint[];                         -- under limits, or of fair or limited queues
    back backlane.waiter[];                 -- of those, what waits from now on
    lapsed bigint;
    ended bytea[];
    states smallint[];
    awaiting bigint[];                      -- and who these are, and whom they wait for
    awaiting_ids bytea[];
    lists bytea[];
    tied record;
begin
    if outcomes is null then
        with gone as materialized (
            delete from backlane.lease
            using unnest(ids, tokens, ran, results) as given (job, fence, ran_ms, result)
            where lease.id = given.job
            and lease.token = given.fence
            returning lease.seq, lease.token, lease.started_ms, lease.queue, lease.lane,
                lease.attempt, lease.revision, lease.size, lease.priority, lease.is_plain,
                lease.is_gated, lease.id, lease.owner, given.ran_ms, given.result
        ),
        ended as (
            insert into backlane.finished (seq, token, started_ms, ended_ms, ran_ms, queue,
                attempt, revision, state, owner, result)
            select seq, token, started_ms, settle.now_ms, ran_ms, queue, attempt + 1,
                revision + 1, 1, owner, result
            from gone
        ),
        counted as (
            insert into backlane.tally (queue, priority, running, bytes, succeeded, kept_done,
                ended, ran_ms)
            select queue, priority, -count(*), -sum(size), count(*), count(*), count(*),
                sum(ran_ms)
            from gone
            group by queue, priority
        )
        select array_agg(id), array_agg(seq) filter (where not is_plain),
            array_agg(id) filter (where lane > 1), array_agg(lane) filter (where lane > 1),
            array_agg(seq) filter (where is_gated)
        into settled, odd, resourced, lanes, gated
        from gone;
        if gated is not null then
            rung := backlane.leave_gates(now_ms, gated, ids, ran);
        end if;
        if odd is not null then
            perform backlane.let_go(odd);
        end if;
        -- One look at the key of `edge` for all: for most jobs nobody waits.
        if exists (select 1 from backlane.edge where awaited = any (settled)) then
            select it.rung, it.changed into came, changed
            from backlane.follow(now_ms, boot_ms, settled, null, true) as it;
            rung := rung || came;
        end if;
        return;
    end if;
    if 9 = any (outcomes) and cardinality(ids) > 1 then
        -- With those that are waited for, so that all leases are locked in one order.
        perform 1
        from backlane.lease
        where id = any (ids || array(
            select awaited.id
            from unnest(outcomes, results) as given (outcome, result)
            cross join backlane.ids_in(result) as awaited (id)
            where outcome = 9
        ))
        order by id
        for update;
    end if;
    with gone as materialized (
        delete from backlane.lease
        using unnest(ids, tokens, ran, results, outcomes, delays_ms, flags, reasons, kinds,
            messages, tracebacks, fingerprints) as given (job, fence, ran_ms, result, outcome,
            delay_ms, flag, why, kind, message, traceback, fingerprint)
        where lease.id = given.job
        and lease.token = given.fence
        returning lease.*, given.*
    ),
    -- What the outcome asks. Counted: all but cancelled, snoozed and released.
    judged as materialized (
        select gone.*, job.attempts as allowed,
            gone.attempt + (outcome in (1, 2, 4, 5, 8))::int as attempt_then,
            gone.crashes + (outcome = 5 and flag)::int as crashes_then,
            case when outcome = 5 then gone.lane | 1 else gone.lane end as lane_then,
            case
                when outcome = 6 and flag then coalesce(gone.parked_ms, settle.now_ms)
                when outcome in (7, 8) then gone.parked_ms
            end as parked_then
        from gone
        join backlane.job on job.seq = gone.seq
    ),
    -- The state it is in then (6 scheduled, 7 ready), and at which place it waits.
    placed as materialized (
        select judged.*,
            case
                when outcome <= 3 then outcome::int
                when cancelling then 3
                when outcome = 4 and attempt_then >= allowed then 2
                when outcome in (5, 8) and (attempt_then >= allowed or crashes_then >= 3) then 2
                when outcome in (4, 6) and delay_ms > 0 then 6
                when outcome = 9 then 8
                else 7
            end as state_then,
            case
                when outcome in (4, 6) then settle.now_ms + greatest(0, delay_ms)
                else place
            end as place_then
        from judged
    ),
    ended as (
        insert into backlane.finished (seq, token, started_ms, ended_ms, ran_ms, queue, attempt,
            revision, state, owner, result)
        select seq, token, started_ms, settle.now_ms, ran_ms, queue, attempt_then, revision + 1,
            state_then, owner, case when state_then = 1 then result end
        from placed
        where state_then in (1, 3)
    ),
    dead as (
        insert into backlane.failed (seq, token, started_ms, ended_ms, ran_ms, queue, attempt,
            revision, reason, owner)
        select seq, token, started_ms, settle.now_ms, ran_ms, queue, attempt_then, revision + 1,
            case outcome when 2 then why when 4 then 'attempts' else 'crashed' end, owner
        from placed
        where state_then = 2
    ),
    put_back as (
        insert into backlane.ready (place, seq, token, parked_ms, queue, lane, attempt, revision,
            crashes, size, rank, priority)
        select place_then, seq, token, parked_then, queue, lane_then, attempt_then, revision + 1,
            crashes_then, size, 9 - priority, priority
        from placed
        where state_then = 7
        and is_gated is null
    ),
    put_off as (
        insert into backlane.scheduled (due_ms, seq, token, parked_ms, queue, lane, attempt,
            revision, crashes, size, priority)
        select place_then, seq, token, parked_then, queue, lane_then, attempt_then, revision + 1,
            crashes_then, size, priority
        from placed
        where state_then = 6
        and is_gated is null
    ),
    -- For one at least until it is known whom it really waits for.
    put_aside as (
        insert into backlane.blocked (place, seq, token, queue, lane, attempt, revision, crashes,
            size, waits_for, rank, priority)
        select place, seq, token, queue, lane, attempt, revision + 1, crashes, size, 1,
            9 - priority, priority
        from placed
        where state_then = 8
    ),
    -- Also where it crashed and ends: redriven, it runs alone.
    moved as (
        update backlane.job
        set place = case when is_gated then job.place else place_then end,
            lane = lane_then,
            traits = case when state_then = 8 then coalesce(traits, 0) | 2 else traits end,
            started_ms = placed.started_ms,
            owner = placed.owner
        from placed
        where job.seq = placed.seq
        and (state_then > 5 or outcome = 5)
    ),
    -- A sweep forgets the deadlines it finds behind it, also those of running jobs.
    overdue_again as (
        insert into backlane.deadline (deadline_ms, seq)
        select deadline_ms, job.seq
        from placed
        join backlane.job on job.seq = placed.seq
        where state_then > 5
        and not is_plain
        and deadline_ms is not null
        on conflict (deadline_ms, seq) do update
        set seq = excluded.seq              -- locked: a sweep passes it by
    ),
    noted as (
        insert into backlane.attempt_error (seq, token, at_ms, attempt, kind, message, traceback,
            fingerprint)
        select seq, token, settle.now_ms, attempt + 1, kind, message, traceback, fingerprint
        from placed
        where kind is not null
    ),
    counted as (
        insert into backlane.tally (queue, priority, blocked, scheduled, ready, running, bytes,
            retried, succeeded, failed, cancelled, kept_done, kept_failed, ended, ran_ms)
        select queue, priority,
            nullif(count(*) filter (where state_then = 8), 0),
            nullif(count(*) filter (where state_then = 6 and is_gated is null), 0),
            nullif(count(*) filter (where state_then = 7 and is_gated is null), 0),
            -count(*),
            -sum(size) filter (where state_then < 5),
            nullif(count(*) filter (where outcome = 4 and state_then > 5), 0),
            nullif(count(*) filter (where state_then = 1), 0),
            nullif(count(*) filter (where state_then = 2), 0),
            nullif(count(*) filter (where state_then = 3), 0),
            nullif(count(*) filter (where state_then in (1, 3)), 0),
            nullif(count(*) filter (where state_then = 2), 0),
            nullif(count(*) filter (where outcome not in (7, 8)), 0),
            sum(ran_ms) filter (where outcome not in (7, 8))
        from placed
        group by queue, priority
    )
    select array_agg(id), array_agg(seq) filter (where state_then < 5 and not is_plain),
        array_agg(seq) filter (where kind is not null),
        array_agg(id) filter (where state_then = 2),
        array_agg(distinct queue) filter (where outcome > 1),
        array_agg(id) filter (where lane > 1), array_agg(lane) filter (where lane > 1),
        array_agg(seq order by until_ms, seq) filter (where is_gated),
        array_agg((
            seq, token, parked_then, attempt_then, revision + 1, crashes_then,
            case when outcome in (4, 6) then settle.now_ms + greatest(0, delay_ms) end,
            case when outcome not in (4, 6) then place end, 0
        )::backlane.waiter order by place, seq) filter (where state_then in (6, 7) and is_gated),
        array_agg(id) filter (where state_then < 5),
        array_agg(state_then::smallint) filter (where state_then < 5),
        array_agg(seq) filter (where state_then = 8),
        array_agg(id) filter (where state_then = 8),
        array_agg(result) filter (where state_then = 8)
    into settled, odd, erred, buried, rung, resourced, lanes, gated, back, ended, states,
        awaiting, awaiting_ids, lists
    from placed;
    if outcomes[1] = 8 and back is not null then
        -- What lapsed comes back one by one, as it lapsed: what the next one holds is its own
        -- until then.
        foreach lapsed in array gated loop
            rung := rung || backlane.leave_gates(now_ms, array[lapsed], ids, ran, outcomes);
            perform backlane.get_in_line(now_ms, coalesce(boot_ms, now_ms), array(
                select it::backlane.waiter
                from unnest(back) as it
                where it.seq = lapsed
            ));
        end loop;
        back := null;
    elsif gated is not null then
        rung := rung || backlane.leave_gates(now_ms, gated, ids, ran, outcomes);
    end if;
    if back is not null then
        perform backlane.get_in_line(now_ms, coalesce(boot_ms, now_ms), back);
    end if;
    if odd is not null then
        perform backlane.let_go(odd);
    end if;
    if erred is not null then
        -- Only the newest are kept, of each job.
        delete from backlane.attempt_error as old
        using unnest(erred) as given (job)
        where old.seq = given.job
        and old.token <= (
            select token
            from backlane.attempt_error as kept
            where kept.seq = given.job
            order by token desc
            offset 20
            limit 1
        );
    end if;
    if exists (select 1 from backlane.edge where awaited = any (ended)) then
        select it.rung, it.changed into came, changed
        from backlane.follow(now_ms, boot_ms, ended, states, true) as it;
        rung := rung || came;
    end if;
    if awaiting is not null then
        came := came || backlane.await_all(now_ms, boot_ms, awaiting, awaiting_ids, lists);
        rung := rung || came;
    end if;
end
$$;

-- Leases that nobody holds any more end here: the execution counts, the place is kept.
create function backlane.bring_back(
    now_ms bigint,
    boot_ms bigint,
    departed text[],
    since_ms bigint,                        -- what lapsed before has been brought back
    most int,
    out lapsed int,
    out gone bytea[],                       -- whose state changed
    out buried bytea[],
    out rung int[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    ids bytea[];
    tokens bigint[];
    terms bigint[];
begin
    lapsed := 0;
    -- A term whose leases are more than may be moved now stays for the next call.
    select array_agg(id) into terms
    from (
        select id
        from backlane.term
        where until_ms > since_ms
        and until_ms <= boot_ms
        order by until_ms
        limit 1000
        for update skip locked
    ) as over;
    if departed <> '{}' then
        select terms || array_agg(id) into terms
        from (
            select id
            from backlane.term
            where owner = any (departed)
            and id <> all (coalesce(terms, '{}'))
            for update skip locked
        ) as left_behind;
    end if;
    if terms is null then
        return;
    end if;
    select array_agg(id order by id), array_agg(token order by id) into ids, tokens
    from (
        select id, token
        from backlane.lease
        where term = any (terms)
        and (until_ms <= boot_ms or owner = any (departed))
        order by until_ms, seq
        limit most
        for update skip locked
    ) as late;
    if ids is not null then
        lapsed := cardinality(ids);
        select done.settled || done.changed, done.buried, done.rung into gone, buried, rung
        from backlane.settle(
            bring_back.now_ms, ids, tokens, array_fill(0::bigint, array[lapsed]), null,
            array_fill(8::smallint, array[lapsed]), null, null, null, null, null, null, null,
            boot_ms
        ) as done;
    end if;
    delete from backlane.term
    where id = any (terms)
    and not exists (select 1 from backlane.lease where lease.term = term.id);
end
$$;
