// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The generator, and those of the contenders of bench/bench_xdp.py that are a few lines. The headers of all frames are
 * in a template; only the source address changes from frame to frame.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define POOL 65536
/* The words of frame4() in bench/traffic.py except checksum and source: length 46, TTL 64, UDP, to 10.10.10.10. */
#define SUM_OF_THE_REST                                                                                                \
	(bpf_htons(0x4500) + bpf_htons(46) + bpf_htons(0x4011) + bpf_htons(0x0a0a) + bpf_htons(0x0a0a))
#define CHECKSUM4 24
#define SOURCE4 26 /* Ethernet, then 12 bytes of IPv4 */
#define SOURCE6 22 /* Ethernet, then 8 bytes of IPv6 */
#define LEAST_FRAME 42

struct pool4 {
	__u32 source_be[POOL];
};

struct pool6 {
	__u64 source_be[POOL][2];
};

#define MAP(name, map_type, key_type, value_type, entries, flags)                                                      \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(max_entries, entries);                                                                          \
		__uint(map_flags, flags);                                                                              \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} name SEC(".maps")

MAP(pool4, BPF_MAP_TYPE_ARRAY, __u32, struct pool4, 1, BPF_F_MMAPABLE);
MAP(pool6, BPF_MAP_TYPE_ARRAY, __u32, struct pool6, 1, BPF_F_MMAPABLE);
MAP(turn, BPF_MAP_TYPE_ARRAY, __u32, __u64, 1, 0);

static __always_inline int from_next4(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	__u64 *next = bpf_map_lookup_elem(&turn, &zero);
	struct pool4 *pool = bpf_map_lookup_elem(&pool4, &zero);
	__u32 source, sum;

	if (!next || !pool || data + SOURCE4 + 4 > end)
		return XDP_ABORTED;
	source = pool->source_be[(*next)++ & (POOL - 1)];
	*(__u32 *)(data + SOURCE4) = source;
	/* A network stack needs a correct sum. A sum of 16-bit words does not depend on byte order (RFC 1071). */
	sum = SUM_OF_THE_REST + (source & 0xffff) + (source >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*(__u16 *)(data + CHECKSUM4) = ~(sum + (sum >> 16));
	return XDP_TX;
}

static __always_inline int from_next6(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0, at;
	__u64 *next = bpf_map_lookup_elem(&turn, &zero);
	struct pool6 *pool = bpf_map_lookup_elem(&pool6, &zero);

	if (!next || !pool || data + SOURCE6 + 16 > end)
		return XDP_ABORTED;
	at = (*next)++ & (POOL - 1);
	*(__u64 *)(data + SOURCE6) = pool->source_be[at][0];
	*(__u64 *)(data + SOURCE6 + 8) = pool->source_be[at][1];
	return XDP_TX;
}

SEC("xdp.frags") int generate4(struct xdp_md *ctx)
{
	return from_next4(ctx);
}

SEC("xdp.frags") int generate6(struct xdp_md *ctx)
{
	return from_next6(ctx);
}

/* For BPF_PROG_TEST_RUN, which runs one frame repeatedly: sets another source each time. */
MAP(contender, BPF_MAP_TYPE_PROG_ARRAY, __u32, __u32, 1, 0);

SEC("xdp.frags") int mixed4(struct xdp_md *ctx)
{
	if (from_next4(ctx) == XDP_TX)
		bpf_tail_call(ctx, &contender, 0);
	return XDP_ABORTED;
}

SEC("xdp.frags") int mixed6(struct xdp_md *ctx)
{
	if (from_next6(ctx) == XDP_TX)
		bpf_tail_call(ctx, &contender, 0);
	return XDP_ABORTED;
}

/* The base cost of every contender: reading the source address. */
SEC("xdp.frags") int parse_only(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u16 type;

	if (data + LEAST_FRAME > end)
		return XDP_PASS;
	type = *(__u16 *)(data + 12);
	if (type == 0x0008)
		return *(volatile __u32 *)(data + SOURCE4) ? XDP_DROP : XDP_PASS;
	if (type == 0xdd86)
		return *(volatile __u64 *)(data + SOURCE6) ? XDP_DROP : XDP_PASS;
	return XDP_PASS;
}

SEC("xdp.frags") int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Like Calico's: drops short frames, looks up failsafes (protocol, port) in a hash, then the source in a trie. */
struct lpm4 {
	__u32 length;
	__u32 address_be;
};

struct lpm6 {
	__u32 length;
	__u64 address_be[2];
} __attribute__((packed));

MAP(trie4, BPF_MAP_TYPE_LPM_TRIE, struct lpm4, __u32, 1 << 21, BPF_F_NO_PREALLOC);
MAP(trie6, BPF_MAP_TYPE_LPM_TRIE, struct lpm6, __u32, 1 << 21, BPF_F_NO_PREALLOC);
MAP(failsafe, BPF_MAP_TYPE_HASH, __u32, __u8, 64, BPF_F_NO_PREALLOC);

static __always_inline int is_failsafe(__u8 protocol, __u16 port_be)
{
	__u32 key = protocol | (__u32)port_be << 16;

	return bpf_map_lookup_elem(&failsafe, &key) != 0;
}

SEC("xdp.frags") int calico_shape(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + LEAST_FRAME > end)
		return XDP_DROP;
	if (*(__u16 *)(data + 12) == 0x0008) {
		struct lpm4 key = {.length = 32, .address_be = *(__u32 *)(data + SOURCE4)};

		if (is_failsafe(*(__u8 *)(data + 23), *(__u16 *)(data + 36)))
			return XDP_PASS;
		return bpf_map_lookup_elem(&trie4, &key) ? XDP_DROP : XDP_PASS;
	}
	if (*(__u16 *)(data + 12) == 0xdd86 && data + 58 <= end) {
		struct lpm6 key = {.length = 128};

		if (is_failsafe(*(__u8 *)(data + 20), *(__u16 *)(data + 56)))
			return XDP_PASS;
		key.address_be[0] = *(__u64 *)(data + SOURCE6);
		key.address_be[1] = *(__u64 *)(data + SOURCE6 + 8);
		return bpf_map_lookup_elem(&trie6, &key) ? XDP_DROP : XDP_PASS;
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
