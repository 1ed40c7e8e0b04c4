-- One row of the answer to a turn: a lease that was given, or (job is null) what there is
-- to say of a claim or of the settling (wanted 0) as a whole.
create type backlane.turned as (
    wanted int,
    job bytea,
    token bigint,
    attempt int,
    queue int,
    task text,
    body bytea,
    headers bytea,
    priority smallint,
    lane int,
    policy bytea,
    group_name text,
    enqueued_ms bigint,
    deadline_ms bigint,
    parked_ms bigint,                       -- for how long no worker has known its task
    crashes int,
    rank smallint,
    place bigint,
    seq bigint,
    ids bytea[],
    more_ids bytea[],
    numbers bigint[],
    queues int[],
    names text[]
);

-- Due jobs come into ready, `most` at a time; whoever else does the same takes others.
-- The queues that got some are returned.
create function backlane.promote(
    now_ms bigint,
    since_ms bigint,
    most int,
    boot_ms bigint default null
)
returns int[]
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    rung int[];
    gated backlane.waiter[];                -- how these wait is for `get_in_line` to say
    fair int[] := array(select id from backlane.queue where is_fair);
begin
    with due as materialized (
        select scheduled.ctid as at
        from backlane.scheduled
        where due_ms > since_ms
        and due_ms <= promote.now_ms
        order by due_ms, seq
        limit most
        for update skip locked
    ),
    gone as materialized (
        delete from backlane.scheduled
        using due
        where scheduled.ctid = due.at
        returning scheduled.*
    ),
    come as (
        insert into backlane.ready (place, seq, token, parked_ms, queue, lane, attempt, revision,
            crashes, size, rank, priority)
        select due_ms, seq, token, parked_ms, queue, lane, attempt, revision + 1, crashes, size,
            9 - priority, priority
        from gone
        where is_gated is null
        and queue <> all (fair)
    ),
    counted as (
        insert into backlane.tally (queue, priority, scheduled, ready)
        select queue, priority, -count(*),
            nullif(count(*) filter (where is_gated is null and queue <> all (fair)), 0)
        from gone
        group by queue, priority
    )
    select array_agg(distinct queue),
        array_agg((
            seq, token, parked_ms, attempt, revision + 1, crashes, due_ms, null, 0
        )::backlane.waiter order by due_ms, seq)
            filter (where is_gated or queue = any (fair))
    into rung, gated
    from gone;
    if gated is not null then
        perform backlane.get_in_line(now_ms, coalesce(boot_ms, now_ms), gated);
    end if;
    return rung;
end
$$;

-- The first in line of these sources (a lane of a queue each) together: locked, and where
-- they are. `floors` hold for each source and rank (ten a source) the last position that
-- was taken: what lies before is dead rows, as a rule, and under a snapshot held elsewhere
-- nobody may clear those away.
create function backlane.heads(
    number int,
    sources int[],
    lanes int[],
    floor_places bigint[],
    floor_seqs bigint[],
    rooms_of int[],                         -- resources of which only some may be taken
    rooms int[],
    plain_only boolean,                     -- another claim is at a limit of the others
    out spots tid[],
    out are_gated boolean                   -- some of them
)
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    the_queue int := sources[1];
    the_lane int := lanes[1];
