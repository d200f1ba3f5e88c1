// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Decides the untracked ingress policy of an interface before the kernel spends anything on a
 * packet.
 *
 * Every entry of the policy is a bit (abi.h). Each field of a packet is looked up once and yields
 * the row of entries whose condition on it holds; the rows are ANDed, and the lowest bit left is
 * the first entry that matches. The source comes first: if no Deny entry is left, the packet passes
 * without another look-up.
 *
 * The reference is the raw table: this program may drop only what raw would drop, and passes what
 * is indeterminate. In particular:
 *
 *  - ports are known only if the whole TCP, UDP or SCTP header is inside the frame and inside the
 *    length in the IP header; an ICMP type only if 8 bytes of ICMP are. If the first entry that
 *    could match matches on something unknown, the packet passes;
 *  - a fragment is decided on its own; raw decides on the same addresses again, for the whole
 *    datagram;
 *  - the protocol in a later IPv6 fragment is ignored: after reassembly, that of the first fragment
 *    counts;
 *  - frames to another interface (a macvlan on this one) and frames with a VLAN tag pass. Compiled
 *    with WATCH_DEVICE, the program checks the interface before it drops, and passes all packets
 *    while another device takes them;
 *  - packets whose IP header the kernel refuses before raw (cut short, wrong version, impossible
 *    length) pass, because the kernel drops them. Packets that it refuses for their checksum or a
 *    length beyond the frame are dropped here if an entry drops them.
 *
 * docs/packet-fates.md has a row for each of these. It compiles with clang (libbpf) and on the host
 * with bcc.
 */
#include "toolchain.h"
#include "abi.h"
#include "parse.h"
#ifdef WATCH_DEVICE
#include "device.h"
#endif

#define MAX_EXTENSIONS 8
/* Ethernet, VLAN tags, IPv6 and extension headers of the maximum length (2,048 bytes each). */
#define MAX_HEADERS (14 + 4 * MAX_VLAN_TAGS + 40 + 2048 * MAX_EXTENSIONS)

/*
 * Not 0: the kernel supports multi-buffer frames (Linux 5.18), and the program is loaded with
 * BPF_F_XDP_HAS_FRAGS.
 */
SETTING(__u32, multi_buffer);
/* The interface's MAC address: its first 4 bytes and its last 2, in memory order. */
SETTING(__u32, own_address_first);
SETTING(__u32, own_address_last);
/*
 * The interface's index, and whether VLAN tags are always in the frame. Read only if compiled with
 * WATCH_DEVICE.
 */
SETTING(__u32, own_device);
SETTING(__u32, tags_in_frame);
/* How many words of a row are in use: 1, 2 or 8. */
SETTING(__u32, row_words);
/* Not 0: some entry matches on destination addresses, on named ports, or has the action Pass. */
SETTING(__u32, match_destination);
SETTING(__u32, match_named_ports);
SETTING(__u32, may_skip);
/* Not 0: some entry may drop sources that are in no list. */
SETTING(__u32, drop_unlisted);

/* User space sets the sizes before loading, to fit the policy and the address lists. */
VARIABLE_MAP(sieve4, struct sieve);
VARIABLE_MAP(root4, struct root);
MMAPABLE_ARRAY_MAP(lists4, struct table_page, 1);
VARIABLE_MAP(root6, struct root);
MMAPABLE_ARRAY_MAP(nodes6, struct node6, 1);
MMAPABLE_ARRAY_MAP(buckets6, struct table_page, 1);
MMAPABLE_ARRAY_MAP(lists6, struct table_page, 1);
VARIABLE_MAP(policy, struct policy);
ARRAY_MAP(address_rows, struct address_rows, 1);
ARRAY_MAP(protocols, struct row, PROTOCOLS);
ARRAY_MAP(port_pages, struct port_page, 1);
ARRAY_MAP(port_rows, struct port_rows, 1);
HASH_MAP(named, struct named_key, struct port_rows, 1);
ARRAY_MAP(tiers, struct row, 1);
PERCPU_ARRAY_MAP(entry_counters, struct entry_count, 64);

static __always_inline struct sieve *find_sieve4(void)
{
#ifdef TOOLCHAIN_BCC
	__u32 only = 0;

	return (void *)sieve4.lookup(&only);
#else
	return &sieve4;
#endif
}

