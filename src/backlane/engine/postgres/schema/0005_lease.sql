-- Leases end later than they would have; those not told of are lost. One term is made for
-- all of them: the old one ends without them, at its time.
create function backlane.extend(
    told_boot_ms bigint,
    ids bytea[],
    tokens bigint[],
    by_ms bigint
)
returns table (id bytea, token bigint, cancelling boolean)
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    boot bigint := coalesce(told_boot_ms, backlane.now_ms());
    new_term bigint := nextval('backlane.term_seq');
begin
    insert into backlane.term (id, until_ms, leases, owner)
    select new_term, boot + by_ms, cardinality(ids), lease.owner
    from unnest(ids, tokens) as given (job, fence)
    join backlane.lease
    on lease.id = given.job
    and lease.token = given.fence
    limit 1;
    return query
    update backlane.lease
    set until_ms = boot + by_ms,
        term = new_term
    from unnest(ids, tokens) as given (job, fence)
    where lease.id = given.job
    and lease.token = given.fence
    and lease.until_ms > boot
    returning lease.id, lease.token, lease.cancelling;
end
$$;

-- Progress and steps of running jobs, a revision later; those not told of are running no more.
create function backlane.note(
    ids bytea[],
    tokens bigint[],
    have_progress boolean[],                -- else it stays as it was
    fractions float8[],
    messages text[],
    steps_of int[],                         -- which of these jobs each step is of
    step_names text[],
    step_results bytea[]
)
returns table (id bytea, token bigint)
language plpgsql
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
    return query
    with held as (
        update backlane.lease
        set revision = revision + 1
        from unnest(ids, tokens, have_progress, fractions, messages)
            with ordinality as given (job, fence, has_progress, fraction, message, at)
        where lease.id = given.job
        and lease.token = given.fence
        returning lease.id, lease.token, lease.seq, has_progress, given.fraction, given.message,
            given.at
    ),
    kept as (
        insert into backlane.progress (seq, token, fraction, message)
        select seq, token, fraction, message
        from held
        where has_progress
        on conflict (seq) do update
        set token = excluded.token,
            fraction = excluded.fraction,
            message = excluded.message
    ),
    done as (
        insert into backlane.step (seq, name, result)
        select seq, given.name, given.result
        from unnest(steps_of, step_names, step_results)
            with ordinality as given (at, name, result, nth)
        join held on held.at = given.at
        order by given.nth
        on conflict (seq, md5(name)) do update
        set result = excluded.result        -- its number stays
    )
    select held.id, held.token
    from held;
end
$$;
