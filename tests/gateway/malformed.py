"""Two hundred requests that are no HTTP: by hand, and bent from a good one.

The bent ones are drawn with a fixed seed, and kept where a strict parser (h11) agrees that
they are malformed.
"""

from __future__ import annotations

import random

import h11

BODY = b'{"arguments": {}}'
LINE = b"POST /v1/tasks/nothing/jobs HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
TYPE = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: 17\r\n"
GOOD = LINE + HOST + TYPE + LENGTH + b"\r\n" + BODY

NUMBER = 200


def lines() -> dict[str, bytes]:
    """Request lines that are none."""
    rest = HOST + b"\r\n"
    wrong = {
        "no version": b"GET /\r\n",
        "no target": b"GET HTTP/1.1\r\n",
        "no method": b" / HTTP/1.1\r\n",
        "method in lower case": b"get / HTTP/1.1\r\n",
        "unknown method": b"FETCH / HTTP/1.1\r\n",
        "method with a colon": b"GE:T / HTTP/1.1\r\n",
        "method with NUL": b"GE\0T / HTTP/1.1\r\n",
        "method of 10,000 letters": b"G" * 10_000 + b" / HTTP/1.1\r\n",
        "version 9": b"GET / HTTP/9.9\r\n",
        "version 0.9": b"GET / HTTP/0.9\r\n",
        "version of letters": b"GET / HTTP/x.y\r\n",
        "version with three parts": b"GET / HTTP/1.1.1\r\n",
        "version without a dot": b"GET / HTTP/11\r\n",
        "another protocol": b"GET / HTTQ/1.1\r\n",
        "protocol in lower case": b"GET / http/1.1\r\n",
        "two targets": b"GET / / HTTP/1.1\r\n",
        "target with a space": b"GET /a b HTTP/1.1\r\n",
        "target with a tab": b"GET /a\tb HTTP/1.1\r\n",
        "target with NUL": b"GET /\0 HTTP/1.1\r\n",
        "target with escape": b"GET /\x1b[0m HTTP/1.1\r\n",
        "target with DEL": b"GET /\x7f HTTP/1.1\r\n",
        "target without a slash": b"GET x HTTP/1.1\r\n",
        "target of Latin-1": b"GET /\xfc HTTP/1.1\r\n",
        "target of UTF-8": "GET /ü HTTP/1.1\r\n".encode(),
        "only a fragment": b"GET #x HTTP/1.1\r\n",
        "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\n",
        "a tunnel to nowhere": b"CONNECT / HTTP/1.1\r\n",
        "an asterisk": b"GET * HTTP/1.1\r\n",
        "a reply": b"HTTP/1.1 200 OK\r\n",
        "bare CR": b"GET / HTTP/1.1\r",
        "tabs for spaces": b"GET\t/\tHTTP/1.1\r\n",
        "garbage behind the version": b"GET / HTTP/1.1 x\r\n",
        "a port of letters": b"GET http://localhost:x/ HTTP/1.1\r\n",
    }
    return {f"line: {name}": line + rest for name, line in wrong.items()}


def headers() -> dict[str, bytes]:
    """Header lines that are none."""
    wrong = {
        "no colon": b"X-A\r\n",
        "no name": b": x\r\n",
        "a blank before the colon": b"X-A : x\r\n",
        "a tab before the colon": b"X-A\t: x\r\n",
        "a blank in the name": b"X A: x\r\n",
        "NUL in the name": b"X\0A: x\r\n",
        "NUL in the value": b"X-A: a\0b\r\n",
        "escape in the value": b"X-A: a\x1bb\r\n",
        "DEL in the value": b"X-A: a\x7fb\r\n",
        "bare CR in the value": b"X-A: a\rb\r\n",
        "brackets in the name": b"X[A]: x\r\n",
        "a quote in the name": b'X"A: x\r\n',
        "Latin-1 in the name": b"X-\xfc: x\r\n",
        "CR at the start": b"\rX-A: x\r\n",
        "a name of 100,000 letters": b"X" * 100_000 + b": x\r\n",
        "a value of 100,000 letters": b"X-A: " + b"x" * 100_000 + b"\r\n",
        "10,000 headers": b"".join(b"X-%d: x\r\n" % n for n in range(10_000)),
        "a second host": b"Host: other\r\n",
    }
    made = {f"header: {name}": LINE + HOST + line + b"\r\n" for name, line in wrong.items()}
    made["header: no host"] = LINE + b"\r\n"
    made["header: a blank before the first"] = LINE + b" X-A: x\r\n" + HOST + b"\r\n"
    return made


