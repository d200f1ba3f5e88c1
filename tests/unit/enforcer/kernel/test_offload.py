"""The stated reason why a device does not accept the program, distinguished by the errors of libbpf and the kernel."""

from __future__ import annotations

import errno

import pytest

from enforcer.kernel.bpf.offload import refusal
from enforcer.model.errors import KernelError

NO_MAP = """\
libbpf: Error in bpf_create_map_xattr(deny6):Cannot allocate memory(-12). Retrying without BTF.
libbpf: map 'deny6': failed to create: Cannot allocate memory(-12)
libbpf: failed to load object 'xdp_offload.bpf.o'"""

NO_PROGRAM = """\
libbpf: prog 'xdp_offload': BPF program load failed: Operation not supported
libbpf: prog 'xdp_offload': -- BEGIN PROG LOAD LOG --
[nfp] unsupported function id: 1
-- END PROG LOAD LOG --"""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        pytest.param(
            KernelError("load a probe program", number=errno.EINVAL),
            "the driver runs no XDP programs in hardware (EINVAL)",
            id="a driver with XDP of its own, and no hardware for it",
        ),
        pytest.param(
            KernelError("load a probe program", number=errno.EOPNOTSUPP),
            "the driver runs no XDP programs in hardware (EOPNOTSUPP)",
            id="a driver without XDP",
        ),
        pytest.param(
            KernelError("load a probe program", number=errno.ENOMEM),
            "load a probe program: ENOMEM (Cannot allocate memory)",
            id="hardware that takes not even the smallest program",
        ),
        pytest.param(
            KernelError("load xdp_offload.bpf.o: Error in ...", number=errno.ENOMEM, log=NO_MAP),
            "the device rejects the map deny6 (ENOMEM); the kernel's log may say why",
            id="a map refused",
        ),
        pytest.param(
            KernelError(
                "load xdp_offload.bpf.o: [nfp] unsupported function id: 1", number=errno.EINVAL, log=NO_PROGRAM
            ),
            "the device rejects the program: "
            "load xdp_offload.bpf.o: [nfp] unsupported function id: 1: EINVAL (Invalid argument)",
            id="an instruction refused",
        ),
    ],
)
def test_a_refusal_says_what_was_refused_and_the_kernels_word(error: KernelError, sentence: str) -> None:
    assert refusal(error) == sentence
