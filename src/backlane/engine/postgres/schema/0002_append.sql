-- Jobs that were admitted come in; what is known by its id or key already does not.
--
-- `used_credits` are whose places are used up. Their rows are locked as keys are: many may
-- share that, and who takes a credit back waits for them. If one is gone, nothing is done
-- (`is_admitted` false) and the caller has to ask again.
create function backlane.enter(
    told_ms bigint,                         -- null: the server's own time
    used_credits bigint[],
    of_queues int[],                        -- of each of these credits
    ids bytea[],
    queues int[],                           -- these five are one for all, where all are alike
    lanes int[],
    priorities smallint[],
    delays_ms bigint[],
    allowed int[],
    sizes int[],
    predicted bigint[],                     -- null, as all that say so, if no job has any
    tasks text[],                           -- one for all, where all are alike
    parents bytea[],                        -- null
    policies bytea[],                       -- null
    headings bytea[],                       -- null
    bodies bytea[],
    lives_ms bigint[],                      -- null, as all that follow
    scopes text[],
    names text[],
    groups text[],
    extras bytea[] default null,
    gates text[] default null,              -- of each job an array, as text
    limits text[] default null,
    told_boot_ms bigint default null,
    may_hold boolean default true,          -- turns: not in a caller's transaction
    holds smallint[] default null,          -- null, as all that follow; of keys
    windows_ms bigint[] default null,
    keeps_ms bigint[] default null,
    marks smallint[] default null,          -- traits
    workflows bytea[] default null,
    tags_of int[] default null,             -- which of these jobs each tag is of
    tag_names text[] default null,
    edges_of int[] default null,            -- and each edge
    awaited bytea[] default null,
    hopes smallint[] default null,
    out is_admitted boolean,
    out entered int,
    out first_seq bigint,
    out now_ms bigint
)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    seqs bigint[];
    lost bigint[] := '{}';
    due_ms bigint;
    is_plain boolean := lives_ms is null and names is null and groups is null
        and extras is null and keeps_ms is null and marks is null;
    -- How these wait is for `get_in_line` to say.
    is_odd boolean := gates is not null or edges_of is not null
        or exists (select 1 from backlane.queue where is_fair and id = any (queues));
