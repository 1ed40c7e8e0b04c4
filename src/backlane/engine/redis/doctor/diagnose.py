"""Diagnose: settings and states of the server that lose jobs or time, and what mends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from backlane.engine.protocol import Finding
from backlane.engine.redis.doctor.facts import Facts, look
from backlane.engine.redis.driver.driver import VERSION, Driver
from backlane.engine.redis.store.faults import Said, refused
from backlane.errors import BacklaneError, EngineUnavailable

OLDEST = (7, 0)  # sharded channels, and scripts as they are now
SLOW_MS = 5.0  # of a round trip: a worker that does one job at a time is bound by it
SKEW_MS = 1_000.0  # of clocks: times that people compare no longer fit
NEARLY = 0.8  # of a limit: enough warning to do something
LAG_SECONDS = 10
BUFFER_BYTES = 8 * 1024 * 1024  # waiting for one client: beyond, a listener is thrown out

Judge = Callable[[Facts], Iterator[Finding]]


def diagnose(driver: Driver) -> list[Finding]:
    """Return what is to be known of the server, the way to it, and the namespace."""
    try:
        connection = driver.open_unchecked()
    except EngineUnavailable as error:
        return [_away(error)]
    try:
        facts = look(connection, driver.address)
    except Said as said:
        return [_away(refused(said, connection.place), is_there=True)]
    except OSError as error:
        return [_away(EngineUnavailable(f"{connection.place} was lost: {error}"))]
    finally:
        connection.disconnect()
    return judged(facts)


def judged(facts: Facts) -> list[Finding]:
    """Return what a server's facts mean for us."""
    return [finding for judge in JUDGES for finding in judge(facts)]


def _away(error: BacklaneError, *, is_there: bool = False) -> Finding:
    # A server that answers, if only by refusing, is not to be started.
    is_there = is_there or isinstance(error.__cause__, Said)
    return Finding(
        subject="server",
        state="error",
        text=str(error),
        remedy="correct user, password and database of the URL, or the rights that the user has"
        if is_there
        else "start the server, or correct host and port of the URL",
    )


def _ok(subject: str, text: str) -> Finding:
    return Finding(subject=subject, state="ok", text=text)


def _warning(subject: str, text: str, remedy: str) -> Finding:
    return Finding(subject=subject, state="warning", text=text, remedy=remedy)


def _error(subject: str, text: str, remedy: str) -> Finding:
    return Finding(subject=subject, state="error", text=text, remedy=remedy)


def _set(setting: str, value: str) -> str:
    """The command that sets something, now and for the next start."""
    return f"redis-cli CONFIG SET {setting} {value}, then redis-cli CONFIG REWRITE"


# -- the server --


def _version(facts: Facts) -> Iterator[Finding]:
    name = "Valkey" if "valkey_version" in facts.info else "Redis"
    # Valkey tells the Redis it is like as well, and that is what commands go by.
    text = facts.info.get("redis_version", "")
    shown = f"{name} {facts.info.get('valkey_version') or text or '(it does not tell)'}"
    numbers = tuple(int(it) for it in text.split(".")[:2] if it.isdigit())
    if numbers and numbers < OLDEST:
        yield _error(
            "version",
            f"{shown} at {facts.place} lacks commands that are needed",
            "use Redis 7.0 or Valkey 7.2, or newer",
        )
    else:
        yield _ok("version", f"{shown} at {facts.place}")


def _role(facts: Facts) -> Iterator[Finding]:
    if facts.info.get("role") == "slave":
        host, port = facts.info.get("master_host"), facts.info.get("master_port")
        yield _error(
            "role",
            f"{facts.place} is a replica of {host}:{port}: it takes no writes",
            f"name the master in the URL ({host}:{port}), or redis+sentinel:// for the one in turn",
        )


def _cluster(facts: Facts) -> Iterator[Finding]:
    if facts.info.get("cluster_enabled") != "1":
        return
    state = facts.cluster.get("cluster_state", "unknown")
    if state != "ok":
        assigned = facts.cluster.get("cluster_slots_assigned", "?")
        yield _error(
            "cluster",
            f"cluster_state is {state}, {assigned} of 16384 slots are assigned: some or all keys "
            "are not served",
            "start the nodes that are away; `redis-cli --cluster check HOST:PORT` names them, and "
            "`--cluster fix` assigns slots anew",
        )
    elif facts.address.kind != "cluster":
        yield _warning(
            "cluster",
            f"{facts.place} is of a cluster, and the URL names one node: when the namespace's slot "
            "moves, it is lost",
            "use redis+cluster:// in the URL",
        )
    else:
        yield _ok("cluster", f"ok, {facts.cluster.get('cluster_size', '?')} masters")


# -- what loses jobs --


