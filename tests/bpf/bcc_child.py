"""Runs under Debian's own python3, which has bcc: compiles the XDP source on this host and runs frames through it.

Reads one JSON object from stdin (source, include, maps as hex, frames as hex) and writes the verdicts and counts. It
imports nothing of the project, whose dependencies that interpreter may not have.
"""

import ctypes
import json
import sys

from bcc import BPF

BPF_PROG_TEST_RUN = 10


def main():
    job = json.load(sys.stdin)
    flags = ["-I" + job["include"], "-Dmulti_buffer=0", f"-Dpass_tagged={int(job['pass_tagged'])}"]
    bpf = BPF(src_file=job["source"], cflags=flags)
    program = bpf.load_func("xdp_untracked", BPF.XDP)
    for name, elements in job["maps"].items():
        table = bpf[name]
        for key, value in elements:
            table[table.Key.from_buffer_copy(bytes.fromhex(key))] = table.Leaf.from_buffer_copy(bytes.fromhex(value))
    verdicts = [run(program.fd, bytes.fromhex(frame)) for frame in job["frames"]]
    counters = bpf["entry_counters"]
    packets = [sum(value.packets for value in counters[counters.Key(index)]) for index in range(job["entries"])]
    json.dump({"verdicts": verdicts, "packets": packets}, sys.stdout)


def run(fd, frame):
    """The verdict of the program on a frame. bcc has no BPF_PROG_TEST_RUN, but libbpf below it has."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    data_in, data_out = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(len(frame) + 256)

    class Opts(ctypes.Structure):
        _fields_ = [
            ("sz", ctypes.c_size_t),
            ("data_in", ctypes.c_void_p),
            ("data_out", ctypes.c_void_p),
            ("data_size_in", ctypes.c_uint32),
            ("data_size_out", ctypes.c_uint32),
            ("ctx_in", ctypes.c_void_p),
            ("ctx_out", ctypes.c_void_p),
            ("ctx_size_in", ctypes.c_uint32),
            ("ctx_size_out", ctypes.c_uint32),
            ("retval", ctypes.c_uint32),
            ("repeat", ctypes.c_int),
            ("duration", ctypes.c_uint32),
            ("flags", ctypes.c_uint32),
            ("cpu", ctypes.c_uint32),
            ("batch_size", ctypes.c_uint32),
        ]

    opts = Opts(
        sz=ctypes.sizeof(Opts),
        data_in=ctypes.addressof(data_in),
        data_out=ctypes.addressof(data_out),
        data_size_in=len(frame),
        data_size_out=len(data_out),
    )
    if libbpf.bpf_prog_test_run_opts(fd, ctypes.byref(opts)):
        raise OSError(ctypes.get_errno(), "BPF_PROG_TEST_RUN")
    return opts.retval


main()
