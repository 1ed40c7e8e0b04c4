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

-- Progress of running jobs, a revision later; those not told of are running no more.
create function backlane.note(
    ids bytea[],
    tokens bigint[],
    fractions float8[],
    messages text[]
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
        from unnest(ids, tokens, fractions, messages) as given (job, fence, fraction, message)
        where lease.id = given.job
        and lease.token = given.fence
        returning lease.id, lease.token, lease.seq, given.fraction, given.message
    ),
    kept as (
        insert into backlane.progress (seq, token, fraction, message)
        select seq, token, fraction, message
        from held
        on conflict (seq) do update
        set token = excluded.token,
            fraction = excluded.fraction,
            message = excluded.message
    )
    select held.id, held.token
    from held;
end
$$;
