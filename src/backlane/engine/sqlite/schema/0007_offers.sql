-- Which ready jobs a transport carries. Nothing of it survives a job's way out of ready.

alter table backlane_ready add column offered_ms integer;  -- wall clock; null: not offered
create index backlane_ready_offered on backlane_ready (queue, lane & 1, seq, offered_ms)
where offered_ms is not null;

-- Windows that were found full, with jobs behind them: true while what is counted of the
-- queue stays as it was, so that nobody has to look again.
create table backlane_full_window (
    queue integer not null,
    kind integer not null,                  -- of the executor that its jobs need
    jobs integer not null,
    oldest_ms integer not null,             -- of its offers
    newest_ms integer not null,
    counted text not null,
    found_ms integer not null,              -- boot clock
    primary key (queue, kind)
) strict, without rowid;
