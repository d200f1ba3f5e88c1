/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * Put in front of a program (-include): what it would pass it gives the verdict XDP_ABORTED, which the driver drops as it
 * drops XDP_DROP. A miss then costs the program and no stack. The verdict is another number than XDP_DROP, so that the
 * compiler keeps every branch: the code is the same but for that constant.
 */
#include <linux/bpf.h>
#define XDP_PASS XDP_ABORTED
