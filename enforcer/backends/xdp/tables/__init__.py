"""Address tables: from sets of CIDRs to the words that the XDP program follows.

bpf/include/abi.h ("Addresses to classes") defines their format.

::

    atoms ──classes──► segments ──image4, image6──► words ──live──► the same words, changed while programs read them
                                  read6 (read4) ◄──

Pure: numpy arrays in, numpy arrays out. The caller maps the kernel's memory and waits for grace periods.
"""
