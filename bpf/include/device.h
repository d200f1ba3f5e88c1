/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * What the kernel itself says of the interface that a frame came in by (Linux 6.2:
 * bpf_cast_to_kern_ctx).
 *
 * Who takes an interface's packets may be in any network namespace, and may come at any time:
 * netlink tells of it late or not at all. The kernel's own structure is always right. Its fields
 * are found by CO-RE, and only those read are declared.
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
 * Whether another interface receives the packets of this one before raw could see them as this one's:
 * bridge, bond, macvlan, ipvlan, macsec and so on have an rx_handler (net/core/dev.c), a switch has
 * its tags taken off by DSA.
 */
static __always_inline int has_rx_owner(struct net_device *device)
{
	if (device->rx_handler)
		return 1;
	return bpf_core_field_exists(device->dsa_ptr) && device->dsa_ptr;
}

/* Whether VLAN interfaces are on it, in whatever network namespace. */
static __always_inline int has_vlans(struct net_device *device)
{
	struct vlan_info *info;

	if (!bpf_core_field_exists(device->vlan_info))
		return 0;
	info = device->vlan_info;
	return info && info->grp.nr_vlan_devs;
}

/*
 * Whether a frame may be another interface's. A tag that is in the frame is seen anyway; one that
 * the driver took out is not. The program of a bond runs on its slaves, which are not `own` and
 * always have an rx_handler.
 */
static __always_inline int is_shared(struct xdp_md *ctx, int own, int tags_in_frame)
{
	struct net_device *device = device_of(ctx);

	if (device->ifindex != own)
		return 0;
	return has_rx_owner(device) || (!tags_in_frame && has_vlans(device));
}

#endif
