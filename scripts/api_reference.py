"""Writes `docs/api.md`, the reference of gRPC and HTTP: `python -m scripts.api_reference`.

The comments of `protos/` are the reference of `k2.v1`, and the committed OpenAPI document that of
the HTTP edge. The file is committed; a test writes it again and compares.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs/api.md"
OPENAPI = ROOT / "clients/typescript/openapi.json"
_PROTOS = ROOT / "protos"
_SYNTAX = (12,)  # paths in a descriptor, by the numbers of its fields
_ENUM, _MESSAGE, _SERVICE = 5, 4, 6
_INNER = 2  # fields of a message, values of an enum, methods of a service
_NESTED = 3
_INTRODUCTION = """\
# API reference

Written by `python -m scripts.api_reference` from the comments of `protos/` and from the document of
the HTTP edge. How a program asks is shown in the [quickstart](quickstart.md); columns are in the
[data dictionary](data-dictionary.md).
"""

Comments = Mapping[tuple[int, ...], str]


def descriptors() -> list[FileDescriptorProto]:
    """Compile the protos, with their comments."""
    names = sorted(path.relative_to(_PROTOS).as_posix() for path in _PROTOS.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "protos"
        options = ["", f"--proto_path={_PROTOS}", "--include_source_info"]
        options += [f"--proto_path={Path(protoc.__file__).parent / '_proto'}"]
        if protoc.main([*options, f"--descriptor_set_out={out}", *names]):
            raise RuntimeError("the protos do not compile")
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def reference(files: Sequence[FileDescriptorProto], openapi: Mapping[str, Any] | None) -> str:
    """Write the reference."""
    lines = [_INTRODUCTION]
    if openapi is not None:
        lines += ["## HTTP", "", *_http(openapi)]
    for file in files:
        comments = _comments(file)
        title = Path(file.name).stem
        lines += [f"## {title}", "", comments.get(_SYNTAX, ""), ""]
        for place, service in enumerate(file.service):
            lines += _service(service, comments, (_SERVICE, place))
        for place, message in enumerate(file.message_type):
            lines += _message(message, comments, (_MESSAGE, place))
        for place, enum in enumerate(file.enum_type):
            lines += _enum(enum, comments, (_ENUM, place))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _comments(file: FileDescriptorProto) -> Comments:
    """Return the comments of a file by path; the one above its syntax is that of the file."""
    found = {}
    for location in file.source_code_info.location:
        said = location.leading_comments or location.trailing_comments
        if said.strip():
            found[tuple(location.path)] = "\n".join(line.strip() for line in said.splitlines())
    return found


def _service(
    service: ServiceDescriptorProto, comments: Comments, path: tuple[int, ...]
) -> Iterator[str]:
    yield from (f"### {service.name}", "", comments.get(path, ""), "")
    for place, method in enumerate(service.method):
        stream = "stream of " if method.server_streaming else ""
        asked, answered = _bare(method.input_type), _bare(method.output_type)
        yield from (f"#### {service.name}.{method.name}", "")
        yield from (f"`{asked}` → {stream}`{answered}`", "")
        yield from (comments.get((*path, _INNER, place), ""), "")


def _message(
    message: DescriptorProto, comments: Comments, path: tuple[int, ...], inside: str = ""
) -> Iterator[str]:
    if message.options.map_entry:
        return
    name = f"{inside}{message.name}"
    yield from (f"### {name}", "", comments.get(path, ""), "")
    if message.field:
        yield from ("| field | type | meaning |", "| --- | --- | --- |")
        for place, field in enumerate(message.field):
            said = _cell(comments.get((*path, _INNER, place), ""))
            yield f"| {field.name} | {_type(field, message)} | {said} |"
        yield ""
    for place, nested in enumerate(message.nested_type):
        yield from _message(nested, comments, (*path, _NESTED, place), f"{name}.")


def _enum(enum: EnumDescriptorProto, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield from (f"### {enum.name}", "", comments.get(path, ""), "")
    yield from ("| value | number | meaning |", "| --- | --- | --- |")
    for place, value in enumerate(enum.value):
        said = _cell(comments.get((*path, _INNER, place), ""))
        yield f"| {value.name} | {value.number} | {said} |"
    yield ""


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    entry = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    name = _bare(field.type_name) if field.type_name else kind
    if name in entry:
        key, value = (_type(part, message) for part in entry[name].field)
        return f"map of {key} to {value}"
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    optional = "optional " if field.proto3_optional else ""
    oneof = field.HasField("oneof_index") and not field.proto3_optional
    one = f", one of `{message.oneof_decl[field.oneof_index].name}`" if oneof else ""
    return f"{'repeated ' if repeated else optional}{name}{one}"


def _bare(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _cell(text: str) -> str:
    """Put a comment into one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _http(openapi: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield from (f"### {method.upper()} {path}", "")
            said = (operation.get("summary", ""), operation.get("description", ""))
            yield from (f"{text}\n" for text in said if text)
            parameters = operation.get("parameters", ())
            if parameters:
                yield from ("| parameter | in | type | meaning |", "| --- | --- | --- | --- |")
            for one in parameters:
                required = ", required" if one.get("required") else ""
                kind = _http_type(one.get("schema", {}))
                said = _cell(one.get("description", ""))
                yield f"| {one['name']} | {one['in']}{required} | {kind} | {said} |"
            yield ""


def _http_type(schema: Mapping[str, Any]) -> str:
    """Name the type of a parameter: its values where it is one of some."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kinds = [_http_type(one) for one in schema.get("anyOf", ())]
    if kinds:
        return " or ".join(kind for kind in kinds if kind != "null")
    return str(schema.get("format") or schema.get("type", "any"))


def main_text() -> str:
    """Write the reference of this tree."""
    openapi = json.loads(OPENAPI.read_text()) if OPENAPI.exists() else None
    return reference(descriptors(), openapi)


if __name__ == "__main__":
    FILE.write_text(main_text())
    print(f"{FILE.name}: {len(FILE.read_text().splitlines())} lines")
