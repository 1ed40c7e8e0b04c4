"""The codec binds a call as Python would, and gives it back ready to be made."""

from __future__ import annotations

import functools
from typing import Any, TypedDict, Unpack

import pytest

from backlane.errors import Undecodable
from backlane.model.codec import Codec


def plain(user: int, template: str = "hi", *, urgent: bool = False): ...


def every_kind(a: int, b=2, /, c=3, *rest: int, d: int, e=5, **more: int): ...


def only_keywords(*, made, call, default, f0): ...


def everything(*args, **kwargs): ...


def nothing(): ...


def first_positional(context, /, x: int): ...


class Options(TypedDict):
    size: int
    name: str


def unpacked(**options: Unpack[Options]): ...


def seen(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (nothing, (), {}, ((), {})),
        (plain, (7,), {}, ((7, "hi"), {"urgent": False})),
        (plain, (), {"template": "x", "user": 7}, ((7, "x"), {"urgent": False})),
        (plain, (7, "x"), {"urgent": True}, ((7, "x"), {"urgent": True})),
        (every_kind, (1,), {"d": 4}, ((1, 2, 3), {"d": 4, "e": 5})),
        (every_kind, (1, 9, 8, 7, 6), {"d": 4}, ((1, 9, 8, 7, 6), {"d": 4, "e": 5})),
        (every_kind, (1,), {"d": 4, "a": 3}, ((1, 2, 3), {"d": 4, "e": 5, "a": 3})),
        (
            only_keywords,
            (),
            {"made": 1, "call": 2, "default": 3, "f0": 4},
            ((), {"made": 1, "call": 2, "default": 3, "f0": 4}),
        ),
        (everything, (1, "a"), {"self": 1}, ((1, "a"), {"self": 1})),
        (unpacked, (), {"size": 1, "name": "a"}, ((), {"size": 1, "name": "a"})),
    ],
)
def test_a_call_comes_back_as_it_was_made(function, args, kwargs, expected):
    codec = Codec(function, name="task")

    body = codec.encode_arguments(args, kwargs)

    assert codec.decode_arguments(body) == expected
    assert seen(*expected[0], **expected[1]) == expected


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "said"),
    [
        (nothing, (1,), {}, r"takes 0 positional arguments but 1 was given"),
        (plain, (), {}, r"missing 1 required positional argument: 'user'"),
        (plain, (1, "a", True), {}, r"takes from 1 to 2 positional arguments but 3"),
        (plain, (1,), {"user": 1}, r"multiple values for argument 'user'"),
        (plain, (1,), {"urgnt": True}, r"unexpected keyword argument 'urgnt'"),
        (every_kind, (), {"d": 1}, r"missing 1 required positional argument: 'a'"),
        (every_kind, (1,), {}, r"missing 1 required keyword-only argument: 'd'"),
        (only_keywords, (1,), {}, r"takes 0 positional arguments"),
        (plain, (1,), {3: 4}, r"keywords must be strings"),
    ],
)
def test_a_wrong_call_is_a_type_error_that_names_task_and_parameters(function, args, kwargs, said):
    codec = Codec(function, name="mail.send")

    with pytest.raises(TypeError, match=said) as refusal:
        codec.encode_arguments(args, kwargs)

    assert str(refusal.value).startswith("task 'mail.send': ")
    assert "its parameters are (" in str(refusal.value)


def test_arguments_are_stored_by_name_with_the_defaults_of_now():
    body = Codec(every_kind, name="task").encode_arguments((1, 2, 3, 4), {"d": 5, "z": 6})

    assert body == b'{"a":1,"d":5,"b":2,"c":3,"*":[4],"e":5,"**":{"z":6}}'


def test_the_first_parameter_is_skipped_where_the_worker_gives_it():
    codec = Codec(first_positional, name="task", skip_first=True)

    assert codec.encode_arguments((1,), {}) == b'{"x":1}'
    assert codec.decode_arguments(b'{"x":1}') == ((1,), {})


def test_a_parameter_added_since_takes_its_default():
    assert Codec(plain, name="task").decode_arguments(b'{"user":1}') == (
        (1, "hi"),
        {"urgent": False},
    )
    assert Codec(every_kind, name="task").decode_arguments(b'{"a":1,"d":4}') == (
        (1, 2, 3),
        {"d": 4, "e": 5},
    )


def test_a_filled_list_may_be_a_default():
    def task(names: list[str] = ["a"]): ...  # noqa: B006 - that it works is the point

    codec = Codec(task, name="task")

    assert codec.decode_arguments(b"{}") == ((["a"],), {})
    assert codec.encode_arguments((), {}) == b'{"names":["a"]}'