static __always_inline struct root *find_root4(void)
{
#ifdef TOOLCHAIN_BCC
	__u32 only = 0;

	return (void *)root4.lookup(&only);
#else
	return &root4;
#endif
}

static __always_inline struct table_page *find_lists4(__u32 *key)
{
#ifdef TOOLCHAIN_BCC
	return lists4.lookup(key);
#else
	return bpf_map_lookup_elem(&lists4, key);
#endif
}

static __always_inline struct root *find_root6(void)
{
#ifdef TOOLCHAIN_BCC
	__u32 only = 0;

	return (void *)root6.lookup(&only);
#else
	return &root6;
#endif
}

static __always_inline struct node6 *find_nodes6(__u32 *key)
{
#ifdef TOOLCHAIN_BCC
	return nodes6.lookup(key);
#else
	return bpf_map_lookup_elem(&nodes6, key);
#endif
}

static __always_inline struct table_page *find_buckets6(__u32 *key)
{
#ifdef TOOLCHAIN_BCC
	return buckets6.lookup(key);
#else
	return bpf_map_lookup_elem(&buckets6, key);
#endif
}

static __always_inline struct table_page *find_lists6(__u32 *key)
{
#ifdef TOOLCHAIN_BCC
	return lists6.lookup(key);
#else
	return bpf_map_lookup_elem(&lists6, key);
#endif
}

static __always_inline struct address_rows *find_address_rows(__u32 *key)
{
#ifdef TOOLCHAIN_BCC
	return address_rows.lookup(key);
#else
	return bpf_map_lookup_elem(&address_rows, key);
#endif
}

static __always_inline struct row *find_protocols(__u32 *key)
{
#ifdef TOOLCHAIN_BCC
	return protocols.lookup(key);
#else
	return bpf_map_lookup_elem(&protocols, key);
#endif
}

static __always_inline struct port_page *find_port_pages(__u32 *key)
{
#ifdef TOOLCHAIN_BCC
	return port_pages.lookup(key);
#else
	return bpf_map_lookup_elem(&port_pages, key);
#endif
}

static __always_inline struct port_rows *find_port_rows(__u32 *key)
{
#ifdef TOOLCHAIN_BCC
	return port_rows.lookup(key);
#else
	return bpf_map_lookup_elem(&port_rows, key);
#endif
}

static __always_inline struct port_rows *find_named(struct named_key *key)
{
#ifdef TOOLCHAIN_BCC
	return named.lookup(key);
#else
	return bpf_map_lookup_elem(&named, key);
#endif
}

static __always_inline struct policy *find_policy(void)
{
#ifdef TOOLCHAIN_BCC
	__u32 only = 0;

	return (void *)policy.lookup(&only);
#else
	return &policy;
#endif
}

static __always_inline struct row *find_tiers(__u32 *key)
{
#ifdef TOOLCHAIN_BCC
	return tiers.lookup(key);
#else
	return bpf_map_lookup_elem(&tiers, key);
#endif
}

static __always_inline struct entry_count *find_entry_counters(__u32 *key)
{
#ifdef TOOLCHAIN_BCC
	return entry_counters.lookup(key);
#else
	return bpf_map_lookup_elem(&entry_counters, key);
#endif
}

/*
 * Hides a value from the compiler, so that it does not turn branchless arithmetic into a branch.
 */
#define OPAQUE(value) asm volatile("" : "+r"(value))

static __always_inline __u32 frame_length(struct xdp_md *ctx)
{
	if (multi_buffer)
		return bpf_xdp_get_buff_len(ctx);
	return ctx->data_end - ctx->data;
}

static __always_inline __u32 extension_length(__u8 kind, __u8 length)
{
	switch (kind) {
	case IPPROTO_FRAGMENT:
		return sizeof(struct extension_hdr);
	case IPPROTO_AH:
		return (length + 2) * 4;
	default:
		return (length + 1) * 8;
	}
}

/*
 * One extension header: the next header, its length, and whether it makes the packet a fragment. 0:
 * cut short.
 *
 * A function with its own stack frame and a result that the verifier does not track: inlined, the
 * verifier follows every combination of eight headers (656,000 of its limit of a million
 * instructions, on Linux 6.18).
 * Global functions need Linux 5.6.
 */