begin
    if cardinality(sources) = 1 and rooms_of = '{}' then
        -- Lazily, rank by rank: locked is what is taken, and nothing behind it.
        select array_agg(at), bool_or(is_gated) into spots, are_gated
        from (
            select one.at, one.is_gated
            from generate_series(0, 9) as level
            cross join lateral (
                select ready.ctid as at, ready.is_gated
                from backlane.ready
                where ready.queue = the_queue
                and ready.lane = the_lane
                and ready.rank = level
                and (ready.place, ready.seq) > (floor_places[level + 1], floor_seqs[level + 1])
                and (not plain_only or ready.is_gated is null)
                order by ready.place, ready.seq
                limit number
                for update skip locked
            ) as one
            limit number
        ) as head;
        return;
    end if;
    -- First look, then lock in the order of the line. More is looked at than is wanted, for
    -- other claimers look at the same.
    select array_agg(at), bool_or(is_gated) into spots, are_gated
    from (
        select held.at, held.is_gated
        from (
            select line.queue, line.lane, line.rank, line.place, line.seq
            from (
                select one.*,
                    case
                        when rooms_of = '{}' then 1
                        else row_number() over (
                            partition by one.lane >> 1
                            order by one.rank, one.place, one.seq
                        )
                    end as nth
                from generate_series(1, cardinality(sources)) as source
                cross join generate_series(0, 9) as level
                cross join lateral (
                    select ready.queue, ready.lane, ready.rank, ready.place, ready.seq
                    from backlane.ready
                    where ready.queue = sources[source]
                    and ready.lane = lanes[source]
                    and ready.rank = level
                    and (ready.place, ready.seq) > (
                        floor_places[10 * source + level - 9],
                        floor_seqs[10 * source + level - 9]
                    )
                    and (not plain_only or ready.is_gated is null)
                    order by ready.place, ready.seq
                    limit number + 200
                ) as one
            ) as line
            where line.nth <= coalesce(
                rooms[array_position(rooms_of, line.lane >> 1)],
                2147483647
            )
            order by line.rank, line.place, line.seq
            limit number + 200
        ) as line
        cross join lateral (
            select ready.ctid as at, ready.is_gated
            from backlane.ready
            where ready.queue = line.queue
            and ready.lane = line.lane
            and ready.rank = line.rank
            and ready.place = line.place
            and ready.seq = line.seq
            for update skip locked
        ) as held
        limit number
    ) as head;
end
$$;

-- Of what was locked, what is past its deadline: it leaves ready and ends unrun (`ids` is
-- then its id, and it is no lease).
create function backlane.end_late(wanted int, now_ms bigint, spots tid[])
returns setof backlane.turned
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
    with gone as materialized (
        delete from backlane.ready
        using backlane.job
        where ready.ctid = any (spots)
        and job.seq = ready.seq
        and job.deadline_ms <= end_late.now_ms
        returning ready.*, job.id
    ),
    expired as (
        insert into backlane.finished (seq, token, ended_ms, ran_ms, queue, attempt, revision,
            state)
        select seq, token, end_late.now_ms, 0, queue, attempt, revision + 1, 4
        from gone
    ),
    counted as (
        insert into backlane.tally (queue, priority, ready, bytes, expired, kept_done)
        select queue, priority, -count(*), -sum(size), count(*), count(*)
        from gone
        group by queue, priority
    )
    select end_late.wanted, id, token + 1, attempt, queue, null::text, null::bytea, null::bytea,
        priority, lane, null::bytea, null::text, null::bigint, null::bigint, null::bigint,
        crashes, rank, place, seq, array[id], null::bytea[], null::bigint[], null::int[],
        null::text[]
    from gone
    order by rank, place, seq;
end
$$;

-- Which of what was locked is past its deadline; null: nothing.
create function backlane.late_of(now_ms bigint, spots tid[]) returns bigint[]
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    return (
        select array_agg(seq)
        from backlane.ready
        join backlane.job using (seq)
        where ready.ctid = any (spots)
        and job.deadline_ms <= late_of.now_ms
    );
end
$$;