begin
    is_plain := is_plain and not is_odd;
    is_admitted := true;
    if cardinality(used_credits) > 0 then
        perform 1 from backlane.credit where id = any (used_credits) for key share;
        get diagnostics entered = row_count;
        if entered < cardinality(used_credits) then
            is_admitted := false;
            return;
        end if;
    end if;
    now_ms := coalesce(told_ms, floor(date_part('epoch', clock_timestamp()) * 1000)::bigint);
    if is_plain and cardinality(ids) = 1 then
        -- One job alone, as most appends are: three plain inserts cost half of what one
        -- statement for any number does.
        entered := 0;
        due_ms := now_ms + greatest(0, delays_ms[1]);
        insert into backlane.job (seq, place, enqueued_ms, predicted_ms, queue, lane, size,
            attempts, priority, id, task, parent, workflow, policy, headers, body)
        values (nextval('backlane.job_seq'), due_ms, now_ms, predicted[1], queues[1], lanes[1],
            sizes[1], allowed[1], priorities[1], ids[1], tasks[1], parents[1], workflows[1],
            policies[1], headings[1], bodies[1])
        on conflict (id) do nothing
        returning seq into first_seq;
        if first_seq is null then
            first_seq := 9223372036854775807;
            return;
        end if;
        entered := 1;
        if due_ms > now_ms then
            insert into backlane.scheduled (due_ms, seq, token, queue, lane, attempt, revision,
                crashes, size, priority)
            values (due_ms, first_seq, 0, queues[1], lanes[1], 0, 1, 0, sizes[1], priorities[1]);
            insert into backlane.tally (queue, priority, credit, scheduled, bytes, appended)
            values (queues[1], priorities[1], used_credits[1], 1, sizes[1], 1);
        else
            insert into backlane.ready (place, seq, token, queue, lane, attempt, revision,
                crashes, size, rank, priority)
            values (due_ms, first_seq, 0, queues[1], lanes[1], 0, 1, 0, sizes[1],
                9 - priorities[1], priorities[1]);
            insert into backlane.tally (queue, priority, credit, ready, bytes, appended)
            values (queues[1], priorities[1], used_credits[1], 1, sizes[1], 1);
        end if;
        return;
    end if;
    seqs := array(select nextval('backlane.job_seq') from generate_series(1, cardinality(ids)));
    first_seq := seqs[1];
    if names is not null then
        with keyed as (
            insert into backlane.unique_key as held (seq, digest, id, until_ms, hold)
            select seq, backlane.digest(scope, name), id, now_ms + window_ms, coalesce(hold, 0)
            from unnest(seqs, ids, scopes, names, windows_ms, holds)
                as given (seq, id, scope, name, window_ms, hold)
            where name is not null
            order by 2                      -- so that two batches never wait for each other
            on conflict (digest) do update
            set seq = excluded.seq,
                id = excluded.id,
                until_ms = excluded.until_ms,
                hold = excluded.hold
            where held.until_ms <= enter.now_ms  -- its window is over
            returning held.seq
        )
        select coalesce(array_agg(given.seq), '{}') into lost
        from unnest(seqs, names) as given (seq, name)
        where name is not null
        and not exists (select 1 from keyed where keyed.seq = given.seq);
    end if;
    if is_plain then
        with job as (
            insert into backlane.job (seq, place, enqueued_ms, predicted_ms, queue, lane, size,
                attempts, priority, id, task, parent, workflow, policy, headers, body)
            select seq, now_ms + greatest(0, coalesce(delay, delays_ms[1])), now_ms,
                predicted_ms, coalesce(queue, queues[1]), coalesce(lane, lanes[1]), size,
                coalesce(attempts, allowed[1]), coalesce(priority, priorities[1]), id,
                case when cardinality(tasks) = 1 then tasks[1] else task end, parent, workflow,
                policy, headers, body
            from unnest(seqs, ids, queues, lanes, priorities, delays_ms, allowed, sizes,
                predicted, tasks, parents, workflows, policies, headings, bodies) as given (seq,
                id, queue, lane, priority, delay, attempts, size, predicted_ms, task, parent,
                workflow, policy, headers, body)
            on conflict (id) do nothing
            returning seq, place, queue, lane, size, priority
        ),
        ready as (
            insert into backlane.ready (place, seq, token, queue, lane, attempt, revision,
                crashes, size, rank, priority)
            select place, seq, 0, queue, lane, 0, 1, 0, size, 9 - priority, priority
            from job
            where place <= enter.now_ms
        ),
        scheduled as (
            insert into backlane.scheduled (due_ms, seq, token, queue, lane, attempt, revision,
                crashes, size, priority)
            select place, seq, 0, queue, lane, 0, 1, 0, size, priority
            from job
            where place > enter.now_ms
        ),
        tallied as (
            insert into backlane.tally (queue, priority, credit, scheduled, ready, bytes, appended)
            select job.queue, priority, max(credit.id),
                nullif(count(*) filter (where place > enter.now_ms), 0),
                nullif(count(*) filter (where place <= enter.now_ms), 0), sum(size), count(*)
            from job
            left join unnest(of_queues, used_credits) as credit (queue, id)
            on credit.queue = job.queue
            group by job.queue, priority
        )
        select count(*) into entered from job;
        return;
    end if;
    with job as (
        insert into backlane.job (seq, place, enqueued_ms, deadline_ms, predicted_ms, queue, lane,
            size, attempts, priority, id, task, key_scope, key_name, group_name, parent, policy,
            headers, body, extra, gates, limits, workflow, keep_ms, traits)
        select seq, now_ms + greatest(0, coalesce(delay, delays_ms[1])), now_ms, now_ms + life,
            predicted_ms, coalesce(queue, queues[1]), coalesce(lane, lanes[1]), size,
            coalesce(attempts, allowed[1]), coalesce(priority, priorities[1]), id,
            case when cardinality(tasks) = 1 then tasks[1] else task end, scope, name,
            group_name, parent, policy, headers, body, extra, given.gates::bigint[],
            given.limits::int[], workflow, keep_ms, mark
        from unnest(seqs, ids, queues, lanes, priorities, delays_ms, allowed, sizes, predicted,
            tasks, parents, policies, headings, bodies, lives_ms, scopes, names, groups, extras,
            gates, limits, workflows, keeps_ms, marks)
            as given (seq, id, queue, lane, priority, delay, attempts, size, predicted_ms, task,
            parent, policy, headers, body, life, scope, name, group_name, extra, gates, limits,
            workflow, keep_ms, mark)
        where seq <> all (lost)
        on conflict (id) do nothing
        returning seq, place, deadline_ms, queue, lane, size, priority, group_name, id
    ),
    ready as (
        insert into backlane.ready (place, seq, token, queue, lane, attempt, revision, crashes,
            size, rank, priority)
        select place, seq, 0, queue, lane, 0, 1, 0, size, 9 - priority, priority
        from job
        where place <= enter.now_ms
        and not is_odd
    ),
    scheduled as (
        insert into backlane.scheduled (due_ms, seq, token, queue, lane, attempt, revision,
            crashes, size, priority)
        select place, seq, 0, queue, lane, 0, 1, 0, size, priority
        from job
        where place > enter.now_ms
        and not is_odd
    ),
    deadline as (
        insert into backlane.deadline (deadline_ms, seq)
        select deadline_ms, seq
        from job
        where deadline_ms is not null
    ),
    tagged as (
        insert into backlane.tag (seq, name)
        select job.seq, given.name
        from unnest(tags_of, tag_names) as given (at, name)
        join job on job.id = ids[at]
    ),
    gathered as (
        insert into backlane.group_tally (queue, jobs, name)
        select queue, count(*), group_name
        from job
        where group_name is not null
        group by queue, group_name
    ),
    tallied as (
        insert into backlane.tally (queue, priority, credit, scheduled, ready, bytes, appended)
        select job.queue, priority, max(credit.id),
            nullif(count(*) filter (where place > enter.now_ms and not is_odd), 0),
            nullif(count(*) filter (where place <= enter.now_ms and not is_odd), 0), sum(size),
            count(*)
        from job
        left join unnest(of_queues, used_credits) as credit (queue, id)
        on credit.queue = job.queue
        group by job.queue, priority
    )
    select count(*) into entered from job;
    if is_odd then
        perform backlane.get_in_line(now_ms, coalesce(told_boot_ms, now_ms), array(
            select (
                seq, 0, null, 0, 1, 0, place, place, (coalesce(traits, 0) & 2) / 2
            )::backlane.waiter
            from backlane.job
            where seq = any (seqs)
            order by seq
        ), may_hold => may_hold);
    end if;
    if edges_of is not null then
        perform backlane.tie(
            now_ms, told_boot_ms, array_agg(job.seq), array_agg(given.awaited),
            array_agg(given.hope), false, may_hold
        )
        from unnest(edges_of, awaited, hopes) as given (at, awaited, hope)
        join backlane.job on job.seq = seqs[at]
        having count(*) > 0;
    end if;
    -- A key was taken for a job whose id was known: another's, in the same moment.
    if entered < cardinality(ids) - cardinality(lost) and names is not null then
        delete from backlane.unique_key
        where seq = any (seqs)
        and not exists (select 1 from backlane.job where job.seq = unique_key.seq);
    end if;
