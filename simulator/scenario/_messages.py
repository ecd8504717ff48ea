"""What pydantic found, in plain words and in terms of the file."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from simulator.scenario._near_misses import suggestion
from simulator.specs import meanings

Loc = tuple[str | int, ...]
_MOST_TRANSLATED: Final = 200


class Finding(NamedTuple):
    """One mistake inside a block: where, relative to the block, and what."""

    loc: Loc
    message: str
    of: Literal["key", "value"] = "value"


def translate(
    spec: type[BaseModel],
    data: Mapping[str, Any],
    errors: Collection[Any],
    block: str,
    extra_keys: Collection[str] = (),
) -> list[Finding]:
    """All mistakes of one block.

    Args:
        spec: The class that refused the data.
        data: What it was given.
        errors: `ValidationError.errors()`.
        block: Dotted name of the block.
        extra_keys: Keys of the block that never reach the class (``base``).
    """
    # A list whose items are wrong counts as too short besides.
    within = {tuple(error["loc"])[:length] for error in errors for length in range(1, len(error["loc"]))}
    own = [error for error in errors if error["type"] != "too_short" or tuple(error["loc"]) not in within]
    found = [_finding(spec, data, error, block, extra_keys) for error in own[:_MOST_TRANSLATED]]
    # A misspelt key makes the right one missing as well: one mistake, told once.
    meant = {
        (*f.loc[:-1], f.message.split('"')[1]) for f in found if f.message.startswith("unknown key; did you")
    }
    return [
        f
        for f in found
        if not (f.message.startswith("missing") and (*f.loc, f.message.split('"')[1]) in meant)
    ]


def shown(value: object) -> str:
    """A value as a user would recognise it, cut to a readable length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        clean = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in value[:41])
        return f'the text "{clean if len(value) <= 40 else clean[:37] + "..."}"'
    if isinstance(value, (int, float)):
        text = repr(value)
        return text if len(text) <= 24 else f"{text[:20]}..."
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"


def _finding(
    spec: type[BaseModel], data: Mapping[str, Any], error: Any, block: str, extra_keys: Collection[str]
) -> Finding:
    kind, value = error["type"], error["input"]
    raw = tuple(error["loc"])
    if raw and raw[-1] == "[key]":
        allowed = _unquoted(error.get("ctx", {}).get("expected", ""))
        message = f"unknown key; one of {allowed}" if allowed else "a key must be text"
        return Finding(_strip(raw[:-1], data), message, "key")
    loc = _strip(raw, data)
    if kind == "missing":
        owner = _model_at(spec, loc[:-1], data)
        meaning = meanings(owner).get(str(loc[-1])) if owner else None
        about = f" ({meaning.split('.')[0]})" if meaning else ""
        return Finding(loc[:-1], f'missing key "{loc[-1]}"{about}', "key")
    if kind == "extra_forbidden":
        owner = _model_at(spec, loc[:-1], data)
        keys = {*(owner.model_fields if owner else ()), *(extra_keys if len(loc) == 1 else ())}
        return Finding(loc, suggestion(str(loc[-1]), keys, block), "key")
    if kind == "union_tag_invalid":
        loc = (*loc, error["ctx"]["discriminator"].strip("'"))
    return Finding(loc, _value_message(kind, value, error, _field_at(spec, loc, data)))


def _value_message(kind: str, value: object, error: Any, field: FieldInfo | None) -> str:
    context = error.get("ctx", {})
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind in ("int_type", "int_from_float", "int_parsing", "int_parsing_size"):
        return f"expected a whole number, not {shown(value)}{_number_hint(value)}"
    if kind in ("float_type", "float_parsing"):
        return f"expected a number, not {shown(value)}{_number_hint(value)}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"must be {_range(field, context)}, not {shown(value)}"
    if kind == "bool_type":
        return f"expected true or false, not {shown(value)}"
    if kind == "string_type":
        quote = "; quote it if it is a name" if isinstance(value, (int, float)) else ""
        return f"expected text, not {shown(value)}{quote}"
    if kind == "literal_error":
        return _choice(value, _unquoted(context["expected"]))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"expected a mapping, not {shown(value)}"
    if kind in ("tuple_type", "list_type"):
        return f"expected a list, not {shown(value)}"
    if kind == "too_short":
        return "must not be empty"
    if kind == "finite_number":
        return "must be finite"
    if kind == "union_tag_invalid":
        return _choice(context["tag"], _unquoted(context["expected_tags"]))
    if kind == "union_tag_not_found":
        return f"missing key {_double(context['discriminator'])}"
    return " ".join(str(error["msg"]).split())[:200]


