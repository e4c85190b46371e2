"""What pytest does when there is a model: collection by profile, verdicts as outcomes. Thin: the work is elsewhere."""

from __future__ import annotations

import importlib
from collections.abc import Generator, Iterable
from typing import Any

import pytest
import torch

from audit.control import ATTRIBUTE, REGISTRY, ControlSpec, base
from audit.errors import AuditError
from audit.options import Options
from audit.recorder import Recorder
from audit.session import AuditSession
from audit.stash import RECORD, SESSION, STEP, TRIAL, Inapplicable, Undecided
from audit.trial import NotApplicable, NotAttacked


def begin(config: pytest.Config, options: Options) -> None:
    """Load and validate everything; the controller also starts the journal.

    Raises:
        AuditError: the first thing that is wrong.
    """
    session = AuditSession(options)
    config.stash[SESSION] = session
    config.stash[STEP] = lambda share, text: None  # noqa: ARG005
    if not _is_worker(config):
        config.pluginmanager.register(Recorder(config, session), "assay-recorder")


def pytest_report_header(config: pytest.Config) -> list[str]:
    session = config.stash[SESSION]
    s, o = session.subject, session.options
    access = ", ".join(f"{task} ({access})" for task, access in s.access.items())
    lines = [
        f"assay: {s.path} offers {access}; device {s.device}, {o.precision}, {o.threads} thread(s) per process",
        f"assay: profile {session.profile.name}, budget {o.budget}"
        + (" (indicative: the point estimate decides)" if session.indicative else "")
        + f", seed {o.seed}",
    ]
    for d in session.data_records():
        labels = {"self": ", labelled by the model itself", "construction": ", boxes by construction"}
        lines.append(
            f"assay: data {d.name}: {d.images} images, {d.objects} objects{labels.get(d.labelled_by, '')}; "
            f"{d.craft_images} to craft on, {d.held_out_images} held out"
            + (f"; {len(d.unreadable)} unreadable" if d.unreadable else "")
        )
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    spec: ControlSpec | None = getattr(metafunc.function, ATTRIBUTE, None)
    if spec is None or "variant" not in metafunc.fixturenames:
        return
    wanted = metafunc.config.stash[SESSION].profile.variants(spec.id)
    metafunc.parametrize("variant", wanted or ["not in the profile"])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = {item: id for item in items if (id := control_id(item)) is not None}
    if not ours:
        return
    session = config.stash[SESSION]
    if not _is_worker(config):
        check_selection(config, session)
    workerinput = getattr(config, "workerinput", None)
    finished = workerinput["audit_finished"] if workerinput else [c["id"] for c in recorder(config).finished]
    keep = [i for i in items if i not in ours or _runs(session, ours[i], i, finished)]
    kept = set(keep)
    config.hook.pytest_deselected(items=[i for i in items if i not in kept])
    items[:] = keep


def check_selection(config: pytest.Config, session: AuditSession) -> None:
    """Unknown ids in the profile or in --audit-control end the run before it starts."""
    try:
        for name in session.profile.suites:
            importlib.import_module(name)
        session.profile.require_known(REGISTRY)
        _check_chosen(session)
    except AuditError as error:
        raise pytest.UsageError(str(error)) from error
    except ImportError as error:
        raise pytest.UsageError(
            f"profile {session.profile.path}: expected `suites` to name modules that can be imported, got {error}; "
            "correct the names"
        ) from error
    if not config.option.collectonly:
        recorder(config).plan()


def _check_chosen(session: AuditSession) -> None:
    known = set(session.profile.controls)
    for wanted in session.options.control:
        if wanted not in known | {base(i) for i in known}:
            raise AuditError(
                f"--audit-control {wanted}",
                expected="a control of the profile",
                got="another id",
                mend=f"choose among {', '.join(sorted(known))}",
            )


def _runs(session: AuditSession, id: str, item: pytest.Item, finished: Iterable[str]) -> bool:
    spec: ControlSpec = getattr(item.function, ATTRIBUTE)  # type: ignore[attr-defined]
    chosen = session.options.control
    return (
        id in session.profile.controls
        and spec.task in session.subject.tasks
        and id not in finished
        and (not chosen or id in chosen or base(id) in chosen)
    )


def control_id(item: pytest.Item) -> str | None:
    """The full id of a test item that is a control."""
    spec: ControlSpec | None = getattr(getattr(item, "function", None), ATTRIBUTE, None)
    if spec is None:
        return None
    params = getattr(getattr(item, "callspec", None), "params", {})
    return f"{spec.id}/{params['variant']}" if "variant" in params else spec.id


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    id = control_id(item)
    if id is not None:
        spec: ControlSpec = getattr(item.function, ATTRIBUTE)  # type: ignore[attr-defined]
        item.stash[TRIAL] = item.config.stash[SESSION].trial(id, spec)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    result = yield
    trial = pyfuncitem.stash.get(TRIAL, None)
    if trial is None:
        return result
    record = trial.conclude()
    pyfuncitem.stash[RECORD] = record
    if record.verdict == "fail":
        pytest.fail(record.reason, pytrace=False)
    if record.verdict == "inconclusive":
        raise Undecided(record.reason)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    trial = item.stash.get(TRIAL, None)
    if trial is None or call.when == "teardown" or (call.when == "setup" and call.excinfo is None):
        return report
    record = item.stash.get(RECORD, None)
    if record is None:
        assert call.excinfo is not None
        error = call.excinfo.value
        if isinstance(error, Undecided):
            error = NotAttacked(str(error))
        elif isinstance(error, Inapplicable):
            error = NotApplicable(str(error))
        record = trial.fail_with(error)
    session = item.config.stash[SESSION]
    if not session.model_unchanged:
        changed = "The audit changed the model's weights, buffers or modes, so its numbers are not of the model given."
        record = record.model_copy(update={"verdict": "error", "reason": changed})
    report.audit = {  # type: ignore[attr-defined]
        "control": record.model_dump(mode="json"),
        "preconditions": [p.model_dump(mode="json") for p in session.facts],
    }
    report.user_properties += [("audit-control", record.id), ("audit-verdict", record.verdict)]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    audit: dict[str, Any] | None = getattr(report, "audit", None)
    if audit is None:
        return None
    verdict = audit["control"]["verdict"]
    shown = {
        "inconclusive": ("inconclusive", "?", "INCONCLUSIVE"),
        "waived": ("waived", "w", "WAIVED"),
        "not_applicable": ("not applicable", "-", "NOT APPLICABLE"),
    }
    return shown.get(verdict)


def recorder(config: pytest.Config) -> Recorder:
    """The controller's recorder."""
    found: Recorder | None = config.pluginmanager.get_plugin("assay-recorder")
    assert found is not None
    return found


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
