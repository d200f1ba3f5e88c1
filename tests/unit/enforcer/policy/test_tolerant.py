"""Faulty documents with good ones: what keeps its last good version, what follows its file, what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.model.errors import PolicyError
from enforcer.model.nets import Nets
from enforcer.policy.load import load
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded, load_tolerant
from tests.unit.enforcer.policy.documents import document


def deny_list(net: str, name: str = "bots") -> str:
    return document("GlobalNetworkSet", f"nets: [{net}]", f"{{name: {name}}}")


def policy(action: str = "Deny", name: str = "dos") -> str:
    return document("GlobalNetworkPolicy", f"ingress: [{{action: {action}}}]", f"{{name: {name}}}")


OLD, NEW = "192.0.2.0/24", "198.51.100.0/24"


class Folder:
    """Files, read again and again as an agent reads them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = Loaded(Resources())

    def read(self, **files: str | None) -> Loaded:
        """Writes the files (None removes one) and reads all of the folder."""
        for name, text in files.items():
            file = self.path / f"{name}.yaml"
            file.unlink() if text is None else file.write_text(text)
        self.last = load_tolerant([self.path], self.last.resources)
        return self.last

    def outcomes(self) -> list[str]:
        return [fault.outcome for fault in self.last.faults]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def nets(loaded: Loaded) -> dict[str, Nets]:
    return {item.name: item.nets for item in loaded.resources.global_network_sets}


def names(loaded: Loaded) -> list[str]:
    return sorted(item.name for item in (*loaded.resources.global_network_sets, *loaded.resources.policies))


def test_without_faults_it_is_load(folder: Folder) -> None:
    loaded = folder.read(a=deny_list(OLD) + "---\n" + policy(), b=document("Profile", "{}"))
    assert loaded == Loaded(load([folder.path]))


def test_a_faulty_object_stays_as_it_last_was_and_all_others_change(folder: Folder) -> None:
    folder.read(a=deny_list(OLD) + "---\n" + policy(), b=deny_list(OLD, "others"))
    loaded = folder.read(a=deny_list(NEW) + "---\n" + policy("Reject"), b=deny_list(NEW, "others"))
    assert nets(loaded) == {"bots": Nets.of([NEW]), "others": Nets.of([NEW])}
    assert str(loaded.resources.policies[0].ingress[0].action) == "Deny"
    assert (loaded.kept, loaded.left_out) == (("GlobalNetworkPolicy dos",), ())
    assert folder.outcomes() == ["GlobalNetworkPolicy dos keeps its last good version"]


def test_it_stays_for_as_long_as_it_is_faulty_and_no_longer(folder: Folder) -> None:
    folder.read(a=deny_list(OLD))
    for text in (deny_list("x"), deny_list("y")):
        assert nets(folder.read(a=text)) == {"bots": Nets.of([OLD])}
    assert folder.read(a=deny_list(NEW)) == Loaded(load([folder.path]))


def test_an_object_that_never_was_good_is_left_out(folder: Folder) -> None:
    loaded = folder.read(a=deny_list("x") + "---\n" + policy())
    assert names(loaded) == ["dos"]
    assert loaded.left_out == ("GlobalNetworkSet bots",)
    assert folder.outcomes() == ["GlobalNetworkSet bots is skipped: there is no good version of it"]