#define STEP_NEXT(step) ((step) & 0xff)
#define STEP_LENGTH(step) (((step) >> 8) & 0xfff)
#define STEP_LATER_FRAGMENT (1U << 31)
#define STEP_FIRST_FRAGMENT (1U << 30)

SUBPROGRAM __u32 extension_step(struct xdp_md *ctx, __u64 offset, __u8 kind)
{
	void *end = (void *)(long)ctx->data_end;
	struct extension_hdr *extension;
	__u32 step;

	if (offset > MAX_HEADERS)
		return 0;
	extension = (void *)(long)ctx->data + offset;
	if ((void *)(extension + 1) > end)
		return 0;
	step = extension->nexthdr | extension_length(kind, extension->hdrlen) << 8;
	if (kind == IPPROTO_FRAGMENT && bpf_ntohs(extension->frag_off) & IP6_OFFSET)
		step |= STEP_LATER_FRAGMENT;
	else if (kind == IPPROTO_FRAGMENT && bpf_ntohs(extension->frag_off) & IP6_MF)
		step |= STEP_FIRST_FRAGMENT;
	return step;
}

/*
 * Follows the extension headers as ipv6_find_hdr() does. The protocol stays unknown if it cannot,
 * in fragments in which raw sees another protocol, and after an authentication header, which only
 * iptables skips.
 */
static __always_inline void parse_extensions(struct xdp_md *ctx, struct cursor *cursor, __u8 next,
					     struct transport *transport)
{
	/* 64 bits: for fewer, the verifier loses the bound */
	__u64 offset = cursor->at - (void *)(long)ctx->data;
	int after = 0; /* after headers that reassembly does not leave first */
	int i;

	for (i = 0; i < MAX_EXTENSIONS && is_extension(next) && next != IPPROTO_AH; i++) {
		__u32 step = extension_step(ctx, offset, next);
		__u32 length = STEP_LENGTH(step);

		if (!length || length > cursor->left || step & STEP_LATER_FRAGMENT)
			return;
		if (step & STEP_FIRST_FRAGMENT && after)
			return;
		after |= i || next != IPPROTO_HOPOPTS;
		next = STEP_NEXT(step);
		offset += length;
		cursor->left -= length;
	}
	if (is_extension(next) || offset > MAX_HEADERS)
		return;
	transport->protocol = next;
	cursor->at = (void *)(long)ctx->data + offset;
	parse_transport(cursor, IPPROTO_ICMPV6, 0, transport);
}

/*
 * The class of an IPv4 address: a binary search for the last of 2 << kind segments whose start is
 * not above the key. There are no branches on data: they would be mispredicted, and cost more than
 * the search. (Masks of all ones would do as well as shifts and products, but the verifier of Linux
 * 6.18 follows both values of a mask.)
 */
static __always_inline __u32 class_of4(__u32 address)
{
	__u32 element, word, step, at, above = ~(address & 0xffff);
	struct sieve *sieve = find_sieve4();
	struct root *root = find_root4();
	struct table_page *page;
	int i;

	if (!sieve || !root)
		return 0;
	if (!(sieve->word[address >> 15] >> (address >> 10 & 31) & 1))
		return 0;
	word = root->word[address >> ROOT_SHIFT4];
	if (WORD_KIND(word) == WORD_LEAF)
		return word & 0xffff;
	element = WORD_REST(word) >> (TABLE_PAGE_SHIFT - UNIT_SHIFT4);
	page = find_lists4(&element);
	if (!page)
		return 0;
	at = word << UNIT_SHIFT4;
	step = WORD_KIND(word) + 2; /* half of the list is 1 << step bytes */
	for (i = 0; i <= LARGEST_KIND4; i++) {
		__u32 middle = (at + (1U << step)) & (TABLE_PAGE_BYTES - 4);
		__u32 start = *(__u32 *)((void *)page + middle) >> SEGMENT_SHIFT4;
		__u32 go = (start + above) >> 31; /* 1 where it is not above the key */

		OPAQUE(go);
		at += go << step;
		if (--step < 2)
			break;
	}
	return *(__u32 *)((void *)page + (at & (TABLE_PAGE_BYTES - 4))) & 0xffff;
}

