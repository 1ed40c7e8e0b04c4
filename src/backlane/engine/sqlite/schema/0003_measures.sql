-- What the speed of a queue is measured by, and the bounds that are judged by it.

alter table backlane_counter add column started integer not null default 0;  -- leases given
alter table backlane_counter add column ended integer not null default 0;    -- attempts
alter table backlane_counter add column ran_ms integer not null default 0;   -- what those ran
alter table backlane_counter add column foretold integer not null default 0; -- begun, of those
alter table backlane_counter add column foretold_ms integer not null default 0;
alter table backlane_counter add column waited_ms integer not null default 0;

alter table backlane_queue add column clock_us integer not null default 0;   -- wall clock

alter table backlane_worker add column most text not null default '{}';

-- What tickets are signed with: whoever opens the file may sign, nobody else.
insert into backlane_meta (name, value)
values ('secret', randomblob(32));
