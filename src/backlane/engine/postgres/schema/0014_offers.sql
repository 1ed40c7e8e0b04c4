-- Offers: ready jobs that a transport is carrying to a worker.
--
-- A mark is beside the job's row in `ready`, which knows nothing of it: appends, claims and
-- what else takes jobs out of ready cost what they cost without a transport, and wait for
-- nobody here. So a mark may outlive what it stands for. It stands while the row is in `ready`
-- with the same token and revision (one more: it was changed where it is); whoever offers
-- looks at all marks of his line anyway, and drops those that stand no more.
--
-- They need not survive a crash, so nothing of them goes to the log, and to commit them costs
-- no write to the disk.
create unlogged table backlane.offered (
    at_ms bigint not null,                  -- when, by the wall clock
    place bigint not null,                  -- the key of its row in `ready`, as it was then
    seq bigint not null,
    token bigint not null,
    queue int not null,
    lane int not null,
    revision int not null,
    rank smallint not null,
    half smallint not null                  -- of the lane: 0 shared, 1 exclusive
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 1, autovacuum_analyze_threshold = 100000,
    vacuum_truncate = off);
create index offered_line on backlane.offered (queue, half, at_ms);

-- One row of the answer to an offer: a job that is named; or (job is null) what there is to
-- say of one of the offers, or of all (offer 0). `numbers` of one: its queue, whether more
-- wait behind a window that is full, whether an offer is doubtful, before when no mark
-- stands, whether the line is longer than was looked at, and where it began: lane, rank,
-- place and seq of the first job of each lane and rank. Of all: the time, the wait until
-- something is due, how many of `ids` are buried (the others lapsed) and how long it took
-- to look (microseconds).
create type backlane.named as (
    offer int,
    job bytea,
    group_name text,
    numbers bigint[],
    ids bytea[],
    rung int[]
);

