// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Generators: run on live frames at the near end of a veth pair, each gives a frame its source and sends it (XDP_TX).
 *
 * What differs between frames comes from one pool, packed, so that it takes little of the caches: 4 octets an IPv4
 * source, 16 an IPv6 source, 12 a flow (source, ports, protocol). IPv4 checksums are right, for those who look.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define POOL_OCTETS (1 << 20)
#define PROTOCOL4 23 /* Ethernet 14, then 9 */
#define CHECKSUM4 24
#define SOURCE4 26
#define PORTS4 34
#define LEAST4 38
#define SOURCE6 22 /* Ethernet 14, then 8 */
#define LEAST6 38

struct pool {
	__u8 octet[POOL_OCTETS];
};

struct flow {
	__u32 source_be;
	__u32 ports_be; /* source port, then destination port; for ICMP type and code, then the checksum */
	__u32 protocol;
};

_Static_assert(sizeof(struct flow) == 12, "packed");

struct position {
	__u32 next;
	__u32 mask; /* elements of the pool - 1 */
	__u32 rest; /* sum of the 16-bit words of the IPv4 header without checksum, source and protocol */
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct pool);
} pool SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct position);
} position SEC(".maps");

static __always_inline __u16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void set_source4(void *data, struct position *at, __u32 source_be, __u8 protocol)
{
	/* The protocol is the second octet of its word: in a little-endian sum, the high one. */
	__u32 sum = at->rest + (source_be & 0xffff) + (source_be >> 16) + ((__u32)protocol << 8);

	*(__u32 *)(data + SOURCE4) = source_be;
	*(__u16 *)(data + CHECKSUM4) = folded(sum);
}

SEC("xdp") int generate4(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct position *at = bpf_map_lookup_elem(&position, &zero);
	struct pool *from = bpf_map_lookup_elem(&pool, &zero);
	__u32 *sources;

	if (!at || !from || data + LEAST4 > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	sources = (__u32 *)from->octet;
	set_source4(data, at, sources[at->next++ & at->mask & (POOL_OCTETS / 4 - 1)], *(__u8 *)(data + PROTOCOL4));
	return XDP_TX;
}

SEC("xdp") int generate6(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	__u32 zero = 0, number;
	struct position *at = bpf_map_lookup_elem(&position, &zero);
	struct pool *from = bpf_map_lookup_elem(&pool, &zero);
	__u64 *sources;

	if (!at || !from || data + LEAST6 > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	number = at->next++ & at->mask & (POOL_OCTETS / 16 - 1);
	sources = (__u64 *)from->octet;
	*(__u64 *)(data + SOURCE6) = sources[2 * number];
	*(__u64 *)(data + SOURCE6 + 8) = sources[2 * number + 1];
	return XDP_TX;
}

SEC("xdp") int generate_flows(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct position *at = bpf_map_lookup_elem(&position, &zero);
	struct pool *from = bpf_map_lookup_elem(&pool, &zero);
	struct flow *flow;

	if (!at || !from || data + LEAST4 > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	flow = (struct flow *)(from->octet + 12 * (at->next++ & at->mask & 65535));
	set_source4(data, at, flow->source_be, flow->protocol);
	*(__u8 *)(data + PROTOCOL4) = flow->protocol;
	*(__u32 *)(data + PORTS4) = flow->ports_be;
	return XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
