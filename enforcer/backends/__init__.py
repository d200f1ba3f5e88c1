"""From a Plan to the kernel: a package for each backend, with the same file names and the protocol of ``base``."""
