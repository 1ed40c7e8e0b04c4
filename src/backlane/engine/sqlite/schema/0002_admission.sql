-- What an append is judged by beside jobs and bytes: the wait, the shares of groups, and
-- the keys under which callers repeat a request.

alter table backlane_queue add column declared_wait_ms integer;
alter table backlane_queue add column declared_share real;
alter table backlane_queue add column tuned_wait_ms integer;      -- 0: not bounded
alter table backlane_queue add column tuned_share real;

-- What one job of each append was told to wait; null for all others.
alter table backlane_job add column predicted_ms integer;

-- How many jobs not finished each group has in a queue; no row: none.
create table backlane_group (
    queue integer not null,
    name text not null,
    jobs integer not null,
    primary key (queue, name)
) strict, without rowid;

-- From where jobs wait or run, for the history may be a thousand times as long.
insert into backlane_group (queue, name, jobs)
select job.queue, group_name, count(*)
from (
    select seq from backlane_ready
    union all
    select seq from backlane_scheduled
    union all
    select seq from backlane_lease
) as held
cross join backlane_job as job on job.seq = held.seq
where group_name is not null
group by job.queue, group_name;

-- Leases of jobs with a group: their end has one more thing to do.
update backlane_lease
set is_plain = 0
where exists (
    select 1
    from backlane_job as job
    where job.seq = backlane_lease.seq
    and group_name is not null
);

-- Outlives the job, so that a request that comes again is answered with the first one's.
create table backlane_idempotency (
    scope text not null,
    name text not null,
    id blob not null,
    print blob not null,
    until_ms integer not null,              -- wall clock
    primary key (scope, name)
) strict, without rowid;
create index backlane_idempotency_until on backlane_idempotency (until_ms);
