/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * Reads the kernel's structure of the interface that received a frame (Linux 6.2:
 * bpf_cast_to_kern_ctx).
 *
 * A device that takes an interface's packets may be in any network namespace and may appear at any
 * time; netlink reports it late or not at all. The kernel's own structure is always right. CO-RE
 * relocates its fields; only those that are read are declared.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include <bpf/bpf_core_read.h>

#define KERNEL_LAYOUT __attribute__((preserve_access_index))

struct vlan_group {
	unsigned int nr_vlan_devs;
} KERNEL_LAYOUT;

struct vlan_info {
	struct vlan_group grp;
} KERNEL_LAYOUT;

struct net_device {
	int ifindex;
	void *rx_handler;
	struct vlan_info *vlan_info; /* with CONFIG_VLAN_8021Q */
	void *dsa_ptr;		     /* with CONFIG_NET_DSA */
} KERNEL_LAYOUT;

struct xdp_rxq_info {
	struct net_device *dev;
} KERNEL_LAYOUT;

struct xdp_buff {
	struct xdp_rxq_info *rxq;
} KERNEL_LAYOUT;

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

static __always_inline struct net_device *device_of(struct xdp_md *ctx)
{
	struct xdp_buff *xdp = bpf_cast_to_kern_ctx(ctx);

	return xdp->rxq->dev;
}

/*
 * Whether another device takes the packets of this interface, so that raw never sees them as
 * received by it: a bridge, bond, macvlan, ipvlan, macsec and so on through its rx_handler
 * (net/core/dev.c), a switch through DSA.
 */
static __always_inline int has_rx_owner(struct net_device *device)
{
	if (device->rx_handler)
		return 1;
	return bpf_core_field_exists(device->dsa_ptr) && device->dsa_ptr;
}

/* Whether it has VLAN interfaces, in any network namespace. */
static __always_inline int has_vlans(struct net_device *device)
{
	struct vlan_info *info;

	if (!bpf_core_field_exists(device->vlan_info))
		return 0;
	info = device->vlan_info;
	return info && info->grp.nr_vlan_devs;
}

/*
 * Whether a frame may belong to another interface. A tag inside the frame was handled by the
 * parser; a tag that the driver has removed is not visible. The program of a bond runs on its
 * slaves, which are not `own` and always have an rx_handler.
 */
static __always_inline int is_shared(struct xdp_md *ctx, int own, int tags_in_frame)
{
	struct net_device *device = device_of(ctx);

	if (device->ifindex != own)
		return 0;
	return has_rx_owner(device) || (!tags_in_frame && has_vlans(device));
}

#endif
