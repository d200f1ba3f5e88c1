// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The observer: records how far each numbered packet got, and where it ended.
 *
 * It knows nothing of the enforcer. Checkpoints (netif_receive_skb and netfilter links between the
 * hooks of interest) record how far a packet got; kfree_skb and consume_skb record where its buffer
 * was freed and why. There is one record for each packet, in an array that user space maps, so no
 * ring buffer can overflow.
 *
 * Identity: bytes 3..5 of the Ethernet source address hold the packet's number (big endian), bytes
 * 0..2 hold the tag of this drill. The address is read from skb->head + skb->mac_header, which
 * stays readable until the buffer is freed.
 *
 * Netfilter programs need Linux 6.4 (BPF_PROG_TYPE_NETFILTER); the tracepoint with a drop reason
 * needs 5.17.
 */
#include <linux/bpf.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <linux/udp.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "journey.h"

/* Only the members that are read; CO-RE relocates them to the running kernel's layout. */
struct sk_buff {
	unsigned char *head;
	unsigned char *data;
	__u16 mac_header;
	unsigned long _nfct;
	unsigned int len;
	__u32 mark;
	__u8 csum_valid : 1;
	__u8 csum_complete_sw : 1;
} __attribute__((preserve_access_index));

struct bpf_nf_ctx {
	struct sk_buff *skb;
} __attribute__((preserve_access_index));

struct ether_addresses {
	__u8 destination[6];
	__u8 tag[3];
	__u8 number[3];
};

_Static_assert(sizeof(struct ether_addresses) == 12, "two Ethernet addresses");

#define TCP_DATA_OFFSET 12
#define NF_ACCEPT 1
#define MAC_HEADER_UNSET 0xffff /* skbuff.h: skb_mac_header_was_set() */

/* Here this host is done with a packet; what carries it away afterwards may clear its mark. */
#define CHECKPOINT_DONE (CHECKPOINT_INPUT_LAST | CHECKPOINT_POSTROUTING)

/*
 * Bytes 0..2 of the source address of this drill's packets, big endian. A variable, because one
 * load of these programs serves many drills.
 */
volatile __u32 drill_tag SEC(".bss.drill_tag");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct journey);
} journeys SEC(".maps");

static __always_inline __u32 be24(const __u8 bytes[3])
{
	return (__u32)bytes[0] << 16 | (__u32)bytes[1] << 8 | bytes[2];
}

static __always_inline struct journey *journey_of(struct sk_buff *skb)
{
	__u16 mac_header = BPF_CORE_READ(skb, mac_header);
	unsigned char *head = BPF_CORE_READ(skb, head);
	struct ether_addresses addresses;
	struct journey *journey;
	__u32 number;

	if (!head || mac_header == MAC_HEADER_UNSET)
		return 0;
	if (bpf_probe_read_kernel(&addresses, sizeof(addresses), head + mac_header))
		return 0;
	if (be24(addresses.tag) != drill_tag)
		return 0;
	number = be24(addresses.number);
	journey = bpf_map_lookup_elem(&journeys, &number);
	if (journey && addresses.destination[0] & 1)
		journey->checkpoints |= CHECKPOINT_GROUP;
	return journey;
}

static __always_inline __u8 ctinfo_of(struct sk_buff *skb)
{
	unsigned long nfct = BPF_CORE_READ(skb, _nfct);
	__u8 entry = nfct > CTINFO_MASK ? CTINFO_ENTRY : 0;

	return (nfct & CTINFO_MASK) | entry;
}

/* One CPU at a time handles a packet, so plain stores suffice. */
static __always_inline void record_checkpoint(struct sk_buff *skb, __u32 checkpoint)
{
	struct journey *journey = journey_of(skb);

	if (!journey)
		return;
	journey->checkpoints |= checkpoint;
	if (checkpoint == CHECKPOINT_PRE_DEFRAG)
		journey->pre_defrag_ns = bpf_ktime_get_ns();
	if (checkpoint == CHECKPOINT_POST_DEFRAG)
		journey->post_defrag_ns = bpf_ktime_get_ns();
	if (checkpoint == CHECKPOINT_POST_CONNTRACK)
		journey->ctinfo = ctinfo_of(skb);
	if (checkpoint & CHECKPOINT_DONE)
		journey->mark = BPF_CORE_READ(skb, mark);
}

/*
 * Meaningful if TCP freed it: whether the rest of the packet is shorter than its TCP header length.
 */