def _choice(value: object, allowed: str) -> str:
    options = [option.strip().strip('"') for option in allowed.replace(" or ", ", ").split(",")]
    close = (
        difflib.get_close_matches(value.lower(), options, n=1, cutoff=0.6) if isinstance(value, str) else []
    )
    hint = f'; did you mean "{close[0]}"?' if close else ""
    listed = " or ".join(part for part in (", ".join(options[:-1]), options[-1]) if part)
    return f"must be {listed}, not {shown(value)}{hint}"


def _unquoted(text: str) -> str:
    return text.replace("'", "")


def _double(text: str) -> str:
    return text.replace("'", '"')


def _number_hint(value: object) -> str:
    if not isinstance(value, str):
        return ""
    bare = value.replace("_", "").replace(",", "").strip()
    return f"; write {bare}" if bare.lstrip("+-").isdigit() and len(bare) < 20 else ""


def _range(field: FieldInfo | None, context: Mapping[str, Any]) -> str:
    bounds: dict[str, Any] = {key: context[key] for key in ("ge", "gt", "le", "lt") if key in context}
    for constraint in _constraints(field):
        for key in ("ge", "gt", "le", "lt"):
            bound = getattr(constraint, key, None)
            if bound is not None:
                bounds.setdefault(key, bound)
    if "ge" in bounds and "le" in bounds:
        return f"{bounds['ge']:,} to {bounds['le']:,}"
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return " and ".join(f"{words[key]} {bounds[key]:,}" for key in words if key in bounds)


def _constraints(field: FieldInfo | None) -> Iterator[object]:
    if field is not None:
        yield from field.metadata
        yield from _constraints_of(field.annotation)


def _constraints_of(annotation: object) -> Iterator[object]:
    for argument in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        if isinstance(argument, FieldInfo):
            yield from argument.metadata
        else:
            yield argument
            yield from _constraints_of(argument)


def _strip(loc: Loc, data: object) -> Loc:
    """Leave out what pydantic adds to a location: the tag of a union's member."""
    kept: list[str | int] = []
    for index, step in enumerate(loc):
        if isinstance(data, Mapping):
            is_tag = (
                step not in data and step in (data.get("type"), data.get("kind")) and index < len(loc) - 1
            )
            if is_tag or (index == len(loc) - 1 and step not in data and step == data.get("type")):
                continue
            data = data.get(step)
        elif isinstance(data, (list, tuple)) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            data = None
        kept.append(step)
    return tuple(kept)


def _field_at(spec: type[BaseModel], loc: Loc, data: Mapping[str, Any]) -> FieldInfo | None:
    owner = _model_at(spec, loc[:-1], data) if loc else None
    return owner.model_fields.get(str(loc[-1])) if owner else None


def _model_at(spec: type[BaseModel], loc: Loc, data: object) -> type[BaseModel] | None:
    """The class of the mapping at a location, found along the annotations."""
    owner: type[BaseModel] | None = spec
    candidates: list[type[BaseModel]] = []
    named = False  # whether the step is a name of the user's in a mapping of models
    for step in loc:
        data = data[step] if isinstance(data, (list, tuple)) and isinstance(step, int) else _get(data, step)
        if named:
            named = False
        elif isinstance(step, str) and owner is not None:
            field = owner.model_fields.get(step)
            candidates = list(_models_in(field.annotation)) if field else []
            named = field is not None and get_origin(field.annotation) is dict
        owner = _member(candidates, data)
    return owner


def _get(data: object, step: str | int) -> object:
    return data.get(step) if isinstance(data, Mapping) else None


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _member(candidates: list[type[BaseModel]], data: object) -> type[BaseModel] | None:
    if len(candidates) == 1:
        return candidates[0]
    tag = _get(data, "type")
    for candidate in candidates:
        field = candidate.model_fields.get("type")
        if field is not None and tag in get_args(field.annotation):
            return candidate
    return None