-- Leases of what was locked: rows leave ready. The row of `term` says how many there are.
create function backlane.give(
    wanted int,
    now_ms bigint,
    until_ms bigint,
    owner text,
    term bigint,
    spots tid[],
    odd_queues int[]                        -- fair or limited ones
)
returns setof backlane.turned
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
    with gone as materialized (
        delete from backlane.ready
        where ready.ctid = any (spots)
        returning ready.*
    ),
    held as materialized (
        select gone.queue, gone.lane, gone.rank, gone.place, gone.seq, gone.priority,
            gone.attempt, gone.token, gone.revision, gone.crashes, gone.parked_ms, gone.size,
            case
                when gone.is_gated or gone.queue = any (odd_queues) then true
            end as is_gated,
            job.id, job.task, job.body, job.headers, job.policy, job.group_name, job.key_name,
            job.enqueued_ms, job.deadline_ms, job.predicted_ms, job.traits, job.due_ms
        from gone
        join backlane.job on job.seq = gone.seq
    ),
    given as (
        insert into backlane.lease (seq, token, started_ms, place, until_ms, term, parked_ms,
            queue, lane, attempt, revision, crashes, size, priority, is_plain, is_gated, id,
            owner)
        select seq, token + 1, give.now_ms, place, give.until_ms, give.term, parked_ms, queue,
            lane, attempt, revision + 1, crashes, size, priority,
            key_name is null and deadline_ms is null and group_name is null
                and traits is null and is_gated is null,
            is_gated, id, give.owner
        from held
    ),
    begun as (
        insert into backlane.term (id, until_ms, leases, owner, keyed)
        select give.term, give.until_ms, count(*), give.owner,
            nullif(count(key_name) filter (where token = 0), 0)
        from held
        having count(*) > 0
    ),
    counted as (
        insert into backlane.tally (queue, priority, ready, running, started, foretold,
            foretold_ms, waited_ms)
        select queue, priority, -count(*), count(*), count(*),
            nullif(count(predicted_ms) filter (where token = 0), 0),
            sum(predicted_ms) filter (where token = 0),
            sum(greatest(0, give.now_ms - coalesce(due_ms, place))) filter (
                where token = 0 and predicted_ms is not null
            )
        from held
        group by queue, priority
    )
    select give.wanted, held.id, held.token + 1, held.attempt, held.queue, held.task, held.body,
        held.headers, held.priority, held.lane, held.policy, held.group_name, held.enqueued_ms,
        held.deadline_ms,
        case when held.parked_ms is not null then greatest(0, give.now_ms - held.parked_ms) end,
        held.crashes, held.rank, held.place, held.seq, null::bytea[], null::bytea[],
        null::bigint[], null::int[], null::text[]
    from held
    order by held.rank, held.place, held.seq;
end
$$;

-- Jobs begin that hold a key until they do so.
create function backlane.start_keyed(given_as bigint) returns void
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    delete from backlane.unique_key
    using backlane.lease, backlane.job
    where lease.term = given_as
    and not lease.is_plain
    and job.seq = lease.seq
    and job.key_name is not null
    and unique_key.digest = backlane.digest(job.key_scope, job.key_name)
    and unique_key.seq = job.seq
    and unique_key.until_ms is null
    and unique_key.hold = 1;
end
$$;

-- One claim: what is due or lapsed is brought in, then leases are given. The last row says
-- what there is to say: `ids` of this owner's jobs that are to stop, `more_ids` of those
-- buried and of all that lapsed, `numbers` the wait until something is due, how long a look
-- from the beginning took (µs; null: there was none), the time and how many of `more_ids`
-- are buried; `queues` and `names` are those that can be claimed from, and behind a null
-- in `queues` those that something was brought to.
create function backlane.claim(
    wanted int,
    told_ms bigint,
    told_boot_ms bigint,
    owner text,
    number int,
    lease_ms bigint,
    kind text,
    only_lane int,                          -- 0 or 1; null: both
    names text[],
    jobs bytea[],                           -- instead of names: these very jobs
    departed text[],
    since_ms bigint,                        -- what was due or lapsed before has been brought in
    floor_queues int[],
    floor_lanes int[],
    floor_places bigint[],                  -- ten for each
    floor_seqs bigint[],
    rooms_of int[],
    rooms int[],
    may_look boolean                        -- before the floors, should there be too few behind
)
returns setof backlane.turned
language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    wall bigint := coalesce(told_ms, backlane.now_ms());
    boot bigint := coalesce(told_boot_ms, wall);
    lowest constant bigint := -9223372036854775808;
    back record;
    gone bytea[];
    buried bytea[];
    rung int[] := '{}';
    brought int := 0;
    is_sealed boolean;
    open_queues int[];
    open_names text[];
    sources int[] := '{}';
    lanes int[] := '{}';
    places bigint[] := '{}';
    seqs bigint[] := '{}';
    found int;
    got int := 0;
    is_floored boolean := false;
    is_promoted boolean := false;
    began timestamptz;
    looked_us bigint;
    stopping bytea[];
    due_ms bigint;
    lapse_ms bigint;
    spots tid[];
    given_as bigint;                        -- the term of the leases
    begin_ms bigint;                        -- when their jobs begin
    one record;
    head record;
    has_limits boolean;                     -- does any limit have a name
    may_give int[];                         -- queues whose own limits have room
    odd_queues int[];                       -- fair or limited ones; null: there are none
    fair int[];
    limited int[] := '{}';                  -- queues with a limit of their own
    caps bigint[] := '{}';                  -- and how much room there is
    own record;
    awake record;
    sifted record;
    tied record;
    woken int[] := '{}';                    -- queues of jobs that waited for a limit
    moved int := 0;                         -- that waited for a limit, and wait no more
    late bigint[];
    ended bigint[] := '{}';                 -- past their deadlines
    keyed int;                              -- leases of jobs with keys
    stopped int := 0;                       -- that have to wait for one
    plain_only boolean := false;
    is_busy boolean := false;               -- another claim was at a limit
    token_ms bigint;                        -- until the next token that is waited for
