"""The XDP backend's state in the BPF file system: how it is pinned, read back and watched."""
