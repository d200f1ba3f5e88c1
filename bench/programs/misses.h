/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* Put in front of a program (-include): what it would pass it drops, so that a miss costs the program and no stack. */
#include <linux/bpf.h>
#define XDP_PASS XDP_DROP
