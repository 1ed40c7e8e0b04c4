-- Owners that show a sign of life: a session lock of this key, held for as long as the
-- process lives; or none, behind a pooler, where a session is nobody's. One that says
-- that it leaves is not waited for.
create table backlane.enlisted (
    owner text primary key,
    key bigint,
    has_left boolean not null default false,
    since timestamptz not null default clock_timestamp()  -- the lock was last taken then
) with (fillfactor = 50);