static __always_inline __u32 search6(__u32 word, __u64 key)
{
	__u32 kind = WORD_KIND(word), element, offset, step, at = 0;
	struct table_page *page;
	int i;

	element = WORD_REST(word) >> (TABLE_PAGE_SHIFT - UNIT_SHIFT6);
	offset = (WORD_REST(word) << UNIT_SHIFT6) & (TABLE_PAGE_BYTES - 1);
	page = find_lists6(&element);
	if (!page)
		return 0;
	step = kind + 3; /* half of the starts are 1 << step bytes */
	for (i = 0; i <= LARGEST_KIND6; i++) {
		__u32 middle = (offset + at + (1U << step)) & (TABLE_PAGE_BYTES - 8);
		__u64 start = *(__u64 *)((void *)page + middle);
		/* 1 where key < start */
		__u64 above = ((~key & start) | ((~key | start) & (key - start))) >> 63;
		__u32 go = 1 - (__u32)above;

		OPAQUE(go);
		at += go << step;
		if (--step < 3)
			break;
	}
	return *(__u32 *)((void *)page +
			  ((offset + (16U << kind) + at / 2) & (TABLE_PAGE_BYTES - 4)));
}

static __always_inline __u32 bucket6(__u32 number, __u64 key)
{
	struct node6 *node = find_nodes6(&number);
	struct table_page *page;
	__u64 at;
	__u32 element;

	if (!node)
		return 0;
	if (key < node->low)
		return node->below;
	at = (key - node->low) >> (node->shift & 63);
	if (at > node->last)
		at = node->last;
	at += node->base;
	element = at >> (TABLE_PAGE_SHIFT - 2);
	page = find_buckets6(&element);
	if (!page)
		return 0;
	return *(__u32 *)((void *)page + ((at << 2) & (TABLE_PAGE_BYTES - 4)));
}

/* A function with its own stack frame, so that the verifier walks it once. */
SUBPROGRAM __u32 class_of6(__u64 high, __u64 low)
{
	struct root *root = find_root6();
	__u32 word;
	__u64 key = high;
	int i;

	if (!root)
		return 0;
	word = root->word[high >> ROOT_SHIFT6];
	for (i = 0; i < MAX_STEPS6; i++) {
		if (WORD_KIND(word) == WORD_LEAF)
			return word & 0xffff;
		if (WORD_KIND(word) == WORD_NODE) {
			word = bucket6(WORD_REST(word), key);
		} else {
			word = search6(word, key);
			key = low;
		}
	}
	return 0;
}

/*
 * Whether raw would see the frame as received by this interface. Called only for frames to drop,
 * because all others pass anyway.
 */
static __always_inline int is_own(struct xdp_md *ctx)
{
	struct ethernet_header *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return 0;
	if (!is_received(ethernet, own_address_first, own_address_last))
		return 0;
#ifdef WATCH_DEVICE
	return !own_device || !is_shared(ctx, own_device, tags_in_frame);
#else
	return 1;
#endif
}

/*
 * The one place that drops. A packet that cannot be counted for its entry is not dropped. `length`
 * is that of the IP header. The frame may end earlier, but its length costs a helper call, which is
 * made only if the first buffer is shorter.
 */
static __always_inline int drop(struct xdp_md *ctx, __u32 entry, __u32 at, __u32 length)
{
	struct entry_count *count = find_entry_counters(&entry);
	__u64 first_part = (long)ctx->data_end - (long)ctx->data;

	/* else the compiler subtracts in 32 bits, which the verifier rejects for pointers */
	OPAQUE(first_part);
	first_part -= at;
	if (!count || !is_own(ctx))
		return XDP_PASS;
	if (length > first_part)
		length = smaller(length, frame_length(ctx) - at);
	count->packets++;
	count->bytes += length;
	return XDP_DROP;
}

/*
 * The number of the lowest bit that is set, by a parallel count of the bits below it: clang 14 has
 * no __builtin_ctzll for BPF.
 */
static __always_inline __u32 lowest_bit(__u64 word)
{
	__u64 below = (word & -word) - 1;

	below -= below >> 1 & 0x5555555555555555;
	below = (below & 0x3333333333333333) + (below >> 2 & 0x3333333333333333);
	below = (below + (below >> 4)) & 0x0f0f0f0f0f0f0f0f;
	return below * 0x0101010101010101 >> 56;
}

/*
 * Put before loops over the words of a row: unrolled eight times, they would exceed the stack of
 * two functions.
 */
