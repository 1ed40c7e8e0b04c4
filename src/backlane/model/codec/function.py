"""The codec of one function: its arguments and results as JSON, compiled once.

What is written is proved: the bytes are decoded again by the function's annotations and
compared with what was given, so that whatever enqueue accepts a worker can decode, and
nothing arrives changed. A call of three plain arguments takes about 1 µs that way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any

import msgspec

from backlane.errors import TooLarge, Undecodable, Unencodable
from backlane.model.codec import proof
from backlane.model.codec.call import Arguments, compile_call
from backlane.model.codec.envelope import Hole, emptied, holes
from backlane.model.codec.hints import checked_hint
from backlane.model.codec.json import MAX_DEPTH, decoder, encode, is_too_deep
from backlane.model.codec.misfit import misfits

DEFAULT_MAX_BYTES = 1024 * 1024

_EMPTY = b"{}"
_NULL = b"null"
_SURELY_SHALLOW = 2 * MAX_DEPTH  # bytes: each level takes two brackets


class Codec:
    """Encodes and decodes what goes into and comes out of one function.

    Decided, where JSON and Python differ:

    - Parameters without an annotation, and `Any`, take JSON values only: None, bool,
      int, finite float, str, list, and dict with text keys. Anything else (a tuple, a
      set, a dict with number keys, a dataclass) would come back as something else, so
      it is refused. Annotated, all of them pass.
    - An object of a subclass, under the annotation of its base, is refused where it would
      lose its class or fields. Subclasses of plain types (`str`, `int`, `datetime`, ...)
      pass, and arrive as the plain type.
    - `True` under `int` is refused; an `int` under `float` passes if a float can hold it.
    - A `Sequence` takes lists, tuples and sets, and arrives as a list.
    - Aware times keep their instant and offset; the name of their zone is not kept.
    - A parameter whose default is None takes None, whatever its annotation says.
    - Defaults are part of the call: the value at enqueue time is stored.

    Args:
        function: what is called; its annotations are resolved here.
        name: the task's, for messages.
        skip_first: the first parameter is a `Context`, given by the worker.
        max_bytes: the most that arguments or a result may take, encoded.
        keeps_result: False lets the function return what cannot be stored.

    Raises:
        BadOption: an annotation or default cannot be stored; the message names it.
    """

    __slots__ = (
        "_bind",
        "_decode_arguments",
        "_decode_result",
        "_result_hint",
        "_signature",
        "_slots",
        "_struct",
        "_takes_nothing",
        "_unbind",
        "keeps_result",
        "max_bytes",
        "name",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        skip_first: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
        keeps_result: bool = True,
    ) -> None:
        self.name, self.max_bytes = name, max_bytes
        self.keeps_result = keeps_result
        owner = f"task {name!r}"
        call = compile_call(function, owner, skip_first=skip_first)
        self._bind, self._unbind = call.bind, call.unbind
        self._struct, self._signature = call.struct, call.signature
        self._slots, self._takes_nothing = call.slots, not call.slots
        self._decode_arguments = decoder(call.struct)
        result = checked_hint(call.result, owner, "the result") if keeps_result else Any
        self._result_hint = result
        self._decode_result = decoder(result)

    @property
    def parameters(self) -> tuple[msgspec.structs.FieldInfo, ...]:
        """What a call takes: each by its name in JSON, with its type and default."""
        return msgspec.structs.fields(self._struct)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names under which arguments are stored."""
        return tuple(slot.key for slot in self._slots)

    @property
    def result(self) -> Any:
        """The type of what a call returns."""
        return self._result_hint

    def encode_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return a call's arguments as a JSON object by name.

        Raises:
            TypeError: the function cannot be called like that.
            Unencodable: a value does not fit its annotation, or has no encoding.
            TooLarge: the encoding passes `max_bytes`.
        """
        if self._takes_nothing and not args and not kwargs:
            return _EMPTY
        try:
            call = self._bind(*args, **kwargs)
        except TypeError as error:
            takes = f"its parameters are {self._signature}"
            raise TypeError(f"task {self.name!r}: {error}; {takes}") from None
        return self._proved(call, self._struct, self._decode_arguments, "arguments")

    def encode_parts(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], is_filler: Callable[[object], bool]
    ) -> tuple[bytes, list[Hole]]:
        """Return a call's arguments of which some are not known yet, and where those go.

        What is known is proved; what stands beside an unknown value in a list or dict is
        seen when it is decoded.

        Raises:
            TypeError, Unencodable, TooLarge: as `encode_arguments`.
        """
        try:
            call = self._bind(*args, **kwargs)
        except TypeError as error:
            takes = f"its parameters are {self._signature}"
            raise TypeError(f"task {self.name!r}: {error}; {takes}") from None
        found: list[Hole] = []
        parts: dict[str, msgspec.Raw] = {}
        for slot in self._slots:
            value = getattr(call, slot.field)
            own = holes(value, (slot.key,), is_filler)
            if own:
                parts[slot.key] = msgspec.Raw(encode(emptied(value, is_filler)))
            else:
                what = f"argument {slot.name!r}"
                proved = self._proved(value, slot.hint, decoder(slot.hint), what)
                parts[slot.key] = msgspec.Raw(proved)
            found += own
        return encode(parts), found

    def lacks(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Say whether a call would lack an argument, and otherwise be one of this function."""
        parameters = [
            Parameter(slot.name, slot.kind, default=slot.default)
            if slot.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
            else Parameter(slot.name, slot.kind)
            for slot in self._slots
        ]
        signature = Signature(parameters)
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            try:
                signature.bind_partial(*args, **kwargs)
            except TypeError:
                return False
            return True
        return False

    def decode_arguments(self, body: bytes) -> Arguments:
        """Return `(args, kwargs)` to call the function with.

        A parameter that is missing in `body` takes its default.

        Raises:
            Undecodable: the bytes are not a call of this function.
        """
        if body == _EMPTY and self._takes_nothing:
            return (), {}
        try:
            return self._unbind(self._decode_arguments(body))
        except Exception as error:  # decoding runs code of the user's classes too
            raise self._undecodable(error, body, self._decode_arguments, "arguments") from error

    def misfits(self, body: bytes) -> list[proof.Found]:
        """Return what keeps these bytes from being a call of this function, each with its path."""
        return misfits(self._slots, body)

    def encode_result(self, value: Any) -> bytes:
        """Return what the function returned as JSON.

        Raises:
            Unencodable: it does not fit the annotation, or has no encoding.
            TooLarge: the encoding passes `max_bytes`.
        """
        if value is None and self._result_hint in (None, Any, type(None)):
            return _NULL
        return self._proved(value, self._result_hint, self._decode_result, "result")

    def encode_needed(self, value: Any) -> bytes:
        """Return a result that others need, of a task that otherwise keeps none.

        Raises:
            Unencodable, TooLarge: it has no encoding, or a too large one.
        """
        try:
            data = encode(value)
        except Exception as error:  # an encoder of the user's own class may raise anything
            raise self._unencodable("result", proof.unencodable(value)) from error
        return self._small(data, "result")

    def decode_result(self, data: bytes) -> Any:
        """Return a stored result as the function returned it.

        Raises:
            Undecodable: the bytes do not fit the function's return annotation.
        """
        try:
            return self._decode_result(data)
        except Exception as error:  # decoding runs code of the user's classes too
            raise self._undecodable(error, data, self._decode_result, "result") from error

    def _proved(self, value: Any, hint: Any, decode: Callable[[bytes], Any], what: str) -> bytes:
        try:
            body = encode(value)
        except Exception as error:  # an encoder of the user's own class may raise anything
            raise self._unencodable(what, proof.unencodable(value)) from error
        self._small(body, what)
        try:
            back = decode(body)
            is_same = back == value
        except Exception as error:  # decoding and comparing run code of the user's classes
            found = self._misfit(error, value, body, decode)
            raise self._unencodable(what, found) from error
        if not is_same:
            different = proof.not_finite(value) or proof.difference(value, back, hint, "$")
            if different is not None:
                raise self._unencodable(what, different)
        if len(body) > _SURELY_SHALLOW and is_too_deep(body):
            raise self._unencodable(what, proof.too_deep())
        return body

    def _small(self, body: bytes, what: str) -> bytes:
        if len(body) > self.max_bytes:
            raise TooLarge(
                f"task {self.name!r}: {what} take{'' if what == 'arguments' else 's'} {len(body)} "
                f"bytes, the limit is {self.max_bytes}; store large data elsewhere and pass "
                "its id, or raise max_bytes"
            )
        return body

    def _misfit(
        self, error: Exception, value: Any, body: bytes, decode: Callable[[bytes], Any]
    ) -> proof.Found:
        if isinstance(error, RecursionError):
            return proof.too_deep()
        found = proof.not_finite(value)  # it is written as null, which would blame another
        if found is not None:
            return found
        if isinstance(error, msgspec.ValidationError):
            found = proof.narrowed(error, body, decode)
            return proof.Found(found.path, f"{found.why}; pass what the annotation says")
        return proof.Found("$", f"does not survive storing: {proof.said(error)}; pass plain data")

    def _unencodable(self, what: str, found: proof.Found) -> Unencodable:
        return Unencodable(f"task {self.name!r}: {what}: {found.message}")

    def _undecodable(
        self, error: Exception, body: bytes, decode: Callable[[bytes], Any], what: str
    ) -> Undecodable:
        match error:
            case msgspec.ValidationError():
                problem = proof.narrowed(error, body, decode).message
            case RecursionError():
                problem = "$: is nested too deeply to be decoded"
            case _:
                problem = f"$: {proof.said(error)}"
        remedy = (
            "cancel or delete the job, or redrive it once the task accepts them"
            if what == "arguments"
            else "read it as plain JSON from the job's record"
        )
        return Undecodable(f"task {self.name!r}: stored {what}: {problem}; {remedy}")
