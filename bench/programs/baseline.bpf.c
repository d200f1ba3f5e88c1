// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* What every contender pays: parsing as far as the source address. Drops, unless the source is 0. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define ETHERTYPE 12
#define SOURCE4 26 /* Ethernet 14, then 12 */
#define LEAST4 38
#define SOURCE6 22 /* Ethernet 14, then 8 */
#define LEAST6 54

SEC("xdp") int parse_only(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u16 type;

	if (data + LEAST4 > end)
		return XDP_PASS;
	type = *(__u16 *)(data + ETHERTYPE);
	if (type == bpf_htons(0x0800))
		return *(volatile __u32 *)(data + SOURCE4) ? XDP_DROP : XDP_PASS;
	if (type != bpf_htons(0x86dd) || data + LEAST6 > end)
		return XDP_PASS;
	return *(volatile __u64 *)(data + SOURCE6) | *(volatile __u64 *)(data + SOURCE6 + 8) ? XDP_DROP : XDP_PASS;
}

/* At the near end: an interface sends redirected frames only when it has a program (or GRO). */
SEC("xdp") int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
