"""From a Plan to the kernel: one package per backend, with the same file names, behind the protocol in ``base``."""