UNREADABLE = [
    ("no YAML", "kind: [\n", "not YAML"),
    ("cut off after a good document", deny_list(NEW) + "---\nkind: [\n", "not YAML"),
    ("empty", "", "holds no resource"),
    ("an alias bomb", "a: &a [" + "x, " * 99 + "]\nb: &b [" + "*a, " * 99 + "]\nc: [" + "*b, " * 99 + "]\n", "aliases"),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
def test_a_file_that_does_not_parse_keeps_all_it_last_held(folder: Folder, text: str, message: str) -> None:
    folder.read(a=deny_list(OLD) + "---\n" + policy(), b=deny_list(OLD, "others"))
    loaded = folder.read(a=text, b=deny_list(NEW, "others"))
    assert nets(loaded) == {"bots": Nets.of([OLD]), "others": Nets.of([NEW])}
    assert loaded.kept == ("GlobalNetworkSet bots", "GlobalNetworkPolicy dos")
    assert message in loaded.findings[0].message
    stay = "of its last version these stay: GlobalNetworkSet bots, GlobalNetworkPolicy dos"
    assert folder.outcomes() == [stay]


@pytest.mark.parametrize("text", ["kind: [\n", policy() + "---\nkind: [\n"], ids=["from the start", "further down"])
def test_of_a_file_that_never_parsed_nothing_is_taken(folder: Folder, text: str) -> None:
    loaded = folder.read(a=text, b=deny_list(OLD))
    assert names(loaded) == ["bots"]
    assert loaded.left_out == (str(folder.path / "a.yaml"),)
    assert folder.outcomes() == ["nothing of this file is enforced"]


def test_a_file_that_is_gone_takes_its_objects_along_even_kept_ones(folder: Folder) -> None:
    folder.read(a=deny_list(OLD), b=policy())
    folder.read(a=deny_list("x"))
    assert names(folder.read(a=None)) == ["dos"]


def test_a_folder_that_is_gone_or_empty_takes_nothing_along(folder: Folder) -> None:
    folder.read(a=deny_list(OLD), b=policy())
    assert names(folder.read(a=None, b=None)) == ["bots", "dos"]
    folder.path.rmdir()
    assert names(folder.read()) == ["bots", "dos"]
    assert "cannot be read" in folder.last.findings[0].message


UNNAMED = [
    ("a name that is none", policy(name="Dos")),
    ("a kind misspelled", policy().replace("Policy", "Polizy")),
    ("another API", policy().replace("projectcalico.org/v3", "apps/v1")),
    ("no mapping", "dos\n"),
    ("a list that ends too early", "apiVersion: v1\nkind: List\nitems:\n"),
    ("a list with a slip", "apiVersion: v1\nkind: List\nitem: []\n"),
]


@pytest.mark.parametrize("text", [row[1] for row in UNNAMED], ids=[row[0] for row in UNNAMED])
def test_a_document_without_name_may_be_any_of_its_file(folder: Folder, text: str) -> None:
    folder.read(a=deny_list(OLD) + "---\n" + policy(), b=deny_list(OLD, "others"))
    loaded = folder.read(a=deny_list(NEW) + "---\n" + text, b=deny_list(NEW, "others"))
    assert nets(loaded) == {"bots": Nets.of([NEW]), "others": Nets.of([NEW])}
    assert loaded.kept == ("GlobalNetworkPolicy dos",)
    assert folder.outcomes() == ["of the last version of the file these stay: GlobalNetworkPolicy dos"]


def test_a_document_that_swallows_the_next_keeps_both(folder: Folder) -> None:
    folder.read(a=deny_list(OLD) + "---\n" + policy())
    loaded = folder.read(a=deny_list(NEW) + policy())
    assert nets(loaded) == {"bots": Nets.of([OLD])}
    assert loaded.kept == ("GlobalNetworkSet bots", "GlobalNetworkPolicy dos")
    stay = (
        "GlobalNetworkSet bots keeps its last good version; "
        "of the last version of the file these stay: GlobalNetworkPolicy dos"
    )
    assert {*folder.outcomes()} == {stay}


def test_of_two_documents_of_a_name_the_first_counts(folder: Folder) -> None:
    folder.read(a=deny_list(OLD), b=policy() + "---\n" + deny_list(OLD, "others"))
    loaded = folder.read(b=policy() + "---\n" + deny_list(NEW))
    assert nets(loaded) == {"bots": Nets.of([OLD])}
    assert folder.outcomes() == ["only the first counts"]


def test_an_object_may_move_to_another_file_while_its_old_one_is_broken(folder: Folder) -> None:
    folder.read(a=deny_list(OLD) + "---\n" + policy())
    loaded = folder.read(a="kind: [", b=deny_list(NEW))
    assert nets(loaded) == {"bots": Nets.of([NEW])}
    assert loaded.kept == ("GlobalNetworkPolicy dos",)


@pytest.mark.parametrize("spec", ["{xdpEnabeld: 1}", "[1]", "nothing"], ids=["a slip", "a list", "a string"])
def test_every_kind_stays(folder: Folder, spec: str) -> None:
    kinds = {
        "HostEndpoint": "{node: a, interfaceName: eth0}",
        "GlobalNetworkSet": "{}",
        "NetworkSet": "{}",
        "GlobalNetworkPolicy": "{}",
        "Tier": "{}",
        "Profile": "{labelsToApply: {a: b}}",
        "FelixConfiguration": "{logPrefix: mine}",
    }
    before = folder.read(a="---\n".join(document(kind, good) for kind, good in kinds.items())).resources
    loaded = folder.read(a="---\n".join(document(kind, spec) for kind in kinds))
    assert loaded.resources == before
    assert loaded.kept == tuple("NetworkSet default/x" if kind == "NetworkSet" else f"{kind} x" for kind in kinds)


# --- laws -----------------------------------------------------------------------------------------------------------

GOOD = "---\n".join([deny_list(OLD), policy(), deny_list(NEW, "others"), document("Tier", "{order: 5}")])


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("x:[]{}-*&\n\t'\"#0 "), st.integers(0, 3))
def test_whatever_is_typed_no_object_is_lost_that_the_file_still_names(
    tmp_path_factory: pytest.TempPathFactory, at: int, typed: str, removed: int
) -> None:
    folder = Folder(tmp_path_factory.mktemp("policy"))
    good = folder.read(a=GOOD)
    text = GOOD[:at] + typed + GOOD[at + removed :]
    loaded = folder.read(a=text)
    if not loaded.faults:
        assert loaded == Loaded(load([folder.path]))
        return
    with pytest.raises(PolicyError) as caught:
        load([folder.path])
    assert loaded.findings == caught.value.findings
    assert all(fault.outcome for fault in loaded.faults)
    assert loaded.kept or loaded.left_out
    assert {name for name in names(good) if f"name: {name}}}" in text} <= {*names(loaded)}