#define EACH_WORD _Pragma("clang loop unroll(disable)")

/*
 * The number of the first bit that is set, MAX_BITS if there is none. Without branches: the
 * verifier would follow all their combinations.
 */
static __always_inline __u32 first_bit(const __u64 *left, const int words)
{
	__u64 word = left[words - 1], index = words - 1;
	int i;

	EACH_WORD
	for (i = words - 2; i >= 0; i--) {
		__u64 negative = -left[i], any;

		OPAQUE(negative);
		any = (left[i] | negative) >> 63; /* 1 or 0 */
		OPAQUE(any);
		word = left[i] * any + word * (1 - any);
		index = i * any + index * (1 - any);
	}
	return word ? index * 64 + lowest_bit(word) : MAX_BITS;
}

static __always_inline int has_bit(const struct row *row, __u32 bit)
{
	return row->word[bit / 64 & (ROW_WORDS - 1)] >> (bit & 63) & 1;
}

static __always_inline struct port_rows *rows_of(struct port_directory *directory, __u16 number)
{
	__u32 high = number >> 8, next;

	/* else the compiler omits the bound, which Linux 6.1 forgets for a number on the stack */
	OPAQUE(high);
	next = directory->next[high & 0xff];
	if (next & NEXT_IS_PAGE) {
		struct port_page *page;

		next &= ~NEXT_IS_PAGE;
		page = find_port_pages(&next);
		if (!page)
			return 0;
		next = page->next[number & 0xff];
	}
	return find_port_rows(&next);
}

static __always_inline void keep_ports(__u64 *left, const int words, struct port_rows *by_number,
				       struct port_rows *by_name)
{
	int i;

	EACH_WORD
	for (i = 0; i < words; i++) {
		__u64 wanted = by_number->wanted.word[i], unwanted = 0;

		if (match_named_ports) {
			unwanted = by_number->unwanted.word[i];
			if (by_name) {
				wanted |= by_name->wanted.word[i];
				unwanted |= by_name->unwanted.word[i];
			}
		}
		left[i] &= wanted & ~unwanted;
	}
}

static __always_inline int keep_side(__u64 *left, const int words, struct port_directory *directory,
				     __u16 port, struct named_key *key)
{
	struct port_rows *by_number = rows_of(directory, port), *by_name = 0;

	if (!by_number)
		return 0;
	if (key) {
		key->port_be = bpf_htons(port);
		by_name = find_named(key);
	}
	keep_ports(left, words, by_number, by_name);
	return 1;
}

/*
 * What is known about a packet, packed into integers: a function that the verifier walks only once
 * may take nothing else (pointers since Linux 5.12).
 */
#define KNOWN(transport, family, at) \
	((transport)->protocol | (transport)->kind << 9 | (family) << 12 | (at) << 16)
#define KNOWN_PROTOCOL(known) ((known) & 0x1ff)
#define KNOWN_KIND(known) ((known) >> 9 & 7)
#define KNOWN_FAMILY(known) ((known) >> 12 & 15)
#define KNOWN_AT(known) ((known) >> 16 & 31) /* offset of the IP header: at most 22 */
#define PAIR(first, second) ((__u32)(first) << 16 | (second))
#define FIRST(pair) ((pair) >> 16)
#define SECOND(pair) ((pair) & 0xffff)

/*
 * Writes the addresses of both sides into the keys of named ports. Returns 0 if the header is not
 * in the frame, which cannot happen.
 */
static __always_inline int named_keys(struct xdp_md *ctx, __u32 known, struct named_key *source,
				      struct named_key *destination)
{
	void *at = (void *)(long)ctx->data + KNOWN_AT(known), *end = (void *)(long)ctx->data_end;

	source->protocol = destination->protocol = KNOWN_PROTOCOL(known);
	source->family = destination->family = KNOWN_FAMILY(known);
	destination->side = SIDE_DESTINATION;
	if (source->family == 4) {
		struct iphdr *ip = at;

		if ((void *)(ip + 1) > end)
			return 0;
		source->address[0] = ip->saddr;
		destination->address[0] = ip->daddr;
	} else {
		struct ipv6hdr *ip = at;

		if ((void *)(ip + 1) > end)
			return 0;
		__builtin_memcpy(source->address, &ip->saddr, sizeof(ip->saddr));
		__builtin_memcpy(destination->address, &ip->daddr, sizeof(ip->daddr));
	}
	return 1;
}

