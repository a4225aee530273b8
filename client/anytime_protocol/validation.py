"""Reading values from JSON and writing them as JSON: one mechanism for all classes.

A class of the wire is a frozen dataclass that inherits from `JsonValue`. Its annotations say what a
field may hold (`number`, `whole`, `text`, ...), and pydantic reads, writes and describes it, so
that FastAPI can take the same class for a body. Reading is strict: JSON's `true` is no number, 2.0
is no whole number, and `null` is not an absent field. Building a value in Python checks nothing,
unless the class does so itself (`Budget`).
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Self, TypeAlias, TypeGuard, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from anytime_protocol.errors import BudgetError, FieldError, describe, shorten

# A JSON object as `json.loads` gives it.
JsonObject: TypeAlias = dict[str, Any]

# A request id: URL-safe, so that it can stand in `/v1/requests/{id}` as it is.
ID_FORM: Final = re.compile(r"[A-Za-z0-9._~:-]{1,128}")

# A model's name; it can stand in `/v1/models/{model}` as it is.
NAME_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

# The largest whole number: above it JavaScript's numbers are not exact.
MAX_WHOLE: Final = 2**53

# More faults in one value than this are counted, not named.
MAX_FAULTS: Final = 100


def is_whole(value: object) -> TypeGuard[int]:
    """Whether the value is a whole number; Python's booleans, which are `int` too, are not."""
    return isinstance(value, int) and not isinstance(value, bool)


class Constraint:
    """Annotates a field with what it may hold; errors say it in words.

    Args:
        schema: how pydantic checks and writes the field.
        words: what is expected.
    """

    __slots__ = ("_schema", "_validator", "words")

    def __init__(self, schema: CoreSchema, words: str) -> None:
        self.words = words
        self._schema = core_schema.custom_error_schema(
            schema, "expected", custom_error_message=words
        )
        self._validator = SchemaValidator(self._schema)

    def accepts(self, value: object) -> bool:
        """Whether a value of Python may stand in the field."""
        return self._validator.isinstance_python(value)

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return self._schema


def number(low: float = 0.0, high: float = math.inf, *, digits: int | None = 6) -> Constraint:
    """A finite number with `low <= number <= high`.

    Args:
        low: the least that is allowed.
        high: the most that is allowed.
        digits: after the point, when it is written; None writes it exactly.
    """
    rounded = core_schema.plain_serializer_function_ser_schema(
        lambda value: round(float(value), digits), return_schema=core_schema.float_schema()
    )
    schema = core_schema.float_schema(
        strict=True,
        ge=None if low == -math.inf else low,
        le=None if high == math.inf else high,
        allow_inf_nan=False,
        serialization=None if digits is None else rounded,
    )
    return Constraint(schema, _range("number", low, high))


def whole(low: int = 0, high: int = MAX_WHOLE) -> Constraint:
    """A whole number with `low <= number <= high`."""
    schema = core_schema.int_schema(strict=True, ge=low, le=high)
    return Constraint(schema, _range("whole number", low, high))


def text(limit: int) -> Constraint:
    """A string of at most `limit` characters; a longer one is cut when it is written."""
    cut = core_schema.plain_serializer_function_ser_schema(
        lambda value: shorten(value, limit), return_schema=core_schema.str_schema()
    )
    schema = core_schema.str_schema(strict=True, max_length=limit, serialization=cut)
    return Constraint(schema, f"text of at most {limit} characters")


def form(pattern: re.Pattern[str]) -> Constraint:
    """A string that `pattern` matches as a whole."""
    schema = core_schema.str_schema(strict=True, pattern=f"^{pattern.pattern}$")
    return Constraint(schema, f"text of the form {pattern.pattern}")


def one_of(*numbers: float) -> Constraint:
    """One of a few numbers."""
    schema = core_schema.chain_schema(
        [core_schema.float_schema(strict=True), core_schema.literal_schema(list(numbers))]
    )
    return Constraint(schema, "one of " + ", ".join(f"{number:g}" for number in numbers))


