// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Determines whether another device takes the packets of an interface. Never attached: it is run by
 * BPF_PROG_TEST_RUN with the index of the interface. enforcer/kernel/device.py reads the return
 * value.
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