-- Who offers jobs of a queue, or takes that back, waits for others who do.
create function backlane.lock_offers(queues int[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    one int;
begin
    for one in select distinct id from unnest(queues) as id order by id loop
        perform pg_advisory_xact_lock(
            ('backlane.offered'::regclass::oid::bigint << 32) | one::bigint
        );
    end loop;
end
$$;

-- Which of these rows of `ready` nobody holds.
create function backlane.unheld(spots tid[]) returns tid[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    return array(
        select held.spot
        from (
            select ctid as spot
            from backlane.ready
            where ctid = any (spots)
            for update skip locked
        ) as held
    );
end
$$;

-- One offer: marks that stand no more are dropped, then as many jobs are named as there is
-- room for. The queue is locked (`lock_offers`).
create function backlane.offer_line(
    nth int,
    now_ms bigint,
    for_ms bigint,
    of_queue int,
    of_half int,
    most int,                               -- offers at a time; null: none is named now
    own_room bigint,                        -- of the queue's own limit; null: any number
    void_ms bigint,
    since_ms bigint,                        -- no mark before it stands
    lanes int[],
    places bigint[],                        -- where to begin: ten for each lane
    seqs bigint[],
    limits int[],                           -- how many more of the lane may be named; null: any
    may_lock boolean
)
returns setof backlane.named
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    looked_at int;
begin
    select greatest(coalesce(most, 0), count(*)) + 1 into looked_at
    from backlane.offered
    where offered.queue = of_queue
    and offered.half = of_half
    and offered.at_ms >= since_ms;
    return query
    with mark as materialized (
        select offered.ctid as spot, offered.*,
            coalesce(
                (at_ms < void_ms or (void_ms is not null and at_ms > offer_line.now_ms))
                    and abs(offer_line.now_ms - at_ms) > for_ms,
                false
            ) as is_void
        from backlane.offered
        where offered.queue = of_queue
        and offered.half = of_half
        and offered.at_ms >= since_ms
    ),
    line as materialized (
        select its.*
        from generate_series(1, cardinality(lanes)) as at
        cross join lateral (
            select one.*
            from generate_series(0, 9) as level
            cross join lateral (
                select ready.lane, ready.rank, ready.place, ready.seq, ready.token,
                    ready.revision, ready.ctid as row_spot, ready.xmax = '0'::xid as is_free,
                    limits[at] as may_be
                from backlane.ready
                where ready.queue = of_queue
                and ready.lane = lanes[at]
                and ready.rank = level
                and (ready.place, ready.seq) > (places[10 * at + level - 9],
                    seqs[10 * at + level - 9])
                order by ready.place, ready.seq
                limit looked_at
            ) as one
            limit looked_at
        ) as its
        order by its.rank, its.place, its.seq
        -- Those of a resource on trial leave room for the others.
        limit looked_at * (1 + (select count(*) from unnest(limits) as it where it is not null))
    ),
    -- No other kind of join does this than one of time n log n.
    matched as materialized (
        select mark.spot, mark.at_ms, mark.seq as mark_seq, mark.token as mark_token,
            mark.revision as mark_revision, mark.lane as mark_lane, mark.rank as mark_rank,
            mark.place as mark_place, line.*,
            coalesce(
                line.token = mark.token and line.revision - mark.revision in (0, 1), false
            ) as stands
        from (select * from mark where not is_void) as mark
        full join line on line.seq = mark.seq
    ),
    -- Marks of jobs that are not at the head of the line: taken, as a rule.
    astray as materialized (
        select spot, at_ms, mark_seq as seq, mark_token as token, its.lane, its.rank, its.place,
            its.revision,
            (its.lane, its.rank, its.place, its.revision)
                is distinct from (mark_lane, mark_rank, mark_place, mark_revision) as has_moved
        from matched
        cross join lateral (
            (select ready.lane, ready.rank, ready.place, ready.revision
            from backlane.ready
            where ready.queue = of_queue
            and ready.lane = mark_lane
            and ready.rank = mark_rank
            and ready.place = mark_place
            and ready.seq = mark_seq
            and ready.token = mark_token
            and ready.revision - mark_revision in (0, 1))
            union all
            -- It may have been raised, or given another priority, since.
            (select there.lane, there.rank, there.place, there.revision
            from backlane.job
            cross join lateral (
                select *
                from backlane.ready
                where ready.queue = of_queue
                and ready.lane = job.lane
                and ready.rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
                and ready.place = job.place
                and ready.seq = mark_seq
                limit 1
            ) as there
            where job.seq = mark_seq
            and job.lane & 1 = of_half
            and there.token = mark_token
            and there.revision - mark_revision in (0, 1))
            limit 1
        ) as its
        where matched.seq is null
    ),
    kept as materialized (
        select spot, at_ms, seq, token, lane, rank, place, revision,
            (lane, rank, place, revision)
                is distinct from (mark_lane, mark_rank, mark_place, mark_revision) as has_moved
        from matched
        where stands
        union all
        select * from astray
    ),
    waiting as materialized (
        select matched.*,
            row_number() over (partition by lane >> 1 order by rank, place, seq) as its_nth
        from matched
        where matched.seq is not null
        and not stands
    ),
    able as materialized (
        select *
        from waiting
        where its_nth <= coalesce(may_be, 2147483647)
        and (
            is_free
            or (may_lock and row_spot = any (array(
                select unnest(backlane.unheld(array(
                    select row_spot from waiting where not is_free
                )))
            )))
        )
    ),
    named as materialized (
        select *
        from able
        order by rank, place, seq
        limit (
            select case
                when most is null then 0
                else greatest(0, least(most - count(*), own_room - count(*)))
            end
            from kept
        )
    ),
    gone as (
        delete from backlane.offered
        where ctid = any (array(
            select spot from mark
            except
            select spot from kept where not has_moved
        ))
    ),
    come as (
        insert into backlane.offered (at_ms, place, seq, token, queue, lane, revision, rank, half)
        select at_ms, place, seq, token, of_queue, lane, revision, rank, of_half
        from kept
        where has_moved
        union all
        select offer_line.now_ms, place, seq, token, of_queue, lane, revision, rank, of_half
        from named
    )
    select offer_line.nth, its.id, its.group_name, null::bigint[], null::bytea[], null::int[]
    from (select * from named order by rank, place, seq) as named
    cross join lateral (
        select id, group_name
        from backlane.job
        where job.seq = named.seq
        limit 1
    ) as its
    union all
    select offer_line.nth, null, null,
        array[
            of_queue,
            ((select count(*) from kept) + (select count(*) from named) >= most
                and (select count(*) from able) > (select count(*) from named))::int,
            exists (
                select 1 from kept where abs(offer_line.now_ms - at_ms) > for_ms
            )::int,
            least(offer_line.now_ms - 1000, (select min(at_ms) from kept)),
            ((select count(*) from line) >= looked_at)::int
        ] || array(
            select unnest(array[first.lane, first.rank, first.place, first.seq])
            from (
                select distinct on (lane, rank) lane, rank, place, seq
                from line
                order by lane, rank, place, seq
            ) as first
        ),
        null, null;
end
$$;

-- Offers of some queues. No row, and nothing done: there are resources that are down, of
-- which it must be told how many may be taken (`rooms_of` is null).
create function backlane.offer(
    told_ms bigint,
    told_boot_ms bigint,
    for_ms bigint,
    names text[],                           -- from here on: of each offer
    halves int[],
    windows int[],
    voids_ms bigint[],
    marks_since_ms bigint[],
    since_ms bigint,                        -- what was due or lapsed before has been brought in
    floor_offers int[],                     -- where the lines of some offers begin
    floor_lanes int[],
    floor_ranks int[],
    floor_places bigint[],
    floor_seqs bigint[],
    rooms_of int[],                         -- resources of which only some may be taken
    rooms int[]
)
returns setof backlane.named
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    wall bigint := coalesce(told_ms, backlane.now_ms());
    boot bigint := coalesce(told_boot_ms, wall);
    lowest constant bigint := -9223372036854775808;
    is_worker boolean;                      -- else what is due is for others to bring in
    is_sealed boolean;
    kinds text[];
    of_kind text;
    one record;
    said record;
    due_ms bigint;
    buried bytea[] := '{}';
    gone bytea[] := '{}';
    rung int[] := '{}';
    began timestamptz;
    room bigint;
    lanes int[];
    limits int[];
    places bigint[];
    seqs bigint[];
begin
    if rooms_of is null and exists (
        select 1 from backlane.resource where state <> 'closed'
    ) then
        return;
    end if;
    is_worker := has_table_privilege('backlane.scheduled'::regclass, 'delete');
    if is_worker then
        kinds := array(
            select distinct queue.kind from backlane.queue where queue.name = any (names)
        );
        foreach of_kind in array case when kinds = '{}' then '{tasks}' else kinds end loop
            select turned.more_ids, turned.numbers, turned.queues[
                cardinality(coalesce(turned.names, '{}')) + 2:
            ] as rung into said
            from backlane.claim(
                1, told_ms, told_boot_ms, '', 0, 0, of_kind, null, names, '{}', '{}', since_ms,
                '{}', '{}', '{}', '{}', '{}', '{}', true
            ) as turned
            where turned.job is null;
            due_ms := least(due_ms, said.numbers[1]);
            buried := buried || said.more_ids[:said.numbers[4]];
            gone := gone || said.more_ids[said.numbers[4] + 1:];
            rung := rung || said.rung;
        end loop;
    end if;
    is_sealed := exists (select 1 from backlane.meta where name = 'seal' and value is not null);
    perform backlane.lock_offers(array(
        select id from backlane.queue where queue.name = any (names)
    ));
    began := clock_timestamp();
    for one in
        select given.*, queue.id, queue.limit_no, queue.paused
        from unnest(names, halves, windows, voids_ms, marks_since_ms) with ordinality
            as given (name, half, most, void_ms, marks_ms, nth)
        join backlane.queue on queue.name = given.name
        order by given.nth
    loop
        room := null;
        if one.limit_no is not null then
            -- Of the other half those that stand are counted as well.
            perform backlane.offer_line(
                0, wall, for_ms, one.id, 1 - one.half, null, null, null, lowest, '{}', '{}',
                '{}', '{}', false
            );
            room := backlane.room_of(
                one.limit_no, backlane.gate(one.limit_no, ''), wall, boot,
                (select count(*) from backlane.lease where lease.queue = one.id)
            ) - (
                select count(*)
                from backlane.offered
                where offered.queue = one.id
                and offered.half = 1 - one.half
            );
        end if;
        select array_agg(its.lane), array_agg(its.most) into lanes, limits
        from (
            select one.half as lane, null::int as most
            union all
            select 2 * resource.id + one.half, rooms[array_position(rooms_of, resource.id)]
            from backlane.resource
        ) as its
        where coalesce(its.most, 1) > 0;
        select array_agg(coalesce(floor.place, lowest) order by at, level),
            array_agg(coalesce(floor.seq, lowest) order by at, level)
        into places, seqs
        from generate_series(1, cardinality(lanes)) as at
        cross join generate_series(0, 9) as level
        left join unnest(floor_offers, floor_lanes, floor_ranks, floor_places, floor_seqs)
            as floor (offer, lane, rank, place, seq)
        on floor.offer = one.nth
        and floor.lane = lanes[at]
        and floor.rank = level
        and rung = '{}';                    -- else some went to their places, wherever they lie
        return query
        select *
        from backlane.offer_line(
            one.nth::int, wall, for_ms, one.id, one.half,
            case when not one.paused and not is_sealed then one.most end,
            room, one.void_ms, one.marks_ms, lanes, places, seqs, limits, is_worker
        );
    end loop;
    return next row(
        0, null, null,
        array[
            wall, due_ms, cardinality(buried),
            (extract(epoch from clock_timestamp() - began) * 1000000)::bigint
        ],
        buried || array_remove(gone, null), rung
    )::backlane.named;
end
$$;

-- These are offered no more.
create function backlane.withdraw(jobs bytea[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    of_queues int[];
    seqs bigint[];
begin
    select array_agg(distinct queue), array_agg(seq) into of_queues, seqs
    from backlane.job
    where id = any (jobs);
    if seqs is null then
        return;
    end if;
    perform backlane.lock_offers(of_queues);
    delete from backlane.offered
    where queue = any (of_queues)
    and half in (0, 1)
    and seq = any (seqs);
end
$$;