static __always_inline int lacks_tcp_header(struct sk_buff *skb, __u32 length)
{
	__u8 data_offset = 0;

	if (length < sizeof(struct tcphdr))
		return 1;
	bpf_probe_read_kernel(&data_offset, sizeof(data_offset),
			      BPF_CORE_READ(skb, data) + TCP_DATA_OFFSET);
	return (__u32)(data_offset >> 4) * 4 > length;
}

static __always_inline void record_end(struct sk_buff *skb, __u8 end, const void *location,
				       __u32 reason)
{
	struct journey *journey = journey_of(skb);
	__u32 length = BPF_CORE_READ(skb, len);

	if (!journey)
		return;
	/*
	 * The last end counts: if native or generic XDP copies a buffer, it consumes the original
	 * earlier.
	 */
	journey->location = (__u64)location;
	journey->reason = reason;
	journey->end = end;
	if (!(journey->checkpoints & CHECKPOINT_DONE))
		journey->mark = BPF_CORE_READ(skb, mark);
	if (lacks_tcp_header(skb, length))
		journey->checkpoints |= CHECKPOINT_NO_TCP;
	if (length < sizeof(struct udphdr))
		journey->checkpoints |= CHECKPOINT_NO_UDP;
	if (BPF_CORE_READ_BITFIELD_PROBED(skb, csum_complete_sw) &&
	    !BPF_CORE_READ_BITFIELD_PROBED(skb, csum_valid))
		journey->checkpoints |= CHECKPOINT_BAD_SUM;
	if (journey->ends != 0xff)
		journey->ends++;
}

/*
 * Each event has two programs. The kernel does not run a tracing program on a CPU where it is
 * already running (kernel/trace/bpf_trace.c: prog->active), and a program can be interrupted: then
 * what a timer or a received packet frees on that CPU, perhaps hundreds of fragments, would be
 * missed. The second program sees what the first one missed, and the first what interrupts the
 * second. Both write the same.
 */
SEC("tp_btf/netif_receive_skb")
int BPF_PROG(on_receive, struct sk_buff *skb)
{
	record_checkpoint(skb, CHECKPOINT_RECEIVE);
	return 0;
}

SEC("tp_btf/netif_receive_skb")
int BPF_PROG(on_receive_too, struct sk_buff *skb)
{
	record_checkpoint(skb, CHECKPOINT_RECEIVE);
	return 0;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(on_kfree, struct sk_buff *skb, void *location, __u32 reason)
{
	record_end(skb, END_KFREE, location, reason);
	return 0;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(on_kfree_too, struct sk_buff *skb, void *location, __u32 reason)
{
	record_end(skb, END_KFREE, location, reason);
	return 0;
}

SEC("tp_btf/consume_skb")
int BPF_PROG(on_consume, struct sk_buff *skb, void *location)
{
	record_end(skb, END_CONSUME, location, 0);
	return 0;
}

SEC("tp_btf/consume_skb")
int BPF_PROG(on_consume_too, struct sk_buff *skb, void *location)
{
	record_end(skb, END_CONSUME, location, 0);
	return 0;
}

SEC("netfilter/pre_defrag")
int pre_defrag(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_PRE_DEFRAG);
	return NF_ACCEPT;
}

SEC("netfilter/post_defrag")
int post_defrag(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_POST_DEFRAG);
	return NF_ACCEPT;
}

SEC("netfilter/post_raw")
int post_raw(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_POST_RAW);
	return NF_ACCEPT;
}

SEC("netfilter/post_conntrack")
int post_conntrack(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_POST_CONNTRACK);
	return NF_ACCEPT;
}

SEC("netfilter/post_mangle")
int post_mangle(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_POST_MANGLE);
	return NF_ACCEPT;
}

SEC("netfilter/pre_route")
int pre_route(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_PRE_ROUTE);
	return NF_ACCEPT;
}

SEC("netfilter/input_first")
int input_first(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_INPUT_FIRST);
	return NF_ACCEPT;
}

SEC("netfilter/input_last")
int input_last(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_INPUT_LAST);
	return NF_ACCEPT;
}

SEC("netfilter/forward_first")
int forward_first(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_FORWARD_FIRST);
	return NF_ACCEPT;
}

SEC("netfilter/forward_last")
int forward_last(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_FORWARD_LAST);
	return NF_ACCEPT;
}

SEC("netfilter/postrouting")
int postrouting(struct bpf_nf_ctx *ctx)
{
	record_checkpoint(ctx->skb, CHECKPOINT_POSTROUTING);
	return NF_ACCEPT;
}

char LICENSE[] SEC("license") = "GPL";
