// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Drops packets of deny-listed sources before the kernel spends anything on them.
 *
 * The reference is the raw table: this program may drop only what raw would drop, and passes in doubt. In particular:
 *
 *  - a failsafe port passes whatever net the failsafe is restricted to: raw looks at the net;
 *  - ports count as known only when the whole TCP, UDP or SCTP header is there, inside the frame and inside what the IP
 *    header says is the packet. Unknown ports (later fragments, short packets) might be a failsafe's, if the protocol
 *    has any; an unknown protocol might be a failsafe's, if there is any;
 *  - a fragment is decided on its own; raw decides the same source once more, for the whole datagram;
 *  - IP headers that the kernel refuses before raw (cut short, wrong version, impossible length) pass: it will drop
 *    them. Those it refuses for their checksum or a length beyond the frame are dropped here when an entry says so.
 *
 * docs/packet-fates.md has a row for each of these. It compiles with clang (libbpf) and on the host with bcc.
 */
#include "toolchain.h"
#include "abi.h"
#include "wire.h"

#define MAX_VLAN_TAGS 2
#define MAX_EXTENSIONS 8
/* Ethernet, VLAN tags, IPv6 and the longest extension headers (the longest of one: 2,048 bytes). */
#define MAX_HEADERS (14 + 4 * MAX_VLAN_TAGS + 40 + 2048 * MAX_EXTENSIONS)
#define NO_LIMIT 0xffffffff

/* Not 0: the kernel knows multi-buffer frames (Linux 5.18) and the program is loaded to take them. */
SETTING(__u32, multi_buffer);
/* Not 0: VLAN interfaces sit on this one, so tagged packets are theirs and not the policy's of this interface. */
SETTING(__u32, pass_tagged);

/* Sizes are those of the deny list and the policy; user space sets them before loading. */
LPM_MAP(deny4, struct lpm4_key, __u32, 1024);
LPM_MAP(deny6, struct lpm6_key, __u32, 1024);
HASH_MAP(failsafe, struct failsafe_key, __u8, 1024);
PERCPU_ARRAY_MAP(entry_counters, struct entry_count, 64);

static __always_inline __u32 *lookup_deny4(struct lpm4_key *key)
{
#ifdef TOOLCHAIN_BCC
	return deny4.lookup(key);
#else
	return bpf_map_lookup_elem(&deny4, key);
#endif
}

static __always_inline __u32 *lookup_deny6(struct lpm6_key *key)
{
#ifdef TOOLCHAIN_BCC
	return deny6.lookup(key);
#else
	return bpf_map_lookup_elem(&deny6, key);
#endif
}

static __always_inline __u8 *lookup_failsafe(struct failsafe_key *key)
{
#ifdef TOOLCHAIN_BCC
	return failsafe.lookup(key);
#else
	return bpf_map_lookup_elem(&failsafe, key);
#endif
}

static __always_inline struct entry_count *lookup_counter(__u32 *entry)
{
#ifdef TOOLCHAIN_BCC
	return entry_counters.lookup(entry);
#else
	return bpf_map_lookup_elem(&entry_counters, entry);
#endif
}

static __always_inline __u32 frame_length(struct xdp_md *ctx)
{
#ifndef TOOLCHAIN_BCC
	if (multi_buffer)
		return bpf_xdp_get_buff_len(ctx);
#endif
	return ctx->data_end - ctx->data;
}

/* Where parsing stands. `left` is what the IP header says remains of the packet; the frame may end earlier. */
struct cursor {
	void *at;
	void *end;
	__u32 left;
};

/* What is known of the transport. protocol FAILSAFE_ANY_PROTOCOL: not even that. */
struct transport {
	__u8 protocol;
	__u8 has_ports;
	struct port_pair ports;
};

/* Moves over the Ethernet header and its VLAN tags. Returns the type of what follows (host order), 0 to pass the frame.
 */
