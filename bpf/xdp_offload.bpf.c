// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Drops packets of deny-listed sources in a network card that runs BPF itself (Netronome's nfp).
 *
 * A program for a device may use only array and hash maps of that device (kernel/bpf/offload.c,
 * bpf_map_offload_map_alloc), without direct access to their values, so user space cannot set
 * constants (.rodata is such a map). nfp accepts no map with flags. So this program does less than
 * xdp_untracked.bpf.c:
 *
 *  - entries match on the source alone: one look-up in a hash for each prefix length that occurs;
 *  - settings are in a map;
 *  - counters are an array that all threads of the card add to;
 *  - a failsafe port passes whatever net the failsafe is restricted to: raw matches on the net;
 *  - after IPv6 extension headers the transport is unknown: if there is any failsafe, the packet
 *    passes.
 *
 * Like that program, it may drop only what raw would drop, and passes what is indeterminate.
 */
#include "toolchain.h"
#include "abi.h"
#include "offload.h"
#include "parse.h"

/* User space sets the sizes before loading, to fit the policy. */
ARRAY_MAP(settings, struct offload_settings, 1);
ARRAY_MAP(lengths4, struct length4, 1);
ARRAY_MAP(lengths6, struct length6, 1);
HASH_MAP(deny4, struct net4, __u32, 1);
HASH_MAP(deny6, struct net6, __u32, 1);
HASH_MAP(failsafe, struct failsafe_port, __u8, 1);
ARRAY_MAP(entry_counters, struct entry_count, 1);

/* The loops are unrolled: no known card supports backward jumps. */
static __always_inline __u32 *first_entry4(__be32 source)
{
	__u32 i;

#pragma unroll
	for (i = 0; i < MAX_LENGTHS4; i++) {
		__u32 element = i, *entry;
		struct length4 *length = bpf_map_lookup_elem(&lengths4, &element);
		struct net4 key;

		if (!length)
			return 0;
		key.length = length->length;
		key.address = source & length->mask;
		entry = bpf_map_lookup_elem(&deny4, &key);
		if (entry)
			return entry;
	}
	return 0;
}

static __always_inline __u32 *first_entry6(const __be32 *source)
{
	__u32 i;

#pragma unroll
	for (i = 0; i < MAX_LENGTHS6; i++) {
		__u32 element = i, *entry;
		struct length6 *length = bpf_map_lookup_elem(&lengths6, &element);
		struct net6 key;

		if (!length)
			return 0;
		key.length = length->length;
		key.address[0] = source[0] & length->mask[0];
		key.address[1] = source[1] & length->mask[1];
		key.address[2] = source[2] & length->mask[2];
		key.address[3] = source[3] & length->mask[3];
		entry = bpf_map_lookup_elem(&deny6, &key);
		if (entry)
			return entry;
	}
	return 0;
}

static __always_inline int is_failsafe(__u8 protocol, __u8 side, __u16 port)
{
	struct failsafe_port key = {.port_be = bpf_htons(port), .protocol = protocol, .side = side};

	return bpf_map_lookup_elem(&failsafe, &key) != 0;
}

static __always_inline int may_be_failsafe(const struct transport *transport)
{
	if (transport->kind != TRANSPORT_PORTS)
		return is_failsafe(transport->protocol, PORT_ANY, 0);
	return is_failsafe(transport->protocol, PORT_INBOUND, transport->destination) ||
	       is_failsafe(transport->protocol, PORT_RETURN, transport->source);
}

/* The one place that drops. A packet that cannot be counted for its entry is not dropped. */
static __always_inline int drop(const __u32 *entry, __u32 bytes)
{
	struct entry_count *count = bpf_map_lookup_elem(&entry_counters, entry);

	if (!count)
		return XDP_PASS;
	__sync_fetch_and_add(&count->packets, 1);
	__sync_fetch_and_add(&count->bytes, bytes);
	return XDP_DROP;
}

static __always_inline int decide_ipv4(struct cursor *cursor)
{
	struct iphdr *ip = cursor->at;
	__u32 available = cursor->end - cursor->at, length = parse_ipv4(cursor), *entry;
	struct transport transport = {};

	if (!length)
		return XDP_PASS;
	entry = first_entry4(ip->saddr);
	if (!entry)
		return XDP_PASS;
	transport.protocol = ip->protocol;
	parse_transport(cursor, IPPROTO_ICMP, bpf_ntohs(ip->frag_off) & IP_OFFSET, &transport);
	if (may_be_failsafe(&transport))
		return XDP_PASS;
	return drop(entry, smaller(length, available));
}

static __always_inline int decide_ipv6(struct cursor *cursor)
{
	struct ipv6hdr *ip = cursor->at;
	__u32 available = cursor->end - cursor->at, length = parse_ipv6(cursor), *entry;
	struct transport transport = {.protocol = ANY_PROTOCOL};

	if (!length)
		return XDP_PASS;
	entry = first_entry6(ip->saddr.s6_addr32);
	if (!entry)
		return XDP_PASS;
	if (!is_extension(ip->nexthdr)) {
		transport.protocol = ip->nexthdr;
		parse_transport(cursor, IPPROTO_ICMPV6, 0, &transport);
	}
	if (may_be_failsafe(&transport))
		return XDP_PASS;
	return drop(entry, smaller(length, available));
}

/* The function name is the program name that tools show: at most 15 characters. */
PROGRAM("xdp")
int xdp_offload(struct xdp_md *ctx)
{
	struct cursor cursor = {
		.at = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	__u32 element = 0;
	struct offload_settings *found = bpf_map_lookup_elem(&settings, &element);

	if (!found || cursor.at + sizeof(struct ethernet_header) > cursor.end)
		return XDP_PASS;
	if (!is_received(cursor.at, found->own_address_first, found->own_address_last))
		return XDP_PASS;
	switch (parse_link(&cursor)) {
	case ETH_P_IP:
		return decide_ipv4(&cursor);
	case ETH_P_IPV6:
		return decide_ipv6(&cursor);
	default:
		return XDP_PASS;
	}
}

char LICENSE[] SEC("license") = "GPL";
