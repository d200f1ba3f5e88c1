// SPDX-License-Identifier: Apache-2.0
/*
 * What is known of a single frame before the network stack: before defragmentation and before all checks of the kernel.
 * What raw may see differently counts as unknown.
 */
#include "octets.h"
#include "predict.h"
#include "protocols.h"

enum { MOST_TAGS = 2, MOST_EXTENSIONS = 8 };

/* A protocol that has fields which the stage reads, and of how many bytes of its header. */
static uint32_t read_length(uint8_t version, int protocol)
{
	switch (protocol) {
	case TCP:
		return 20;
	case UDP:
		return 8;
	case SCTP:
		return 12;
	case ICMP:
		return version == 4 ? 8 : 0;
	case ICMPV6:
		return version == 6 ? 8 : 0;
	}
	return 0;
}

/*
 * The protocol after at most eight extension headers, each with its first eight bytes present and its length within
 * the packet; NONE if it is unknown: also in a later fragment, because reassembly uses the protocol of the first, after
 * other headers than hop-by-hop before a fragment header, and after an authentication header.
 */
static enum step known_protocol6(struct bytes ip, uint16_t payload_length, int *protocol,
				 uint32_t *at)
{
	int kind = ip.at[6];
	bool is_jumbogram = !payload_length && kind == HOP_BY_HOP;
	uint32_t end = is_jumbogram ? ip.length : 40u + payload_length;
	uint32_t here = 40, headers = 0;
	bool other = false; /* not hop-by-hop alone, first */

	ip = bytes_to(ip, end);
	*protocol = NONE;
	while (is_extension(kind) && kind != NO_NEXT) {
		int following;

		if (headers == MOST_EXTENSIONS || kind == AUTHENTICATION || ip.length < here + 8)
			return GO_ON;
		if (ip.seen < here + (kind == FRAGMENT ? 4 : 2))
			return ODD;
		if (kind == FRAGMENT) {
			uint16_t field = be16(ip.at + here + 2);

			if ((field & 0xfff8) || ((field & 1) && other))
				return GO_ON;
		}
		other |= kind != HOP_BY_HOP || headers;
		headers++;
		following = ip.at[here];
		here += extension_length(kind, ip.at[here + 1]);
		if (here > end && !is_jumbogram)
			return GO_ON;
		kind = following;
	}
	*protocol = kind;
	*at = here;
	return GO_ON;
}

static void set_addresses(struct flow *flow, const uint8_t *ip, uint8_t version)
{
	flow->version = version;
	if (version == 4) {
		flow->source[0] = flow->destination[0] = 0;
		flow->source[1] = be32(ip + 12);
		flow->destination[1] = be32(ip + 16);
		return;
	}
	for (int i = 0; i < 2; i++) {
		flow->source[i] = be64(ip + 8 + 8 * i);
		flow->destination[i] = be64(ip + 24 + 8 * i);
	}
}

/* ENDED: no header that can be decided on, so that the stage passes the frame. */
static enum step known4(const struct world *world, struct bytes ip, struct flow *flow)
{
	bool is_netdev = world->early == EARLY_NETDEV;
	uint32_t header, total, end, offset;
	uint16_t fragment;
	struct bytes transport;
	int protocol;

	if (ip.length < 20)
		return ENDED;
	if (ip.seen < 20)
		return ODD;
	header = (ip.at[0] & 15) * 4;
	total = be16(ip.at + 2);
	if (ip.at[0] >> 4 != 4 || header < 20 || header > total || header > ip.length)
		return ENDED;
	if (is_netdev && total > ip.length)
		return ENDED;
	fragment = be16(ip.at + 6);
	offset = (fragment & 0x1fff) * 8;
	protocol = ip.at[9];
	end = total;
	/* One that is not the last is trimmed to a multiple of eight (ip_frag_queue): raw may never see the rest. */
	if (fragment & 0x2000)
		end -= (end - header) % 8;
	transport = bytes_from(bytes_to(ip, end), header);
	if (is_netdev && (offset || header > 20 || transport.length < read_length(4, protocol)) &&
	    read_length(4, protocol))
		transport.length = 0;
	set_addresses(flow, ip.at, 4);
	if (world->early == EARLY_DEVICE && !protocol)
		protocol = NONE; /* 0 stands for any in a device */
	set_transport(flow, protocol, transport, protocol < 0 ? 0 : offset);
	return GO_ON;
}

static enum step known6(const struct world *world, const struct packet *p, struct flow *flow)
{
	bool is_netdev = world->early == EARLY_NETDEV;
	struct bytes ip = p->ip, transport = {0};
	uint16_t payload_length;
	uint32_t at = 0, offset;
	int protocol = NONE;
	bool extended;

	if (ip.length < 40)
		return ENDED;
	if (ip.seen < 40)
		return ODD;
	if (ip.at[0] >> 4 != 6)
		return ENDED;
	payload_length = be16(ip.at + 4);
	extended = is_extension(ip.at[6]) && ip.at[6] != NO_NEXT;
	if (is_netdev) {
		if (40u + payload_length > ip.length)
			return ENDED;
		if (find_transport6(p, false, &protocol, &at, &offset) == ODD)
			return ODD;
		if (protocol < 0)
			return ENDED;
		protocol = NONE;
	}
	set_addresses(flow, ip.at, 6);
	if (!extended || world->early == EARLY_XDP) {
		if (known_protocol6(ip, payload_length, &protocol, &at) == ODD)
			protocol = CUT;
		if (protocol >= 0) {
			bool is_jumbogram = !payload_length && ip.at[6] == HOP_BY_HOP;

			transport = bytes_from(
				is_jumbogram ? ip : bytes_to(ip, 40u + payload_length), at);
		}
	}
	if (is_netdev && protocol >= 0 && transport.length < read_length(6, protocol))
		transport.length = 0;
	set_transport(flow, protocol, transport, 0);
	return GO_ON;
}

enum step early_stage(const struct world *world, struct packet *p, struct end *end)
{
	struct flow flow = {0};
	enum step step;
	int32_t by;

	if (p->named || p->tags > (world->early == EARLY_NETDEV ? 0 : MOST_TAGS))
		return GO_ON;
	if (p->type == TYPE_IPV4)
		step = known4(world, p->ip, &flow);
	else if (p->type == TYPE_IPV6)
		step = known6(world, p, &flow);
	else
		return GO_ON;
	if (step != GO_ON)
		return step == ODD ? ODD : GO_ON;
	by = early_drops(&world->raw, world->held, world->early == EARLY_DEVICE, &flow);
	if (by == CUT)
		return ODD;
	return by < 0 ? GO_ON : drop_by(end, world->early_stage, by);
}