def _eviction(facts: Facts) -> Iterator[Finding]:
    policy = facts.setting("maxmemory-policy") or facts.info.get("maxmemory_policy")
    evicted = facts.number("evicted_keys")
    if policy is None:
        yield _warning(
            "eviction",
            "the server does not tell its maxmemory-policy: it may throw jobs away when its "
            "memory is full",
            "allow CONFIG GET and INFO to this user, or look at the provider's settings: it is "
            "to be noeviction",
        )
    elif policy != "noeviction":
        yield _error(
            "eviction",
            f"maxmemory-policy is {policy}: the server throws jobs away when its memory is full",
            _set("maxmemory-policy", "noeviction"),
        )
    if evicted:
        yield _error(
            "eviction",
            f"{evicted} keys were thrown away since the server started: jobs may be gone, and "
            "counts may be wrong",
            f"{_set('maxmemory-policy', 'noeviction')}; then redis-cli CONFIG RESETSTAT",
        )
    elif policy == "noeviction":
        yield _ok("eviction", "noeviction: nothing is thrown away")


def _durability(facts: Facts) -> Iterator[Finding]:
    appends = facts.setting("appendonly") or (
        "yes" if facts.info.get("aof_enabled") == "1" else "no"
    )
    fsync = facts.setting("appendfsync")
    if appends != "yes":
        yield _error(
            "durability",
            "memory: appendonly is off, so a crash or restart of the server loses every job since "
            "its last snapshot",
            _set("appendonly", "yes"),
        )
    elif fsync == "always" or facts.address.durability == "fsync":
        how = "appendfsync always" if fsync == "always" else "?durability=fsync"
        yield _ok("durability", f"{how}: what was acknowledged is on the server's disk")
    elif fsync == "no":
        yield _error(
            "durability",
            "appendfsync is no: a crash of the machine loses as much as its system had not "
            "written yet, 30 s and more",
            _set("appendfsync", "everysec"),
        )
    else:
        yield _warning(
            "durability",
            "up to 2 s: a crash of the machine loses what was acknowledged in its last two "
            "seconds (a crash of the server alone loses nothing)",
            f"{_set('appendfsync', 'always')}; or ?durability=fsync in the URL. Where two seconds "
            "may be lost there is nothing to do",
        )


def _writing(facts: Facts) -> Iterator[Finding]:
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        yield _error(
            "log",
            "the last write to the append-only file failed: the server refuses writes until one "
            "succeeds",
            "make room on its disk (`df -h`, and the server's log says which file)",
        )
    saves = facts.info.get("rdb_last_bgsave_status", "ok") != "ok"
    if saves and facts.setting("save") and facts.setting("stop-writes-on-bgsave-error") == "yes":
        yield _error(
            "snapshot",
            "the last snapshot failed, and stop-writes-on-bgsave-error is yes: the server "
            "refuses writes",
            "make room on its disk, or memory to fork (vm.overcommit_memory=1), then "
            "redis-cli BGSAVE",
        )
    elif saves:
        yield _warning(
            "snapshot",
            "the last snapshot failed",
            "make room on its disk, or memory to fork (vm.overcommit_memory=1), then "
            "redis-cli BGSAVE",
        )
    if facts.info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield _warning(
            "log",
            "the last rewrite of the append-only file failed: it grows until its disk is full",
            "make room for a second copy of it, then redis-cli BGREWRITEAOF",
        )
    delayed = facts.number("aof_delayed_fsync")
    if delayed:
        yield _warning(
            "log",
            f"writes waited {delayed} times for the disk: it is slower than what is written",
            "give the append-only file a faster disk, or one of its own; then "
            "redis-cli CONFIG RESETSTAT",
        )


def _replicas(facts: Facts) -> Iterator[Finding]:
    least = facts.setting("min-replicas-to-write") or facts.setting("min-slaves-to-write")
    good = [
        it
        for it in facts.replicas
        if it.get("state") == "online" and int(it.get("lag", "0")) < LAG_SECONDS
    ]
    if least.isdigit() and int(least) > len(good):
        yield _error(
            "replicas",
            f"min-replicas-to-write is {least}, and {len(good)} keep up: the server refuses writes",
            f"start the replicas; or, to go on without them, {_set('min-replicas-to-write', '0')}",
        )
    if facts.address.durability == "replica" and not good:
        yield _error(
            "replicas",
            "?durability=replica waits for a replica, and none keeps up: nothing is acknowledged",
            "start a replica, or leave ?durability=replica out of the URL",
        )
    for it in facts.replicas:
        if it not in good:
            name = f"{it.get('ip')}:{it.get('port')}"
            yield _warning(
                "replicas",
                f"replica {name} is {it.get('state')}, {it.get('lag', '?')} s behind: a fail-over "
                "to it would lose as much",
                f"look why it is slow: redis-cli -h {it.get('ip')} -p {it.get('port')} INFO "
                "replication",
            )


