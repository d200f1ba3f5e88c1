"""How what is enforced lies pinned in the BPF file system, read back and watched."""