static __always_inline int keep_both_sides(struct xdp_md *ctx, struct policy *policy, __u32 known,
					   __u32 ports, __u64 *left, const int words)
{
	struct port_directory *from = &policy->ports[PORTS_SOURCE],
			      *to = &policy->ports[PORTS_DESTINATION];
	struct named_key source = {}, destination = {};

	if (!match_named_ports)
		return keep_side(left, words, from, FIRST(ports), 0) &&
		       keep_side(left, words, to, SECOND(ports), 0);
	if (!named_keys(ctx, known, &source, &destination))
		return 0;
	return keep_side(left, words, from, FIRST(ports), &source) &&
	       keep_side(left, words, to, SECOND(ports), &destination);
}

static __always_inline int keep_class(__u64 *left, const int words, __u32 known,
				      struct address_rows *rows, int side)
{
	struct row *row;
	int i;

	if (!rows)
		return 0;
	if (KNOWN_FAMILY(known) == 4)
		row = side == SIDE_SOURCE ? &rows->source4 : &rows->destination4;
	else
		row = side == SIDE_SOURCE ? &rows->source6 : &rows->destination6;
	EACH_WORD
	for (i = 0; i < words; i++)
		left[i] &= row->word[i];
	return 1;
}

/*
 * The first entry that could match decides. `words` is a constant, so that short rows stay in
 * registers.
 */
static __always_inline int verdict_of(struct xdp_md *ctx, struct address_rows *from,
				      struct address_rows *to, __u32 known, __u32 ports,
				      __u32 length, const int words)
{
	__u32 protocol = KNOWN_PROTOCOL(known), kind = KNOWN_KIND(known);
	struct row *by_protocol = find_protocols(&protocol), *indeterminate = 0;
	struct policy *policy = find_policy();
	__u64 left[ROW_WORDS];
	int i, turn;

	if (!by_protocol || !policy)
		return XDP_PASS;
	EACH_WORD
	for (i = 0; i < words; i++)
		left[i] = by_protocol->word[i];
	if (!keep_class(left, words, known, from, SIDE_SOURCE))
		return XDP_PASS;
	if (match_destination && !keep_class(left, words, known, to, SIDE_DESTINATION))
		return XDP_PASS;
	if (protocol == PROTOCOL_UNKNOWN) {
		/*
		 * For all addresses: raw matches on the protocol before it looks up sets, and hotdrops
		 * packets without one.
		 */
		indeterminate = &policy->match_protocol;
		EACH_WORD
		for (i = 0; i < words; i++)
			left[i] |= indeterminate->word[i];
	} else if (kind == TRANSPORT_PORTS) {
		if (!keep_both_sides(ctx, policy, known, ports, left, words))
			return XDP_PASS;
	} else if (kind == TRANSPORT_NO_PORTS) {
		indeterminate = &policy->match_ports;
	} else {
		EACH_WORD
		for (i = 0; i < words; i++)
			left[i] &= policy->portless.word[i];
		if (kind == TRANSPORT_NO_ICMP)
			indeterminate = &policy->match_icmp;
		if (kind == TRANSPORT_ICMP &&
		    !keep_side(left, words,
			       &policy->ports[KNOWN_FAMILY(known) == 4 ? PORTS_ICMP : PORTS_ICMPV6],
			       FIRST(ports), 0))
			return XDP_PASS;
	}
	for (turn = 0; turn <= MAX_SKIPS; turn++) {
		__u32 bit = first_bit(left, words);
		struct row *tier;

		if (bit == MAX_BITS)
			return XDP_PASS;
		if (indeterminate && has_bit(indeterminate, bit))
			return XDP_PASS;
		if (has_bit(&policy->deny, bit))
			return drop(ctx, bit, KNOWN_AT(known), length);
		if (!may_skip || !has_bit(&policy->skip, bit))
			return XDP_PASS;
		tier = find_tiers(&bit);
		if (!tier)
			return XDP_PASS;
		EACH_WORD
		for (i = 0; i < words; i++)
			left[i] &= tier->word[i];
	}
	return XDP_PASS;
}

