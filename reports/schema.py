"""The JSON Schema of ``report.json``, published as ``reports/schema.json``."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from audit.record import SCHEMA, Report


def build() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) from the record itself.

    Unlike the record, which fills the version in for code that builds one, a file must state its ``schema``.
    """
    schema = Report.model_json_schema(by_alias=True)
    schema["required"] = sorted({*schema["required"], "schema"})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:assay:{SCHEMA}",
        **schema,
        "title": "Assay report",
    }


def dumps() -> str:
    """The text of ``schema.json``: sorted keys, two spaces, a final newline."""
    return json.dumps(build(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def published() -> dict[str, Any]:
    """The schema as it was shipped."""
    text = files("reports").joinpath("schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