# -- what loses time --


def _memory(facts: Facts) -> Iterator[Finding]:
    used, most = facts.number("used_memory"), facts.number("maxmemory")
    system = facts.number("total_system_memory")
    mib = 1024 * 1024
    if most and used >= NEARLY * most:
        is_full = used >= 0.98 * most
        make = _error if is_full else _warning
        yield make(
            "memory",
            f"{used // mib} of {most // mib} MiB (maxmemory) are used: "
            + ("enqueues are refused now" if is_full else "above, enqueues are refused"),
            f"{_set('maxmemory', f'{2 * most // mib}mb')} if the machine has it; or shorten the "
            "history that workers keep, and drain queues",
        )
    elif not most and system and used >= NEARLY * system:
        yield _warning(
            "memory",
            f"{used // mib} of the machine's {system // mib} MiB are used, and maxmemory is not "
            "set: the system may kill the server",
            _set("maxmemory", f"{int(system * 0.75) // mib}mb"),
        )
    else:
        limit = f"of {most // mib} MiB" if most else "(maxmemory is not set)"
        yield _ok("memory", f"{used // mib} MiB {limit} used")


def _clients(facts: Facts) -> Iterator[Finding]:
    number = facts.number("connected_clients")
    most = facts.number("maxclients") or int(facts.setting("maxclients") or 0)
    refused_ = facts.number("rejected_connections")
    if most and number >= NEARLY * most:
        yield _warning(
            "clients",
            f"{number} of {most} connections are open: beyond, new ones are refused",
            f"{_set('maxclients', str(2 * most))}; or a smaller ?pool= in the URLs",
        )
    elif refused_:
        yield _warning(
            "clients",
            f"{refused_} connections were refused since the server started (maxclients {most})",
            f"{_set('maxclients', str(2 * most))}; then redis-cli CONFIG RESETSTAT",
        )
    else:
        yield _ok("clients", f"{number} of {most or 'unknown'} connections are open")
    waiting = facts.number("client_recent_max_output_buffer")
    if waiting > BUFFER_BYTES:
        yield _warning(
            "clients",
            f"{waiting // 1024 // 1024} MiB wait for a client that does not read: it is thrown "
            "out, and its wake-ups are late by a poll until it is back",
            "find it by `redis-cli CLIENT LIST` (omem); a blocked event loop is the usual cause",
        )


def _latency(facts: Facts) -> Iterator[Finding]:
    if facts.latency_ms > SLOW_MS:
        yield _warning(
            "latency",
            f"a round trip takes {facts.latency_ms:.1f} ms: each enqueue waits so long, and each "
            "job starts so much later",
            "run workers near the server; `redis-cli --latency` and SLOWLOG GET tell whether it "
            "is the network or the server",
        )
    else:
        yield _ok("latency", f"a round trip takes {facts.latency_ms:.2f} ms")


def _clock(facts: Facts) -> Iterator[Finding]:
    off = facts.ahead_ms
    if abs(off) - facts.doubt_ms > SKEW_MS:
        side = "ahead of" if off > 0 else "behind"
        yield _warning(
            "clock",
            f"the server's clock is {abs(off) / 1000:.1f} s {side} this machine's: delays and "
            "leases hold all the same, but new ids may be taken for old ones, and times do not fit",
            "set the clocks of both by NTP: timedatectl set-ntp true",
        )
    else:
        yield _ok("clock", "within a second of this machine's")


def _wakeups(facts: Facts) -> Iterator[Finding]:
    if facts.hears is None:
        yield _ok("wake-ups", "channels can be written and heard")
    else:
        yield _warning(
            "wake-ups",
            f"channels are refused ({facts.hears}): jobs start late by a poll, up to a second",
            f"redis-cli ACL SETUSER {facts.address.user or 'default'} "
            f"'&{facts.address.prefix}*' +ssubscribe +sunsubscribe +spublish",
        )


def _namespace(facts: Facts) -> Iterator[Finding]:
    name = facts.address.namespace
    if facts.layout not in (None, VERSION):
        yield _error(
            "namespace",
            f"{name!r} was written in layout {facts.layout}, and this version's is {VERSION}",
            "use the version of backlane that wrote it, or another ?namespace=",
        )
    else:
        what = "is empty" if facts.layout is None else f"layout {facts.layout}"
        yield _ok("namespace", f"{name!r}: {what}")


JUDGES: tuple[Judge, ...] = (
    _version,
    _role,
    _cluster,
    _eviction,
    _durability,
    _writing,
    _replicas,
    _memory,
    _clients,
    _latency,
    _clock,
    _wakeups,
    _namespace,
)