begin
    -- What is over.
    select until_ms into lapse_ms
    from backlane.term
    where until_ms > since_ms
    order by until_ms
    limit 1;
    if lapse_ms <= boot or departed <> '{}' then
        select * into back from backlane.bring_back(wall, boot, departed, since_ms, 1000);
        brought := back.lapsed;
        gone := back.gone;
        buried := back.buried;
        rung := coalesce(back.rung, '{}');
        select until_ms into lapse_ms
        from backlane.term
        where until_ms > since_ms
        order by until_ms
        limit 1;
    end if;
    select scheduled.due_ms into due_ms
    from backlane.scheduled
    where scheduled.due_ms > since_ms
    order by scheduled.due_ms
    limit 1;
    if due_ms <= wall and brought < 1000 then
        rung := rung || coalesce(
            backlane.promote(wall, since_ms, 1000 - brought, boot), '{}'
        );
        is_promoted := true;
        select scheduled.due_ms into due_ms
        from backlane.scheduled
        where scheduled.due_ms > since_ms
        order by scheduled.due_ms
        limit 1;
    end if;
    -- What there is to take from.
    -- Locked first, so that no seal comes in between: it locks claims out (`seal.py`).
    lock table backlane.ready in row exclusive mode;
    select exists (select 1 from backlane.meta where name = 'seal' and value is not null),
        exists (select 1 from backlane.limits)
    into is_sealed, has_limits;
    if not is_sealed and (
        case
            when jobs = '{}' then number > 0 or has_limits
            -- Where they wait is looked up for the sake of these alone.
            else has_limits or exists (select 1 from backlane.queue where is_fair)
        end
    ) then
        select array_agg(id), array_agg(queue.name),
            array_agg(id) filter (where is_fair or limit_no is not null),
            array_agg(id) filter (where is_fair)
        into open_queues, open_names, odd_queues, fair
        from backlane.queue
        where queue.name = any (
            case
                when jobs = '{}' then names
                else backlane.queues_of(jobs)
            end
        )
        and queue.kind = kind
        and not paused;
        may_give := open_queues;
    end if;
    if has_limits and open_queues is not null then
        if odd_queues is not null then
            select * into own from backlane.own_rooms(odd_queues, wall, boot);
            limited := own.limited;
            caps := own.rooms;
            is_busy := own.is_busy;
            may_give := array(
                select id from unnest(open_queues) as id where id <> all (own.shut)
            );
        end if;
        if exists (select 1 from backlane.opening where queue = 0)
            or exists (select 1 from backlane.opening where queue = any (may_give))
            or exists (select 1 from backlane.holding where until_ms <= boot)
        then
            select * into awake from backlane.wake(may_give, wall, boot, 1000);
            is_busy := is_busy or awake.is_busy;
            moved := awake.moved;
            woken := awake.woken;
            rung := rung || woken;
        end if;
    end if;
    if number > 0 and not is_sealed then
        for one in
            select id as queue, of_kind.lane
            from unnest(may_give) as id
            cross join (
                select 0 as lane
                union all
                select 1
                union all
                select 2 * resource.id + half
                from backlane.resource
                cross join generate_series(0, 1) as half
            ) as of_kind
            where jobs = '{}'
            and (only_lane is null or of_kind.lane & 1 = only_lane)
            and coalesce(rooms[array_position(rooms_of, of_kind.lane >> 1)], 1) > 0
        loop
            found := null;
            for i in 1 .. cardinality(floor_queues) loop
                if floor_queues[i] = one.queue and floor_lanes[i] = one.lane then
                    found := i;
                end if;
            end loop;
            if one.queue = any (fair) then
                -- Whoever comes in there while others are claimed comes in before them.
                found := null;
            end if;
            sources := sources || one.queue;
            lanes := lanes || one.lane;
            if found is null then
                places := places || array_fill(lowest, array[10]);
                seqs := seqs || array_fill(lowest, array[10]);
            else
                places := places || floor_places[10 * found - 9:10 * found];
                seqs := seqs || floor_seqs[10 * found - 9:10 * found];
                is_floored := true;
            end if;
        end loop;
        if is_floored and (woken <> '{}' or brought > 0) then
            -- They went to their places, which may lie anywhere.
            is_floored := false;
            places := array_fill(lowest, array[cardinality(places)]);
            seqs := places;
        elsif is_promoted and is_floored then
            -- They went to their places, of which some may lie before a floor.
            places := array(
                select least(place, since_ms)
                from unnest(places) with ordinality as given (place, nth)
                order by nth
            );
        end if;
        while got < number and (sources <> '{}' or jobs <> '{}') loop
            if jobs <> '{}' then
                select * into head
                from backlane.picks(
                    number - got, wall, kind, only_lane, jobs, may_give, rooms_of, rooms,
                    plain_only
                );
            else
                if not is_floored then
                    began := clock_timestamp();
                end if;
                select * into head
                from backlane.heads(
                    number - got, sources, lanes, places, seqs, rooms_of, rooms, plain_only
                );
            end if;
            spots := head.spots;
            if began is not null then
                looked_us := (extract(epoch from clock_timestamp() - began) * 1000000)::bigint;
            end if;
            if spots is not null then
                if head.are_gated or limited <> '{}' then
                    select * into sifted
                    from backlane.admit(
                        spots, wall, boot, 1000 - stopped, may_give, limited, caps
                    );
                    spots := sifted.admitted;
                    stopped := stopped + sifted.moved;
                    plain_only := plain_only or sifted.is_busy;
                    -- Of a resource that is tried no more were looked at than may be taken. Of
                    -- what is next of it in their place, some may be before those that are left.
                    exit when stopped >= 1000 and sifted.moved > 0 and rooms_of <> '{}';
                    continue when sifted.moved > 0 and rooms_of <> '{}';
                end if;
                found := 0;
                if spots <> '{}' then
                    late := null;
                    -- Rarely so: whoever waits and has a deadline is in `deadline`.
                    if exists (select from backlane.deadline where deadline_ms <= wall) then
                        late := backlane.late_of(wall, spots);
                    end if;
                    if late is not null then
                        return query select * from backlane.end_late(wanted, wall, spots);
                        ended := ended || late;
                        continue when rooms_of <> '{}';
                    end if;
                    given_as := nextval('backlane.term_seq');
                    -- Not when this claim did: what ended since then may have made their room.
                    begin_ms := coalesce(told_ms, backlane.now_ms());
                    return query
                    select *
                    from backlane.give(
                        wanted, begin_ms, boot + lease_ms, owner, given_as, spots,
                        coalesce(odd_queues, '{}')
                    );
                    keyed := null;
                    select coalesce(sum(leases), 0), sum(term.keyed) into found, keyed
                    from backlane.term
                    where term.id = given_as;
                    if keyed > 0 then
                        perform backlane.start_keyed(given_as);
                    end if;
                end if;
                got := got + found;
                for i in 1 .. cardinality(rooms_of) loop
                    rooms[i] := rooms[i] - (
                        select count(*)
                        from backlane.lease
                        where lease.term = given_as
                        and lane >> 1 = rooms_of[i]
                    );
                end loop;
                if found > 0 and (head.are_gated or limited <> '{}') then
                    perform backlane.hold(given_as, begin_ms);
                end if;
                if found > 0 and fair is not null then
                    perform backlane.move_fair_clocks(given_as);
                end if;
                for i in 1 .. cardinality(limited) loop
                    if found > 0 then
                        caps[i] := caps[i] - (
                            select count(*)
                            from backlane.lease
                            where lease.term = given_as
                            and lease.queue = limited[i]
                        );
                    end if;
                    -- Nothing is taken any more of a queue whose own limit is full.
                    if caps[i] <= 0 then
                        may_give := array_remove(may_give, limited[i]);
                        for nth in reverse cardinality(sources) .. 1 loop
                            if sources[nth] = limited[i] then
                                sources := sources[:nth - 1] || sources[nth + 1:];
                                lanes := lanes[:nth - 1] || lanes[nth + 1:];
                                places := places[:10 * nth - 10] || places[10 * nth + 1:];
                                seqs := seqs[:10 * nth - 10] || seqs[10 * nth + 1:];
                            end if;
                        end loop;
                    end if;
                end loop;
                exit when stopped >= 1000;
                -- Some had expired, or no room: others may go in their place.
                continue when found < cardinality(head.spots);
            end if;
            exit when not is_floored or not may_look;
            -- Less than was wanted: look whether something came in before the floors.
            is_floored := false;
            places := array_fill(lowest, array[cardinality(places)]);
            seqs := places;
        end loop;
        is_busy := is_busy or plain_only;
    end if;
    if has_limits and open_queues is not null then
        token_ms := case
            when moved >= 1000 or stopped >= 1000 then 0
            else backlane.next_token_ms(open_queues, wall)
        end;
        if is_busy then
            -- It was not waited for; it is about to end.
            token_ms := least(token_ms, 10);
        end if;
    end if;
    if ended <> '{}' then
        -- Who waited for them is for the next claim.
        perform backlane.let_go(ended);
        perform backlane.open_gates(ended);
        select it.rung, it.changed into tied
        from backlane.follow(
            wall, boot, array(select id from backlane.job where seq = any (ended)),
            array_fill(4::smallint, array[cardinality(ended)]), true
        ) as it;
        rung := rung || tied.rung;
        gone := gone || tied.changed;
    end if;
    if got < number then
        -- Who had enough comes again anyway. The terms of leases that were settled long ago
        -- say nothing: those of the first three at least are passed by.
        select min(until_ms) into lapse_ms
        from (
            select until_ms, id, row_number() over (order by until_ms) as nth
            from (
                select * from backlane.term where until_ms > since_ms order by until_ms limit 3
            ) as first
        ) as next
        where nth = 3
        or exists (select 1 from backlane.lease where lease.term = next.id);
    elsif got > 0 then
        select until_ms into lapse_ms
        from backlane.term
        where until_ms > since_ms
        order by until_ms
        limit 1;
    end if;
    select array_agg(id) into stopping
    from backlane.lease
    where lease.owner = owner
    and cancelling;
    return next row(
        wanted, null, null, null, null, null, null, null, null, null, null, null, null, null,
        null, null, null, null, null, stopping, buried || array_remove(gone, null),
        array[
            case
                when lapse_ms is not null or due_ms is not null or token_ms is not null
                then greatest(0, least(lapse_ms - boot, due_ms - wall, token_ms))
            end,
            looked_us, wall,
            cardinality(coalesce(buried, '{}')),
            (is_busy or brought > 0)::int   -- something lies before where this one began
        ],
        open_queues || null::int || rung,
        open_names
    )::backlane.turned;