end
$$;

-- Places of queues, and what an append is judged by. All in one snapshot: what is used of
-- a credit counts where it is used from the same moment on that it is open no more.
create function backlane.lines(wanted text[])
returns table (
    id int, name text, kind text, declared_jobs bigint, declared_bytes bigint,
    declared_wait_ms bigint, declared_share float8, tuned_jobs bigint, tuned_bytes bigint,
    tuned_wait_ms bigint, tuned_share float8, scheduled bigint, bytes bigint, ready bigint[],
    running bigint, open_jobs bigint, open_bytes bigint, booked_jobs bigint,
    booked_bytes bigint, parts bigint, is_fair boolean
)
language sql stable
as $$
    with line as materialized (
        select * from backlane.queue where queue.name = any (wanted)
    ),
    part as materialized (
        -- What is blocked takes up a place as what is scheduled does.
        select counter.queue, counter.priority, counter.scheduled + counter.blocked as scheduled,
            counter.ready, counter.running, counter.bytes, null::bigint as credit,
            null::bigint as used
        from backlane.counter
        where counter.queue = any (array(select line.id from line))
        union all
        select tally.queue, tally.priority,
            coalesce(tally.scheduled, 0) + coalesce(tally.blocked, 0), tally.ready, tally.running,
            tally.bytes, tally.credit, tally.appended
        from backlane.tally
        where tally.queue = any (array(select line.id from line))
    ),
    counted as (
        select part.queue, part.priority, sum(part.scheduled)::bigint as scheduled,
            sum(part.ready)::bigint as ready, sum(part.running)::bigint as running,
            sum(part.bytes)::bigint as bytes, count(*) as parts
        from part
        group by part.queue, part.priority
    ),
    open as (
        select credit.queue,
            sum(credit.jobs - coalesce(spent.jobs, 0)) filter (where xid is null) as jobs,
            sum(credit.bytes - coalesce(spent.bytes, 0)) filter (where xid is null) as bytes,
            sum(credit.jobs) filter (where xid is not null) as booked_jobs,
            sum(credit.bytes) filter (where xid is not null) as booked_bytes
        from backlane.credit
        left join (
            select part.credit, sum(part.used) as jobs, sum(part.bytes) as bytes
            from part
            where part.credit is not null
            group by part.credit
        ) as spent
        on spent.credit = credit.id
        where credit.queue = any (array(select line.id from line))
        and (credit.xid is null
            or not pg_visible_in_snapshot(credit.xid, pg_current_snapshot()))
        group by credit.queue
    )
    select line.id, line.name, line.kind, line.declared_jobs, line.declared_bytes,
        line.declared_wait_ms, line.declared_share, line.tuned_jobs, line.tuned_bytes,
        line.tuned_wait_ms, line.tuned_share,
        coalesce(sum(counted.scheduled), 0)::bigint, coalesce(sum(counted.bytes), 0)::bigint,
        array(
            select coalesce(sum(one.ready), 0)::bigint
            from generate_series(0, 9) as level
            left join counted as one on one.queue = line.id and one.priority = level
            group by level
            order by level
        ),
        coalesce(sum(counted.running), 0)::bigint,
        coalesce(max(open.jobs), 0)::bigint, coalesce(max(open.bytes), 0)::bigint,
        coalesce(max(open.booked_jobs), 0)::bigint, coalesce(max(open.booked_bytes), 0)::bigint,
        coalesce(sum(counted.parts), 0)::bigint, line.is_fair
    from line
    left join counted on counted.queue = line.id
    left join open on open.queue = line.id
    group by line.id, line.name, line.kind, line.declared_jobs, line.declared_bytes,
        line.declared_wait_ms, line.declared_share, line.tuned_jobs, line.tuned_bytes,
        line.tuned_wait_ms, line.tuned_share, line.is_fair
$$;
