// SPDX-License-Identifier: Apache-2.0
/*
 * From the driver to the first netfilter hook: VLAN tags, protocol handlers, IP header checks. net/core/dev.c
 * (__netif_receive_skb_core), net/ipv4/arp.c, net/ipv4/ip_input.c (ip_rcv_core), net/ipv6/ip6_input.c (ip6_rcv_core).
 */
#include "octets.h"
#include "predict.h"
#include "protocols.h"

static enum step arp(const struct packet *p, struct end *end)
{
	const struct bytes arp = p->ip;

	if (arp.length >= 28 && arp.seen < 28)
		return ODD;
	if (p->other_host)
		return deliver(end, ARP_OTHER_HOST);
	if (arp.length < 28)
		return drop(end, AT_IP_INPUT, ARP_SHORT);
	if (arp.at[4] != 6 || arp.at[5] != 4)
		return drop(end, AT_IP_INPUT, ARP_LENGTHS);
	/* ARPHRD_ETHER, ARPHRD_IEEE802 */
	if ((be16(arp.at) != 1 && be16(arp.at) != 6) || be16(arp.at + 2) != TYPE_IPV4)
		return drop(end, AT_IP_INPUT, ARP_KIND);
	if (be16(arp.at + 6) != 1 && be16(arp.at + 6) != 2)
		return drop(end, AT_IP_INPUT, ARP_OPERATION);
	if (arp.at[24] >> 4 == 14 || arp.at[24] == 127)
		return drop(end, AT_IP_INPUT, ARP_TARGET);
	return deliver(end, ARP_HANDLED);
}

/* ip_rcv_core(), in its order. */
static enum step ip4(struct packet *p, struct end *end)
{
	struct bytes ip = p->ip;

	if (ip.length < 20)
		return drop(end, AT_IP_INPUT, IP4_SHORT);
	if (ip.seen < 20)
		return ODD;
	p->version = 4;
	p->header = (ip.at[0] & 15) * 4;
	p->total = be16(ip.at + 2);
	if (p->header < 20 || ip.at[0] >> 4 != 4)
		return drop(end, AT_IP_INPUT, IP4_VERSION);
	if (ip.length < p->header)
		return drop(end, AT_IP_INPUT, IP4_HEADER_CUT);
	if (ip.seen < p->header)
		return ODD;
	if (!all_ones(sum_words(ip.at, p->header)))
		return drop(end, AT_IP_INPUT, IP4_CHECKSUM);
	if (ip.length < p->total)
		return drop(end, AT_IP_INPUT, IP_LONGER);
	if (p->total < p->header)
		return drop(end, AT_IP_INPUT, IP4_TOTAL);
	p->protocol = ip.at[9];
	p->source[1] = be32(ip.at + 12);
	p->destination[1] = be32(ip.at + 16);
	p->ip = bytes_to(ip, p->total);
	return GO_ON;
}

static bool is_loopback6(const uint64_t address[2])
{
	return !address[0] && address[1] == 1;
}

/* ip6_rcv_core(), in its order. A jumbogram has no length in the header and extends to the end of the frame. */
static enum step ip6(struct packet *p, struct end *end)
{
	struct bytes ip = p->ip;
	uint32_t length;
	enum reason why;

	if (ip.length < 40)
		return drop(end, AT_IP_INPUT, IP6_SHORT);
	if (ip.seen < 40)
		return ODD;
	p->version = 6;
	p->total = be16(ip.at + 4);
	p->protocol = p->received = ip.at[6];
	for (int i = 0; i < 2; i++) {
		p->source[i] = be64(ip.at + 8 + 8 * i);
		p->destination[i] = be64(ip.at + 24 + 8 * i);
	}
	if (ip.at[0] >> 4 != 6)
		return drop(end, AT_IP_INPUT, IP6_VERSION);
	if (is_loopback6(p->source) || is_loopback6(p->destination))
		return drop(end, AT_IP_INPUT, IP6_LOOPBACK);
	if (ip.at[24] == 0xff && (ip.at[25] & 15) <= 1)
		return drop(end, AT_IP_INPUT, IP6_SCOPE);
	if (ip.at[8] == 0xff)
		return drop(end, AT_IP_INPUT, IP6_SOURCE);
	length = !p->total && p->protocol == HOP_BY_HOP ? ip.length : 40u + p->total;
	if (length > ip.length)
		return drop(end, AT_IP_INPUT, IP_LONGER);
	p->ip = bytes_to(ip, length);
	if (p->protocol != HOP_BY_HOP)
		return GO_ON;
	if (bad_options6(p, 40, true, &why) == ODD || (!why && jumbo_length(p, &length) == ODD))
		return ODD;
	if (why)
		return drop(end, AT_IP_INPUT, why);
	p->ip = bytes_to(p->ip, length);
	return GO_ON;
}

enum step ip_input(struct packet *p, struct end *end)
{
	uint16_t type = p->other_host ? p->other_type : p->type;

	if (p->truncated)
		return drop(end, AT_IP_INPUT, VLAN_TRUNCATED);
	if (!p->other_host && (type == 0x8100 || type == 0x88a8))
		return drop(end, AT_IP_INPUT, VLAN_CUT_SHORT);
	if (type == TYPE_ARP)
		return arp(p, end);
	if (type != TYPE_IPV4 && type != TYPE_IPV6)
		return drop(end, AT_IP_INPUT, NO_HANDLER);
	if (p->other_host)
		return drop(end, AT_IP_INPUT, OTHER_VLAN);
	return type == TYPE_IPV4 ? ip4(p, end) : ip6(p, end);
}
