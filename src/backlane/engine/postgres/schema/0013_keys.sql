-- Keys: jobs that never started take the arguments of those that met their key held. As the
-- owner, for producers do so when they append, and may not touch jobs that wait.

-- Those of these jobs that wait and were never leased, held where they are.
create function backlane.hold_unstarted(ids bytea[])
returns table (job_id bytea, queue_name text, job_size int)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    one bytea;
    it backlane.job;
    fence bigint;                           -- its token, where it waits
begin
    foreach one in array array(select distinct id from unnest(ids) as given (id) order by id) loop
        -- Between the look at it and the lock on its row it may go elsewhere.
        for look in 1 .. 20 loop
            select * into it from backlane.job where job.id = one;
            exit when not found;
            select token into fence
            from backlane.ready
            where ready.queue = it.queue
            and ready.lane = it.lane
            and ready.rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
            and ready.place = it.place
            and ready.seq = it.seq
            for update;
            if not found then
                select token into fence
                from backlane.scheduled
                where scheduled.due_ms = it.place
                and scheduled.seq = it.seq
                for update;
            end if;
            if not found then
                select token into fence
                from backlane.blocked
                where blocked.seq = it.seq
                for update;
            end if;
            if found and fence = 0 then
                job_id := one;
                queue_name := (select name from backlane.queue where queue.id = it.queue);
                job_size := it.size;
                return next;
            end if;
            exit when found
                or exists (select 1 from backlane.lease where lease.id = one)
                or exists (select 1 from backlane.ended where ended.seq = it.seq);
        end loop;
    end loop;
end
$$;

-- They take these arguments, and are due then; those that are told of did. Where that is now
-- or past, one that is due already keeps its place.
create function backlane.supplant(
    now_ms bigint,
    boot_ms bigint,
    ids bytea[],
    bodies bytea[],
    headings bytea[],
    delays_ms bigint[],
    mosts_ms bigint[],                      -- after its append; null: any time
    may_hold boolean
)
returns table (job_id bytea, queue_name text)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    those record;
    it backlane.job;
    new_size int;
    grown int;
    delay bigint;
    freed backlane.waiter[];
begin
    for those in
        select held.job_id as id, held.queue_name, given.body, given.headers, given.delay_ms,
            given.most_ms
        from backlane.hold_unstarted(ids) as held
        join unnest(ids, bodies, headings, delays_ms, mosts_ms)
            as given (id, body, headers, delay_ms, most_ms) on given.id = held.job_id
    loop
        select * into it from backlane.job where job.id = those.id;
        delay := least(those.delay_ms, it.enqueued_ms + those.most_ms - supplant.now_ms);
        new_size := length(those.body) + coalesce(length(those.headers), 0);
        grown := new_size - it.size;
        update backlane.job
        set body = those.body,
            headers = those.headers,
            size = new_size
        where job.seq = it.seq;
        if delay <= 0 and coalesce(it.due_ms, it.place) <= supplant.now_ms then
            update backlane.ready
            set revision = revision + 1, size = new_size
            where ready.queue = it.queue
            and ready.lane = it.lane
            and ready.rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
            and ready.place = it.place
            and ready.seq = it.seq;
            update backlane.scheduled
            set revision = revision + 1, size = new_size
            where scheduled.due_ms = it.place
            and scheduled.seq = it.seq;
            update backlane.blocked
            set revision = revision + 1, size = new_size
            where blocked.seq = it.seq;
            insert into backlane.tally (queue, priority, bytes)
            values (it.queue, it.priority, grown);
        else
            with unready as (
                delete from backlane.ready
                where ready.queue = it.queue
                and ready.lane = it.lane
                and ready.rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
                and ready.place = it.place
                and ready.seq = it.seq
                returning parked_ms, attempt, revision, crashes, 0 as waits_for, 7 as state
            ),
            unscheduled as (
                delete from backlane.scheduled
                where scheduled.due_ms = it.place
                and scheduled.seq = it.seq
                returning parked_ms, attempt, revision, crashes, 0 as waits_for, 6 as state
            ),
            unblocked as (
                delete from backlane.blocked
                where blocked.seq = it.seq
                returning parked_ms, attempt, revision, crashes, waits_for, 8 as state
            ),
            gone as materialized (
                select * from unready
                union all
                select * from unscheduled
                union all
                select * from unblocked
            ),
            counted as (
                insert into backlane.tally (queue, priority, ready, scheduled, blocked, bytes)
                select it.queue, it.priority, case state when 7 then -1 end,
                    case state when 6 then -1 end, case state when 8 then -1 end, grown
                from gone
            )
            select array_agg((
                it.seq, 0, parked_ms, attempt, revision + 1, crashes,
                supplant.now_ms + greatest(0, delay), null, waits_for
            )::backlane.waiter)
            into freed
            from gone;
            perform backlane.get_in_line(
                supplant.now_ms, coalesce(supplant.boot_ms, supplant.now_ms), freed,
                may_hold => supplant.may_hold
            );
        end if;
        job_id := those.id;
        queue_name := those.queue_name;
        return next;
    end loop;
end
$$;

revoke execute on function backlane.hold_unstarted from public;
revoke execute on function backlane.supplant from public;
