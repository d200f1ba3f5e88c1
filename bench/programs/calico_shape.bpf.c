// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * A program of the shape of Calico's (felix/bpf-apache/filter.c, as described, not copied): a frame shorter than 42
 * octets is dropped, a failsafe port passes, then the source decides by an LPM trie. Calico's trie holds 10,240; this one
 * as many as it is made for. The IPv6 sibling is our own: Calico's knows IPv4 only.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define LEAST 42
#define ETHERTYPE 12
#define PROTOCOL4 23
#define SOURCE4 26
#define DPORT4 36
#define LEAST_TCP4 54
#define NEXT6 20
#define SOURCE6 22
#define DPORT6 56
#define LEAST6 62
#define LEAST_TCP6 74
#define TCP 6
#define UDP 17

struct lpm4 {
	__u32 length;
	__u32 address_be;
};

struct lpm6 {
	__u32 length;
	__u32 address_be[4];
};

struct service {
	__u16 protocol;
	__u16 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 10240);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lpm4);
	__type(value, __u32);
} deny4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 10240);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lpm6);
	__type(value, __u32);
} deny6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65535);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct service);
	__type(value, __u32);
} failsafe SEC(".maps");

static __always_inline int is_failsafe(__u8 protocol, __u16 port_be)
{
	struct service key = {.protocol = protocol, .port = bpf_ntohs(port_be)};

	return bpf_map_lookup_elem(&failsafe, &key) != 0;
}

SEC("xdp") int calico_shape(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct lpm4 key = {.length = 32};
	__u16 port_be = 0;
	__u8 protocol;

	if (data + LEAST > end)
		return XDP_DROP;
	if (*(__u16 *)(data + ETHERTYPE) != bpf_htons(0x0800))
		return XDP_PASS;
	protocol = *(__u8 *)(data + PROTOCOL4);
	if (protocol == UDP || (protocol == TCP && data + LEAST_TCP4 <= end))
		port_be = *(__u16 *)(data + DPORT4);
	if (is_failsafe(protocol, port_be))
		return XDP_PASS;
	key.address_be = *(__u32 *)(data + SOURCE4);
	return bpf_map_lookup_elem(&deny4, &key) ? XDP_DROP : XDP_PASS;
}

SEC("xdp") int calico_shape6(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct lpm6 key = {.length = 128};
	__u16 port_be = 0;
	__u8 protocol;

	if (data + LEAST6 > end)
		return XDP_DROP;
	if (*(__u16 *)(data + ETHERTYPE) != bpf_htons(0x86dd))
		return XDP_PASS;
	protocol = *(__u8 *)(data + NEXT6);
	if (protocol == UDP || (protocol == TCP && data + LEAST_TCP6 <= end))
		port_be = *(__u16 *)(data + DPORT6);
	if (is_failsafe(protocol, port_be))
		return XDP_PASS;
	__builtin_memcpy(key.address_be, data + SOURCE6, sizeof(key.address_be));
	return bpf_map_lookup_elem(&deny6, &key) ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
