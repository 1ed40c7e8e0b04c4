-- Resources that jobs depend on. A job's lane is twice the number of its resource (0:
-- none) plus the kind of executor it needs, so a claim passes a resource that is down by
-- without looking at a single job.

create table backlane_resource (
    id integer primary key,
    name text not null unique,
    state text not null default 'closed',   -- of its breaker, so that few are read at all
    breaker blob                            -- null: nothing is remembered
) strict;
create index backlane_resource_not_closed on backlane_resource (id) where state <> 'closed';

-- Where the job next in line may be: not in the lanes of a resource that is down.
create view backlane_lane as
select 0 as lane
union all
select 1
union all
select 2 * id from backlane_resource where state = 'closed'
union all
select 2 * id + 1 from backlane_resource where state = 'closed';
