"""pytest collects ``*.scenario.yaml``: one item for each mode of each scenario.

Loaded at the start of every pytest run where dossim is installed, so nothing heavy is imported before there is a
scenario. An item drills on the running kernel. Where that is not possible, it only predicts: then it fails, or is
skipped with the reason, but never passes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dossim.report.view import View
    from dossim.scenario.run import ScenarioResult, ScenarioRunner
    from enforcer.model.choices import ModeChoice

SUFFIXES = (".scenario.yaml", ".scenario.yml")
MARKERS = (
    "needs_root: needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF",
    "needs_xdp_native: needs an interface with native XDP (veth has it since Linux 4.19)",
    "slow: takes longer than a few seconds",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dossim", "scenario files")
    group.addoption(
        "--dossim-allow-path",
        action="append",
        default=[],
        metavar="DIR",
        help="scenarios may name files below this directory too, besides their own and rootdir; may be repeated",
    )
    group.addoption(
        "--dossim-allow-large", action="store_true", help="scenarios may describe as many packets as memory holds"
    )
    what = "directories below which scenarios may name files too"
    # mypy wants a literal of pytest's stubs
    parser.addini("dossim_allow_path", what, type="paths")  # type: ignore[maybe-unrecognized-str-typeform]


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    if file_path.name.endswith(SUFFIXES):
        return ScenarioFile.from_parent(parent, path=file_path, nodeid=_node_id(file_path, parent))
    return None


def _node_id(path: Path, parent: pytest.Collector) -> str | None:
    """None lets pytest use the file name, which it prints unescaped: not if the name contains terminal control
    characters.
    """
    from enforcer.model.printable import printable

    relative = os.path.relpath(path, parent.config.rootpath)
    return None if printable(relative) == relative else printable(relative)


class ScenarioFile(pytest.File):
    """One scenario file."""

    def collect(self) -> Iterator[ScenarioItem]:
        """An item for each mode. An invalid scenario file is a collection error that lists every finding."""
        from enforcer.model.errors import EnforcerError
        from enforcer.model.printable import printable_lines

        try:
            runner = self._runner()
        except EnforcerError as error:
            raise self.CollectError(printable_lines(error)) from None
        for mode in runner.scenario.modes:
            yield ScenarioItem.from_parent(self, name=str(mode), runner=runner, mode=mode)

    def _runner(self) -> ScenarioRunner:
        """Raises SimulatorError without ``dossim[sim]``, and whatever is wrong with the file."""
        from dossim.model.errors import SimulatorError, is_of_simulator

        try:
            from dossim.scenario.budget import DEFAULT, LARGE
            from dossim.scenario.load import load_scenario
            from dossim.scenario.run import ScenarioRunner
        except ModuleNotFoundError as error:
            if is_of_simulator(error):
                raise SimulatorError(self.path.name, error) from error
            raise
        limits = LARGE if self.config.getoption("--dossim-allow-large") else DEFAULT
        scenario = load_scenario(
            _relative(self.path, self.config.invocation_params.dir),
            root=self.config.rootpath,
            allow=_allowed(self.config),
            limits=limits,
        )
        return ScenarioRunner(scenario, limits=limits)


class ScenarioItem(pytest.Item):
    """A scenario in one mode."""

    def __init__(self, *, runner: ScenarioRunner, mode: ModeChoice, **given: Any) -> None:
        super().__init__(**given)
        self._runner = runner
        self._mode = mode
        self.add_marker(pytest.mark.needs_root)
        if str(mode) == "native":
            self.add_marker(pytest.mark.needs_xdp_native)
        if runner.scenario.slow:
            self.add_marker(pytest.mark.slow)

    def runtest(self) -> None:
        """Raises ScenarioFailed; skips if it could only predict and that held."""
        from dossim.report.view import view_of_scenario
        from enforcer.model.errors import PrivilegeError, UnsupportedKernelError
        from enforcer.model.printable import printable

        result, why_not = self._drill((PrivilegeError, UnsupportedKernelError))
        view = view_of_scenario(result)
        self._record(view)
        if not view.holds:
            raise ScenarioFailed(view)
        if not view.drilled:
            pytest.skip(printable(f"prediction half held; {why_not}"))

    def _drill(self, unable: tuple[type[Exception], ...]) -> tuple[ScenarioResult, str]:
        """The drill, or the prediction and why there was no drill."""
        from enforcer.model.errors import PrivilegeError

        try:
            return self._runner.drill(self._mode), ""
        except unable as error:
            needs = "drill needs root" if isinstance(error, PrivilegeError) else "no drill on this host"
            return self._runner.predict(self._mode), f"{needs}: {error}"

    def _record(self, view: View) -> None:
        """Records the properties that JUnit and other reporters show."""
        from enforcer.model.printable import printable

        self.user_properties.append(("scenario", printable(view.title)))
        self.user_properties.append(("half", "drill" if view.drilled else "prediction"))
        self.user_properties.extend(("about", printable(sentence)) for sentence in view.about)
        for name in ("packets", "matched", "mismatched", "unobserved", "undetermined", "not_sendable"):
            self.user_properties.append((name, getattr(view, name)))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What did not hold, without a traceback; a traceback only for a bug."""
        from enforcer.model.errors import EnforcerError, InternalError
        from enforcer.model.printable import printable_lines

        if isinstance(excinfo.value, ScenarioFailed):
            return excinfo.value.report()
        if isinstance(excinfo.value, EnforcerError) and not isinstance(excinfo.value, InternalError):
            return printable_lines(f"{type(excinfo.value).__name__}: {excinfo.value}")
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        from enforcer.model.printable import printable

        return Path(printable(self.path)), 0, printable(f"{self._runner.scenario.name} [{self._mode}]")


class ScenarioFailed(AssertionError):
    """An expectation of a scenario did not hold."""

    def __init__(self, view: View) -> None:
        super().__init__(view.summary)
        self._view = view

    def report(self) -> str:
        """The verdict, each failed expectation, and the first mismatches."""
        from dossim.report.text import failure_lines
        from enforcer.model.printable import printable

        return "\n".join([printable(self._view.summary), *failure_lines(self._view)])


def _allowed(config: pytest.Config) -> list[Path]:
    """The directories of the command line and of the ini file."""
    return [*map(Path, config.getoption("--dossim-allow-path")), *config.getini("dossim_allow_path")]


def _relative(path: Path, folder: Path) -> Path:
    """The path as the user would write it."""
    relative = Path(os.path.relpath(path, folder))
    return path if relative.parts[:1] == ("..",) else relative