SUBPROGRAM int long_verdict(struct xdp_md *ctx, __u32 classes, __u32 known, __u32 ports,
			    __u32 length)
{
	__u32 source = FIRST(classes), destination = SECOND(classes);
	struct address_rows *from = find_address_rows(&source),
			    *to = find_address_rows(&destination);

	if (row_words == 1)
		return verdict_of(ctx, from, to, known, ports, length, 1);
	if (row_words == 2)
		return verdict_of(ctx, from, to, known, ports, length, 2);
	return verdict_of(ctx, from, to, known, ports, length, ROW_WORDS);
}

/* The usual policy is decided without a call. `from`: the rows of the source's class. */
static __always_inline int verdict(struct xdp_md *ctx, struct address_rows *from, __u32 classes,
				   __u32 known, __u32 ports, __u32 length)
{
	if (row_words == 1 && !match_destination && !may_skip && !match_named_ports)
		return verdict_of(ctx, from, 0, known, ports, length, 1);
	return long_verdict(ctx, classes, known, ports, length);
}

/* The rows of a source's class if a Deny entry could match a packet from it; else 0. */
static __always_inline struct address_rows *may_drop(__u32 class, int family)
{
	struct address_rows *rows;
	struct policy *policy = find_policy();
	struct row *row;
	__u64 left;
	int i;

	if (!class && !drop_unlisted)
		return 0;
	rows = find_address_rows(&class);
	if (!rows || !policy)
		return 0;
	row = family == 4 ? &rows->source4 : &rows->source6;
	left = row->word[0] & policy->deny.word[0];
	if (row_words > 1) {
		for (i = 1; i < ROW_WORDS; i++)
			left |= row->word[i] & policy->deny.word[i];
	}
	return left ? rows : 0;
}

static __always_inline int decide_ipv4(struct xdp_md *ctx, struct cursor *cursor)
{
	struct iphdr *ip = cursor->at;
	struct transport transport = {};
	struct address_rows *from;
	__u32 at = cursor->at - (void *)(long)ctx->data;
	__u32 length = parse_ipv4(cursor), source, destination = 0;

	if (!length)
		return XDP_PASS;

	source = class_of4(bpf_ntohl(ip->saddr));
	from = may_drop(source, 4);
	if (!from)
		return XDP_PASS;
	if (match_destination)
		destination = class_of4(bpf_ntohl(ip->daddr));

	transport.protocol = ip->protocol;
	parse_transport(cursor, IPPROTO_ICMP, bpf_ntohs(ip->frag_off) & IP_OFFSET, &transport);
	return verdict(ctx, from, PAIR(source, destination), KNOWN(&transport, 4, at),
		       PAIR(transport.source, transport.destination), length);
}

static __always_inline __u64 half_address(const __be32 *words)
{
	return (__u64)bpf_ntohl(words[0]) << 32 | bpf_ntohl(words[1]);
}

static __always_inline int decide_ipv6(struct xdp_md *ctx, struct cursor *cursor)
{
	struct ipv6hdr *ip = cursor->at;
	struct transport transport = {.protocol = PROTOCOL_UNKNOWN};
	struct address_rows *from;
	__u32 at = cursor->at - (void *)(long)ctx->data;
	__u32 length = parse_ipv6(cursor), source, destination = 0;

	if (!length)
		return XDP_PASS;

	source =
		class_of6(half_address(ip->saddr.s6_addr32), half_address(ip->saddr.s6_addr32 + 2));
	from = may_drop(source, 6);
	if (!from)
		return XDP_PASS;
	if (match_destination)
		destination = class_of6(half_address(ip->daddr.s6_addr32),
					half_address(ip->daddr.s6_addr32 + 2));

	parse_extensions(ctx, cursor, ip->nexthdr, &transport);
	return verdict(ctx, from, PAIR(source, destination), KNOWN(&transport, 6, at),
		       PAIR(transport.source, transport.destination), length);
}

/* The function name is the program name that tools show: at most 15 characters. */
PROGRAM("xdp")
int xdp_untracked(struct xdp_md *ctx)
{
	struct cursor cursor = {
		.at = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};

	switch (parse_link(&cursor)) {
	case ETH_P_IP:
		return decide_ipv4(ctx, &cursor);
	case ETH_P_IPV6:
		return decide_ipv6(ctx, &cursor);
	default:
		return XDP_PASS;
	}
}

#ifndef TOOLCHAIN_BCC
char LICENSE[] SEC("license") = "GPL";
#endif
