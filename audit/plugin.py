"""The pytest plugin. Light, for pytest loads it with or without a model; with one, ``audit.hooks`` takes over."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import suppress
from importlib.metadata import entry_points

import pytest

from audit.errors import AuditError
from audit.options import add_options, effective

CONTROL = "__audit_control__"


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)
    installed = any(e.value == "audit.plugin" for e in entry_points(group="pytest11"))
    if not installed or os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        _add_model(parser)  # loaded by a conftest, too late for the hook below


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None]:
    result = yield
    _add_model(parser)
    return result


def _add_model(parser: pytest.Parser) -> None:
    # A conftest of the user's may hold --model already; --audit-model is there always.
    with suppress(ValueError):
        parser.getgroup("assay").addoption("--model", dest="audit_model", metavar="FILE", help="same as --audit-model")


def pytest_configure(config: pytest.Config) -> None:
    if not getattr(config.option, "audit_model", None) or config.option.help or config.option.version:
        return
    from audit import face_fixtures, fixtures, hooks, image_fixtures

    try:
        hooks.begin(config, effective(config))
    except AuditError as error:
        raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(fixtures, "assay-fixtures")
    config.pluginmanager.register(face_fixtures, "assay-face-fixtures")
    config.pluginmanager.register(image_fixtures, "assay-image-fixtures")
    config.pluginmanager.register(hooks, "assay-hooks")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    controlled = hasattr(metafunc.function, CONTROL) and "variant" in metafunc.fixturenames
    if controlled and not metafunc.config.pluginmanager.has_plugin("assay-hooks"):
        metafunc.parametrize("variant", ["without a model"])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.pluginmanager.has_plugin("assay-hooks") or config.option.collectonly:
        return
    if any(hasattr(getattr(item, "function", None), CONTROL) for item in items):
        raise pytest.UsageError(
            "the suites: expected a model to audit, got none; give --model FILE (start one with `python -m audit init`)"
        )