static __always_inline __u16 parse_link(struct cursor *cursor)
{
	struct ethernet_header *ethernet = cursor->at;
	__u16 type;
	int i;

	if ((void *)(ethernet + 1) > cursor->end)
		return 0;
	type = BE16(ethernet->type_be);
	cursor->at = ethernet + 1;
	for (i = 0; i < MAX_VLAN_TAGS; i++) {
		struct vlan_tag *tag = cursor->at;

		if (type != ETHERTYPE_VLAN && type != ETHERTYPE_QINQ)
			break;
		if ((void *)(tag + 1) > cursor->end)
			return 0;
		if (pass_tagged && BE16(tag->control_be) & VLAN_ID_MASK)
			return 0;
		type = BE16(tag->type_be);
		cursor->at = tag + 1;
	}
	return type;
}

static __always_inline __u32 transport_length(__u8 protocol)
{
	switch (protocol) {
	case PROTOCOL_TCP:
		return TCP_HEADER_LENGTH;
	case PROTOCOL_UDP:
		return UDP_HEADER_LENGTH;
	case PROTOCOL_SCTP:
		return SCTP_HEADER_LENGTH;
	default:
		return 0;
	}
}

/* xt_tcp, xt_udp and xt_sctp want the whole header as well; without it they drop the packet ("hotdrop"). */
static __always_inline void parse_ports(struct cursor *cursor, struct transport *transport)
{
	__u32 length = transport_length(transport->protocol);
	struct port_pair *ports = cursor->at;

	if (!length || length > cursor->left || cursor->at + length > cursor->end)
		return;
	if ((void *)(ports + 1) > cursor->end) /* implied, but the verifier lost the sum */
		return;
	transport->ports = *ports;
	transport->has_ports = 1;
}

static __always_inline int is_extension(__u8 next)
{
	return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	       next == NEXT_AUTHENTICATION || next == NEXT_DESTINATION;
}

static __always_inline __u32 extension_length(__u8 kind, __u8 length)
{
	switch (kind) {
	case NEXT_FRAGMENT:
		return sizeof(struct ipv6_extension);
	case NEXT_AUTHENTICATION:
		return (length + 2) * 4;
	default:
		return (length + 1) * 8;
	}
}

/*
 * One extension header: what follows it, how long it is, whether it says that this is a later fragment. 0: cut short.
 *
 * A function with its own frame and an opaque result: inlined, the verifier follows every combination of eight headers
 * (656,000 instructions of the million it allows, on Linux 6.18). Global functions need Linux 5.6.
 */
#define STEP_NEXT(step) ((step)&0xff)
#define STEP_LENGTH(step) (((step) >> 8) & 0xfff)
#define STEP_LATER_FRAGMENT (1U << 31)

SUBPROGRAM __u32 extension_step(struct xdp_md *ctx, __u64 offset, __u8 kind)
{
	void *end = (void *)(long)ctx->data_end;
	struct ipv6_extension *extension;
	__u32 step;

	if (offset > MAX_HEADERS)
		return 0;
	extension = (void *)(long)ctx->data + offset;
	if ((void *)(extension + 1) > end)
		return 0;
	step = extension->next | extension_length(kind, extension->length) << 8;
	if (kind == NEXT_FRAGMENT && BE16(extension->fragment_be) & IPV6_FRAGMENT_OFFSET_MASK)
		step |= STEP_LATER_FRAGMENT;
	return step;
}

/* Follows the extension headers as ipv6_find_hdr() does; leaves the protocol unknown where it cannot. */
static __always_inline void parse_extensions(struct xdp_md *ctx, struct cursor *cursor, __u8 next,
					     struct transport *transport)
{
	__u64 offset = cursor->at - (void *)(long)ctx->data; /* 64 bits: the verifier loses the bound of fewer */
	int i;

	for (i = 0; i < MAX_EXTENSIONS && is_extension(next); i++) {
		__u32 step = extension_step(ctx, offset, next);
		__u32 length = STEP_LENGTH(step);

		if (!length || length > cursor->left)
			return;
		next = STEP_NEXT(step);
		if (step & STEP_LATER_FRAGMENT) {
			if (!is_extension(next))
				transport->protocol = next;
			return;
		}
		offset += length;
		cursor->left -= length;
	}
	if (is_extension(next) || offset > MAX_HEADERS)
		return;
	transport->protocol = next;
	cursor->at = (void *)(long)ctx->data + offset;
	parse_ports(cursor, transport);
}

static __always_inline int is_failsafe(__u8 protocol, __u8 side, __be16 port_be)
{
	struct failsafe_key key = {.port_be = port_be, .protocol = protocol, .side = side};

	return lookup_failsafe(&key) != 0;
}