end
$$;

-- The job that is next in a queue: its queue, lane, rank, place, seq and due time, or null. One step
-- into the key of `ready` for each lane, from the floor that is given of it (five numbers
-- of the same kind each), for what lies before is dead rows, as a rule.
create function backlane.first_in_line(of_queue int, floors bigint[]) returns bigint[]
language sql stable
set enable_seqscan = off
as $$
    select array[
        of_queue, open.lane, first.rank, first.place, first.seq,
        coalesce((select due_ms from backlane.job where job.seq = first.seq), first.place)
    ]::bigint[]
    from backlane.lane as open
    left join lateral (
        select floors[at + 2]::smallint as rank, floors[at + 3] as place, floors[at + 4] as seq
        from generate_series(1, cardinality(floors), 5) as at
        where floors[at] = of_queue
        and floors[at + 1] = open.lane
        limit 1
    ) as floor on true
    cross join lateral (
        select rank, place, seq
        from backlane.ready
        where ready.queue = of_queue
        and ready.lane = open.lane
        and (ready.rank, ready.place, ready.seq) >= (
            coalesce(floor.rank, 0::smallint),
            coalesce(floor.place, '-9223372036854775808'::bigint),
            coalesce(floor.seq, '-9223372036854775808'::bigint)
        )
        order by rank, place, seq
        limit 1
    ) as first
    order by first.rank, first.place, first.seq
    limit 1
