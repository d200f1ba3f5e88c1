// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Tells who else takes the packets of an interface. Never attached: BPF_PROG_TEST_RUN gives it the
 * interface by index. The answer is the return value; enforcer/kernel/device.py reads it.
 */
#include "toolchain.h"
#include "abi.h"
#include "device.h"

PROGRAM("xdp")
int device_look(struct xdp_md *ctx)
{
	struct net_device *device = device_of(ctx);

	return (has_rx_owner(device) ? LOOK_RX_OWNER : 0) | (has_vlans(device) ? LOOK_VLANS : 0);
}

char LICENSE[] SEC("license") = "GPL";