def converted(
    wire: Any, read: Callable[[Any], object], write: Callable[[Any], object]
) -> GetPydanticSchema:
    """A field whose JSON form is that of another type.

    Args:
        wire: the type whose JSON form it has.
        read: makes the field's value of one of that type.
        write: the other way.
    """

    def schema(_source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = handler.generate_schema(wire)
        written = core_schema.plain_serializer_function_ser_schema(write, return_schema=inner)
        return core_schema.no_info_after_validator_function(read, inner, serialization=written)

    return GetPydanticSchema(schema)


def omit(default: object) -> Any:
    """Annotates a field that is not written where it has this value."""
    return Field(exclude_if=lambda value: value == default)


def _range(what: str, low: float, high: float) -> str:
    if low == -math.inf:
        return f"a finite {what}"
    if high in (math.inf, MAX_WHOLE):
        return f"a {what} >= {low:.10g}"
    return f"a {what} from {low:.10g} to {high:.10g}"


_T = TypeVar("_T")

# A field that may be absent: None in Python, not there (and never `null`) in the JSON.
Absent: TypeAlias = Annotated[
    _T | None,
    GetPydanticSchema(lambda source, handler: handler(source)["schema"]),  # not nullable
    omit(None),
]

Amount: TypeAlias = Annotated[float, number()]
Share: TypeAlias = Annotated[float, number(0, 1)]
Flag: TypeAlias = Annotated[bool, Constraint(core_schema.bool_schema(strict=True), "true or false")]
Id: TypeAlias = Annotated[str, form(ID_FORM)]
Name: TypeAlias = Annotated[str, form(NAME_FORM)]


class JsonValue:
    """Base of all values that have a JSON form; they are frozen dataclasses."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", ser_json_inf_nan="constants"
    )
    ERROR: ClassVar[type[FieldError]] = FieldError
    PATH: ClassVar[str] = ""

    @classmethod
    def from_json(
        cls, value: object, path: str | None = None, *, ignore_unknown: bool = False
    ) -> Self:
        """Reads the JSON form.

        Args:
            value: a JSON object as `json.loads` gives it.
            path: where it stands in its message, for error messages.
            ignore_unknown: whether unknown fields, those of inner objects included, are passed
                over, as clients do; servers refuse them.

        Raises:
            FieldError: a field is missing, unknown, of the wrong type or out of range; a
                `BudgetError` if it is a budget's.
        """
        adapter = adapter_of(cls)
        try:
            result: Self = adapter.validate_python(
                value, extra="ignore" if ignore_unknown else "forbid"
            )
        except ValidationError as error:
            where = cls.PATH if path is None else path
            if error.error_count() > MAX_FAULTS:  # to list them would take too long
                found = f"{error.error_count()} faults"
                raise cls.ERROR(where or "message", found, "fields of this protocol") from None
            details = error.errors(include_url=False)[0]
            expected = _expected_at(adapter, value, details["loc"], details["type"])
            raise to_field_error(details, where, cls.ERROR, expected) from None
        return result

    def to_json(self) -> JsonObject:
        """The JSON form: what is absent or as by default is left out."""
        wire: JsonObject = adapter_of(type(self)).dump_python(
            self, mode="json", by_alias=True, warnings=False
        )
        return wire


_adapters: dict[Any, TypeAdapter[Any]] = {}


def adapter_of(kind: Any) -> TypeAdapter[Any]:
    """Pydantic's reader and writer of a type; built when it is first needed, then kept."""
    adapter = _adapters.get(kind)
    if adapter is None:
        adapter = _adapters[kind] = TypeAdapter(kind)
    return adapter


def to_field_error(
    details: Mapping[str, Any],
    path: str = "",
    error: type[FieldError] = FieldError,
    expected: str | None = None,
) -> FieldError:
    """The error of this package that says what one error of pydantic says.

    Args:
        details: one of `ValidationError.errors()`, or of FastAPI's.
        path: where the value stands in its message.
        error: class of the result; errors in a field `budget` are a `BudgetError` in any case.
        expected: what should have been there, if it is known better.
    """
    location: Sequence[str | int] = [part for part in details["loc"] if part != "[key]"]
    kind, context = details["type"], details.get("ctx", {})
    if location[:1] == ["budget"] and (kind != "missing" or len(location) > 1):
        error = BudgetError
    cause = context.get("error")
    if isinstance(cause, FieldError):
        return error(_join(path, [*location, cause.field]), cause.found, cause.expected)
    if expected is None:
        template = _EXPECTED.get(kind)
        expected = template.format_map(context) if template else details["msg"]
    found = _FOUND.get(kind) or describe(details["input"])
    return error(_join(path, location) or "message", found, expected)


_FOUND: Final = {"missing": "nothing", "unexpected_keyword_argument": "an unknown field"}
_EXPECTED: Final = {
    "unexpected_keyword_argument": "only fields of this protocol",
    "dataclass_type": "a JSON object",
    "dict_type": "a JSON object",
    "tuple_type": "a list",
    "too_long": "a list of at most {max_length}",
    "enum": "one of {expected}",
    "literal_error": "one of {expected}",
}


def _join(path: str, location: Sequence[str | int]) -> str:
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += ("." if path else "") + shorten(part)
    return path


def _expected_at(
    adapter: TypeAdapter[Any], value: object, location: Sequence[str | int], kind: str
) -> str | None:
    """What a missing field should hold: what pydantic says about a null in its place."""
    if kind != "missing":
        return None
    try:
        adapter.validate_python(_with_null(value, location), extra="ignore")
    except ValidationError as error:
        for details in error.errors(include_url=False):
            if details["loc"] == location:
                return to_field_error(details).expected
    return None


def _with_null(value: Any, location: Sequence[str | int]) -> object:
    if not location:
        return None
    head, *rest = location
    if isinstance(head, int):
        return [*value[:head], _with_null(value[head] if rest else None, rest)]
    return value | {head: _with_null(value.get(head), rest)}