$$;

-- The first in line of these very jobs, of those that may be claimed: locked, and where they
-- are. A job knows its place, and its rank too unless it has waited for long: so they are
-- looked for in the order of the line, and no more of them than are wanted.
create function backlane.picks(
    number int,
    wall_ms bigint,
    kind text,
    only_lane int,
    jobs bytea[],
    may_give int[],                         -- queues; null: any that is not paused
    rooms_of int[],
    rooms int[],
    plain_only boolean,                     -- another claim is at a limit of the others
    out spots tid[],
    out are_gated boolean                   -- some of them
)
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    known int;
    is_old boolean;                         -- some may have been raised
begin
    with them as materialized (
        select job.queue, job.lane, job.priority, job.place, job.seq,
            wall_ms - coalesce(job.due_ms, job.place) >= 300000 as is_old
        from backlane.job
        where job.id = any (jobs)
        and (may_give is null or job.queue = any (may_give))
        and (only_lane is null or job.lane & 1 = only_lane)
    ),
    -- One look for all of a queue.
    open as materialized (
        select array_agg(queue.id) as queues
        from backlane.queue
        where queue.id = any (array(select distinct queue from them))
        and queue.kind = picks.kind
        and not queue.paused
    ),
    head as materialized (
        select held.*
        from (
            select *
            from them
            where rooms_of = '{}'
            and not exists (select 1 from them where is_old)
            and queue = any ((select queues from open)::int[])
            order by 9 - priority, place, seq
        ) as line
        cross join lateral (
            select ready.ctid as at, ready.is_gated
            from backlane.ready
            where ready.queue = line.queue
            and ready.lane = line.lane
            and ready.rank = 9 - line.priority
            and ready.place = line.place
            and ready.seq = line.seq
            and (not plain_only or ready.is_gated is null)
            for update skip locked
        ) as held
        limit number
    )
    select (select array_agg(at) from head), (select bool_or(is_gated) from head),
        (select count(*) from them), exists (select 1 from them where is_old)
    into spots, are_gated, known, is_old;
    if rooms_of <> '{}' or is_old or coalesce(cardinality(spots), 0) < least(known, number) then
        -- Some are nowhere, or not where they were looked for.
        select it.spots, it.are_gated into spots, are_gated
        from backlane.picks_anywhere(
            number, wall_ms, kind, only_lane, jobs, may_give, rooms_of, rooms, plain_only
        ) as it;
    end if;