def lengths() -> dict[str, bytes]:
    """Lengths of bodies that are none, or two."""
    wrong = {
        "negative": b"-1",
        "with a plus": b"+17",
        "hexadecimal": b"0x11",
        "a word": b"x",
        "a fraction": b"17.0",
        "empty": b"",
        "two in one": b"17, 18",
        "with a blank inside": b"1 7",
        "of forty digits": b"9" * 40,
        "of 2 to the 64": b"18446744073709551616",
        "with an underscore": b"1_7",
        "of other digits": "\u0661\u0667".encode(),
    }
    made = {
        f"length: {name}": LINE + HOST + TYPE + b"Content-Length: " + value + b"\r\n\r\n" + BODY
        for name, value in wrong.items()
    }
    both = LINE + HOST + TYPE + LENGTH
    made["length: two that differ"] = both + b"Content-Length: 16\r\n\r\n" + BODY
    made["length: and chunked"] = both + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    return made


def chunks() -> dict[str, bytes]:
    """Chunked bodies that are none."""
    head = LINE + HOST + TYPE + b"Transfer-Encoding: chunked\r\n\r\n"
    wrong = {
        "size of letters": b"xyz\r\n",
        "negative size": b"-1\r\n",
        "size with 0x": b"0x2\r\n{}\r\n0\r\n\r\n",
        "size of forty digits": b"f" * 40 + b"\r\n",
        "size with a blank before": b" 2\r\n{}\r\n0\r\n\r\n",
        "no size": b"\r\n{}\r\n0\r\n\r\n",
        "more than the size": b"2\r\n{}{}\r\n0\r\n\r\n",
        "NUL for the size": b"\0\r\n",
        "data at once": BODY,
        "trailer without a colon": b"2\r\n{}\r\n0\r\nX\r\n\r\n",
        "trailer with NUL": b"2\r\n{}\r\n0\r\nX: \0\r\n\r\n",
    }
    made = {f"chunk: {name}": head + body for name, body in wrong.items()}
    for coding in (b"gzip", b"xchunked", b"identity", b"chunked, gzip", b"chunk ed"):
        start = LINE + HOST + TYPE + b"Transfer-Encoding: " + coding + b"\r\n\r\n"
        made[f"coding: {coding.decode()}"] = start + b"2\r\n{}\r\n0\r\n\r\n"
    return made


def strangers() -> dict[str, bytes]:
    """Other protocols, and noise."""
    draw = random.Random(7)
    made = {
        "stranger: TLS": bytes.fromhex("16030100c8010000c40303") + b"\0" * 190,
        "stranger: SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
        "stranger: HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 20,
        "stranger: SMTP": b"EHLO localhost\r\nMAIL FROM:<a@b>\r\n",
        "stranger: Redis": b"*1\r\n$4\r\nPING\r\n",
        "stranger: PostgreSQL": bytes.fromhex("0000000804d2162f"),
        "stranger: JSON": BODY * 10,
        "stranger: NUL": b"\0" * 1_000,
        "stranger: 0xff": b"\xff" * 1_000,
        "stranger: a word": b"hello\r\n\r\n",
        "stranger: proxy protocol": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + GOOD,
        "stranger: RTSP": b"OPTIONS rtsp://x RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    }
    for number in range(20):
        noise = bytes(draw.randrange(128, 256) for _ in range(draw.randrange(1, 300)))
        made[f"stranger: noise {number}"] = noise + b"\r\n\r\n"
    return made


def bent(number: int) -> dict[str, bytes]:
    """Good requests of which some bytes of the head were changed, until they are malformed."""
    draw = random.Random(11)
    made: dict[str, bytes] = {}
    head = GOOD.partition(b"\r\n\r\n")[0]
    while len(made) < number:
        changed = bytearray(head)
        for _ in range(draw.randrange(1, 4)):
            place = draw.randrange(len(changed))
            match draw.randrange(3):
                case 0:
                    changed[place] = draw.choice(b"\0\x01\x0b\x1f\x7f\r :\t@{")
                case 1:
                    del changed[place]
                case _:
                    changed.insert(place, draw.choice(b"\0\x07\x0c\x1b\x7f\r :"))
        sent = bytes(changed) + b"\r\n\r\n" + BODY
        if is_malformed(sent):
            made[f"bent: {bytes(changed)[:60]!r} {len(made)}"] = sent
    return made


def is_malformed(sent: bytes) -> bool:
    """Say whether a strict parser refuses it."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(sent)
    try:
        while parser.next_event() not in (h11.NEED_DATA, h11.PAUSED):
            pass
    except h11.RemoteProtocolError:
        return True
    return False


def requests() -> dict[str, bytes]:
    """All of them, by name."""
    made = lines() | headers() | lengths() | chunks() | strangers()
    return made | bent(NUMBER - len(made))
