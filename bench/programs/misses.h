/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* Included before a program (-include): it drops what it would pass, so that a miss costs no network stack. */
#include <linux/bpf.h>
#define XDP_PASS XDP_DROP