def test_a_default_of_none_makes_none_pass():
    def task(size: int = None): ...  # type: ignore[assignment]  # noqa: RUF013

    codec = Codec(task, name="task")

    assert codec.decode_arguments(codec.encode_arguments((), {})) == ((None,), {})
    assert codec.decode_arguments(codec.encode_arguments((3,), {})) == ((3,), {})


class Mailer:
    def send(self, to: str) -> None: ...

    @staticmethod
    def check(to: str) -> None: ...

    @classmethod
    def build(cls, to: str) -> None: ...

    def __call__(self, to: str) -> None: ...


@functools.wraps(Mailer.check)
def wrapped(*args: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        Mailer().send,
        Mailer.check,
        Mailer.build,
        Mailer(),
        wrapped,
        functools.partial(Mailer().send),
    ],
)
def test_methods_and_other_callables_are_bound_by_what_is_left_to_give(function):
    codec = Codec(function, name="task")

    assert codec.encode_arguments(("ann",), {}) == b'{"to":"ann"}'


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{}", r"\$: object missing required field user"),
        (b'{"user":1,"zz":2}', r"\$: object contains unknown field zz"),
        (b'{"user":"1"}', r"\$\.user: expected int, got str"),
        (b'{"user":null}', r"\$\.user: expected int, got null"),
        (b'{"user":1,"template":[]}', r"\$\.template: expected str, got array"),
        (b'{"user":1.5}', r"\$\.user: expected int, got float"),
        (b"[]", r"\$: expected object, got array"),
        (b"null", r"\$: expected object, got null"),
        (b"", r"\$: Input data was truncated"),
        (b'{"user":', r"\$: Input data was truncated"),
        (b'{"user":1}}', r"\$: JSON is malformed"),
        (b'{"user":NaN}', r"\$: JSON is malformed"),
        (b"\xff\xfe", r"\$: JSON is malformed"),
        (b'{"user":1,"template":"\xff"}', r"\$: 'utf-8' codec can't decode"),
        (b'{"user":1,"template":"\\ud800"}', r"\$: "),
        (b'{"user":' + b"1" * 5000 + b"}", r"\$\.user: integer value out of range"),
        (b'{"user":' + b"[" * 100_000, r"\$\.user: expected int, got array"),
        (b"\x80\x04\x95", r"\$: JSON is malformed"),
    ],
)
def test_foreign_or_old_bytes_are_refused_with_the_path(body, path):
    with pytest.raises(Undecodable, match=path) as refusal:
        Codec(plain, name="mail.send").decode_arguments(body)

    assert str(refusal.value).startswith("task 'mail.send': stored arguments: ")
    assert "redrive it once the task accepts" in str(refusal.value)


def test_depth_without_end_is_refused_within_bounds():
    codec = Codec(everything, name="task")

    with pytest.raises(Undecodable, match="nested too deeply"):
        codec.decode_arguments(b'{"*":' + b"[" * 100_000)


def test_a_key_that_is_given_twice_counts_once():
    assert Codec(plain, name="task").decode_arguments(b'{"user":1,"user":2}')[0] == (2, "hi")


def test_a_stored_dict_is_refused_with_the_key_that_is_wrong():
    def task(scores: dict[str, dict[str, int]]): ...

    body = b'{"scores":{"ann":{"a":1},"bo":{"b":2,"c":"x","d":3},"cy":{}}}'

    with pytest.raises(Undecodable, match=r"\$\.scores\.bo\.c: expected int, got str"):
        Codec(task, name="task").decode_arguments(body)


def test_a_stored_result_that_no_longer_fits_is_refused():
    def task() -> int: ...

    with pytest.raises(Undecodable, match=r"stored result: \$: expected int, got str"):
        Codec(task, name="task").decode_result(b'"text"')


def test_stored_bytes_are_data_only(tmp_path, monkeypatch):
    """Neither a pickle nor a name in a payload may run anything."""
    ran = tmp_path / "ran"
    payload = (
        b'{"*":[{"__reduce__":["os.system",["touch %b"]],"py/object":"os.system",'
        b'"__class__":"subprocess.Popen","__type__":"os.system"}]}' % bytes(ran)
    )
    pickled = b"cos\nsystem\n(S'touch " + bytes(ran) + b"'\ntR."

    (given,), _ = Codec(everything, name="task").decode_arguments(payload)
    with pytest.raises(Undecodable):
        Codec(everything, name="task").decode_arguments(pickled)

    assert set(given) == {"__reduce__", "py/object", "__class__", "__type__"}
    assert not ran.exists()
