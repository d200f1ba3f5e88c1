"""Files that are not parsed again, because their content is that of the last read: the same result as from nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded, load_tolerant
from tests.support.examples import examples

HEAD = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\n"
CONTENTS = (
    *(f"{HEAD}metadata: {{name: {name}}}\nspec: {{nets: [{net}]}}\n" for name in "ab" for net in ("10.0.0.0/8", "x")),
    f"{HEAD}metadata: {{name: a}}\nspec: {{nets: [10.0.0.0/8, 10.0.0.0/8]}}\n",  # a note
    f"{HEAD}metadata: {{name: a}}\n---\n{HEAD}metadata: {{name: b}}\n---\n{HEAD}metadata: {{name: a}}\n",
    f"{HEAD}metadata: {{name: [1]}}\nspec: {{nets: [10.0.0.0/8]}}\n",  # without a name
    f"{HEAD}metadata: {{name: a}}\n---\n[",  # cut off
    "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\n",  # skipped
    "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: p}\n",
    "203.0.113.0/24\n198.51.100.0/24\n",  # a feed
    "",
    "\xff",
)  # fmt: skip

# Each step writes or removes one file.
steps = st.lists(st.tuples(st.sampled_from(["1.yaml", "2.yaml", "3.yaml"]), st.sampled_from([None, *CONTENTS])))


@given(steps)
@settings(max_examples=examples(150, nightly=20_000))
def test_reading_again_what_has_changed_is_reading_everything(changes: list[tuple[str, str | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        loaded = anew = Loaded(Resources())
        for name, content in changes:
            path = Path(folder, name)
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content.encode("latin-1"))
            loaded = load_tolerant([folder], loaded.resources, before=loaded.readings)
            anew = load_tolerant([folder], anew.resources)
            assert loaded == anew
            assert (loaded.files, loaded.again) == (anew.files, anew.again)
            assert loaded.resources.notes == anew.resources.notes