end
$$;

-- The same, wherever they are in line: one step into the key of `ready` for each, or a few.
create function backlane.picks_anywhere(
    number int,
    wall_ms bigint,
    kind text,
    only_lane int,
    jobs bytea[],
    may_give int[],
    rooms_of int[],
    rooms int[],
    plain_only boolean,
    out spots tid[],
    out are_gated boolean
)
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    ranks constant smallint[] := '{0,1,2,3,4,5,6,7,8,9}';
begin
    with usual as materialized (
        select job.queue, job.lane, job.place, job.seq, job.priority, ready.spot,
            wall_ms - coalesce(job.due_ms, job.place) as waited_ms
        from backlane.job
        left join lateral (
            select ready.ctid as spot
            from backlane.ready
            where ready.queue = job.queue
            and ready.lane = job.lane
            and ready.rank = 9 - job.priority
            and ready.place = job.place
            and ready.seq = job.seq
            and (not plain_only or ready.is_gated is null)
        ) as ready on true
        where job.id = any (jobs)
        and (may_give is null or job.queue = any (may_give))
        and (only_lane is null or job.lane & 1 = only_lane)
    ),
    found as materialized (
        select queue, lane, 9 - priority as rank, place, seq, spot
        from usual
        where spot is not null
        union all
        select queue, lane, raised.rank, place, seq, raised.spot
        from usual
        cross join lateral (
            (select ready.ctid as spot, ready.rank
            from backlane.ready
            where ready.queue = usual.queue
            and ready.lane = usual.lane
            and ready.rank = any (ranks[
                10 - usual.priority - least(9, waited_ms / 300000)::int:9 - usual.priority
            ])
            and ready.place = usual.place
            and ready.seq = usual.seq
            and (not plain_only or ready.is_gated is null))
            union all
            -- The clock was ahead when it was raised.
            (select ready.ctid, ready.rank
            from backlane.ready
            where ready.queue = usual.queue
            and ready.lane = usual.lane
            and ready.rank = any (ranks)
            and ready.place = usual.place
            and ready.seq = usual.seq
            and (not plain_only or ready.is_gated is null))
            limit 1
        ) as raised
        where usual.spot is null
    ),
    able as (
        select spot, rank, place, seq,
            case
                when rooms_of <> '{}' then rooms[array_position(rooms_of, lane >> 1)]
            end as most,
            case
                when rooms_of <> '{}' then (
                    select count(*)
                    from found as before
                    where before.lane >> 1 = found.lane >> 1
                    and (before.rank, before.place, before.seq)
                        <= (found.rank, found.place, found.seq)
                )
            end as nth
        from found
        where queue = any (array(
            select queue.id
            from backlane.queue
            where queue.id = any (array(select distinct queue from found))
            and queue.kind = picks_anywhere.kind
            and not queue.paused
        ))
    )
    select array_agg(head.at), bool_or(head.is_gated) into spots, are_gated
    from (
        select held.at, held.is_gated
        from (
            select spot
            from able
            where most is null
            or nth <= most
            order by rank, place, seq
        ) as line
        cross join lateral (
            select ready.ctid as at, ready.is_gated
            from backlane.ready
            where ready.ctid = line.spot
            for update skip locked
        ) as held
        limit number
    ) as head;