static __always_inline int may_be_failsafe(const struct transport *transport)
{
	if (!transport->has_ports)
		return is_failsafe(transport->protocol, FAILSAFE_ANY, 0);
	return is_failsafe(transport->protocol, FAILSAFE_INBOUND, transport->ports.destination_be) ||
	       is_failsafe(transport->protocol, FAILSAFE_RETURN, transport->ports.source_be);
}

/* The one place that drops. What cannot be counted for its entry is not dropped. */
static __always_inline int drop(__u32 entry, __u32 bytes)
{
	struct entry_count *count = lookup_counter(&entry);

	if (!count)
		return XDP_PASS;
	count->packets++;
	count->bytes += bytes;
	return XDP_DROP;
}

static __always_inline __u32 smaller(__u32 a, __u32 b)
{
	return a < b ? a : b;
}

static __always_inline int decide_ipv4(struct xdp_md *ctx, struct cursor *cursor)
{
	struct ipv4_header *ip = cursor->at;
	struct lpm4_key key = {.prefix_length = 32};
	struct transport transport = {};
	__u32 available = frame_length(ctx) - (__u32)(cursor->at - (void *)(long)ctx->data);
	__u32 header_length, total_length, *entry;

	if ((void *)(ip + 1) > cursor->end)
		return XDP_PASS;
	header_length = (ip->version_and_length & 0xf) * 4;
	total_length = BE16(ip->total_length_be);
	if (ip->version_and_length >> 4 != 4 || header_length < sizeof(*ip) || total_length < header_length)
		return XDP_PASS;
	if (cursor->at + header_length > cursor->end)
		return XDP_PASS;

	key.address = ip->source_be;
	entry = lookup_deny4(&key);
	if (!entry)
		return XDP_PASS;

	transport.protocol = ip->protocol;
	cursor->at += header_length;
	cursor->left = total_length - header_length;
	if (!(BE16(ip->fragment_be) & IPV4_FRAGMENT_OFFSET_MASK))
		parse_ports(cursor, &transport);
	if (may_be_failsafe(&transport))
		return XDP_PASS;
	return drop(*entry, smaller(total_length, available));
}

/* How long the packet is behind its header. A jumbogram says 0 there and the truth in its hop-by-hop header. */
static __always_inline __u32 ipv6_payload_length(const struct ipv6_header *ip)
{
	__u32 length = BE16(ip->payload_length_be);

	return length || ip->next != NEXT_HOP_BY_HOP ? length : NO_LIMIT - sizeof(*ip);
}

static __always_inline int decide_ipv6(struct xdp_md *ctx, struct cursor *cursor)
{
	struct ipv6_header *ip = cursor->at;
	struct lpm6_key key = {.prefix_length = 128};
	struct transport transport = {.protocol = FAILSAFE_ANY_PROTOCOL};
	__u32 available = frame_length(ctx) - (__u32)(cursor->at - (void *)(long)ctx->data);
	__u32 *entry;

	if ((void *)(ip + 1) > cursor->end || ip->version_and_class >> 4 != 6)
		return XDP_PASS;

	__builtin_memcpy(key.address, ip->source_be, sizeof(key.address));
	entry = lookup_deny6(&key);
	if (!entry)
		return XDP_PASS;

	cursor->at = ip + 1;
	cursor->left = ipv6_payload_length(ip);
	parse_extensions(ctx, cursor, ip->next, &transport);
	if (may_be_failsafe(&transport))
		return XDP_PASS;
	return drop(*entry, smaller(ipv6_payload_length(ip) + sizeof(*ip), available));
}

/* The name of the program as tools show it, at most 15 characters: xdp_untracked. */
PROGRAM("xdp.frags")
int xdp_untracked(struct xdp_md *ctx)
{
	struct cursor cursor = {
		.at = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};

	switch (parse_link(&cursor)) {
	case ETHERTYPE_IPV4:
		return decide_ipv4(ctx, &cursor);
	case ETHERTYPE_IPV6:
		return decide_ipv6(ctx, &cursor);
	default:
		return XDP_PASS;
	}
}

#ifndef TOOLCHAIN_BCC
char LICENSE[] SEC("license") = "GPL";
#endif
