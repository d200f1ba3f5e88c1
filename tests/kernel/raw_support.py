"""Runs the same tests with both raw backends: each must behave as raw is specified."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from enforcer.backends.base import BackendDriver
from enforcer.backends.iptables import IptablesBackend
from enforcer.backends.iptables.settings import settings_of
from enforcer.backends.nftables import NftablesBackend
from enforcer.backends.nftables.settings import settings_of as nft_settings_of
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import InterfacePlan, Plan
from enforcer.policy.resources import FelixConfiguration
from enforcer.policy.ruletable import RuleTable
from tests.kernel.iptables_support import all_tables, everything, run


@dataclass(frozen=True)
class RawDriver:
    """One of the backends, with the commands and names that tests need for it."""

    word: Backend

    @property
    def backend(self) -> BackendDriver:
        return self.configured()

    def configured(self, **fields: Any) -> BackendDriver:
        """The backend that a FelixConfiguration with these fields configures."""
        felix = FelixConfiguration("default", **fields)
        if self.word is Backend.IPTABLES:
            return IptablesBackend(settings_of(felix))
        return NftablesBackend(nft_settings_of(felix))

    def plan(self, *tables: RuleTable) -> Plan:
        return Plan("node", tuple(InterfacePlan(item, None, self.word, ()) for item in tables))

    def everything(self) -> list[str]:
        """All tables and sets of the namespace, as the command-line tools print them."""
        return everything() if self.word is Backend.IPTABLES else ruleset()

    def ours(self) -> list[str]:
        """The existing state; reading it creates nothing."""
        sets = run("ipset", "list", "-n").split()
        return [*all_tables(), *sets] if self.word is Backend.IPTABLES else ruleset()


def ruleset() -> list[str]:
    """All tables as nft lists them: a line per set with its members, a line per chain with its rules in order."""
    lines: dict[tuple[str, ...], list[object]] = {}
    for item in json.loads(run("nft", "-s", "-j", "list", "ruleset"))["nftables"]:
        for kind, data in item.items():
            place = (data.get("family", ""), data.get("table", ""), data.get("chain" if kind == "rule" else "name", ""))
            data.pop("handle", None)
            data["elem"] = sorted(data.get("elem", ()), key=str)
            lines.setdefault(place, []).append(data)
    return sorted(f"{' '.join(place)}: {json.dumps(items)}" for place, items in lines.items() if any(place))


@pytest.fixture(name="raw", params=[Backend.IPTABLES, Backend.NFTABLES], ids=str)
def raw_fixture(request: pytest.FixtureRequest) -> RawDriver:
    """Each backend in turn."""
    return RawDriver(request.param)