end
$$;

-- A worker's turn in one round trip: settle, then claim for each of `wanted`. No row, and
-- nothing done: there are resources, whose breakers have to hear in between.
create function backlane.turn(
    told_ms bigint,
    told_boot_ms bigint,
    ids bytea[],
    tokens bigint[],
    ran bigint[],
    results bytea[],
    outcomes smallint[],
    delays_ms bigint[],
    flags boolean[],
    reasons text[],
    kinds text[],
    messages text[],
    tracebacks text[],
    fingerprints text[],
    owners text[],                          -- from here on: of each wanted
    amounts int[],
    leases_ms bigint[],
    queue_kinds text[],
    only_lanes int[],
    names_of int[],                         -- which wanted each of these names belongs to
    names text[],
    jobs_of int[],                          -- and which each of these jobs does
    jobs bytea[],
    departed text[],                        -- of all
    since_ms bigint,                        -- what was due or lapsed before has been brought in
    floor_queues int[],
    floor_lanes int[],
    floor_places bigint[],
    floor_seqs bigint[],
    may_look boolean
)
returns setof backlane.turned
language plpgsql
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    wall bigint := coalesce(told_ms, backlane.now_ms());
    done record;
begin
    if exists (select 1 from backlane.resource) then
        return;
    end if;
    if cardinality(ids) > 0 then
        select * into done
        from backlane.settle(
            wall, ids, tokens, ran, results, outcomes, delays_ms, flags, reasons, kinds,
            messages, tracebacks, fingerprints, coalesce(told_boot_ms, wall)
        );
        return next row(
            0, null, null, null, null, null, null, null, null, null, null, null, null, null,
            null, null, null, null, null, done.settled,
            done.buried || done.changed,
            array[cardinality(coalesce(done.buried, '{}')), (done.came is not null)::int],
            done.rung, null
        )::backlane.turned;
    end if;
    for i in 1 .. cardinality(owners) loop
        return query
        select *
        from backlane.claim(
            i, told_ms, told_boot_ms, owners[i], amounts[i], leases_ms[i], queue_kinds[i],
            only_lanes[i],
            array(
                select name
                from unnest(names, names_of) as given (name, whose)
                where whose = i
            ),
            case
                when jobs = '{}' then '{}'
                else array(
                    select job
                    from unnest(jobs, jobs_of) as given (job, whose)
                    where whose = i
                )
            end,
            departed, since_ms, floor_queues, floor_lanes, floor_places, floor_seqs,
            '{}', '{}', may_look
        );
    end loop;
end
$$;
