/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* What the observer writes and dossim/observe reads, as abi.py, which tools/abi.py writes. */
#ifndef JOURNEY_H
#define JOURNEY_H

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/types.h>

/*
 * In the order a packet meets them; the number is the netfilter priority after which (or before
 * which) it sits.
 */
enum checkpoint {
	CHECKPOINT_RECEIVE = 1 << 0,	    /* left the driver; generic XDP comes after */
	CHECKPOINT_PRE_DEFRAG = 1 << 1,	    /* PREROUTING -401: passed the header checks */
	CHECKPOINT_POST_DEFRAG = 1 << 2,    /* PREROUTING -399 */
	CHECKPOINT_POST_RAW = 1 << 3,	    /* PREROUTING -299 */
	CHECKPOINT_POST_CONNTRACK = 1 << 4, /* PREROUTING -199 */
	CHECKPOINT_POST_MANGLE = 1 << 5,    /* PREROUTING -149 */
	CHECKPOINT_PRE_ROUTE = 1 << 6,	    /* PREROUTING last */
	CHECKPOINT_INPUT_FIRST = 1 << 7,    /* LOCAL_IN first: routed to this host */
	CHECKPOINT_INPUT_LAST = 1 << 8,	    /* LOCAL_IN last: handed to the transport */
	CHECKPOINT_FORWARD_FIRST = 1 << 9,
	CHECKPOINT_FORWARD_LAST = 1 << 10,
	CHECKPOINT_POSTROUTING = 1 << 11, /* POSTROUTING last: leaves by another interface */
	CHECKPOINT_GROUP = 1 << 12,	  /* the frame's destination is a group address */
	CHECKPOINT_NO_TCP = 1 << 13,	  /* freed with less than its TCP header left */
	CHECKPOINT_NO_UDP = 1 << 14,	  /* freed with less than a UDP header left */
	CHECKPOINT_BAD_SUM = 1 << 15,	  /* freed after the kernel summed it up: wrong */
};

enum end {
	END_NONE,
	END_KFREE,
	END_CONSUME,
};

/*
 * What conntrack said of a packet, as skb->_nfct holds it: the low bits are an ip_conntrack_info, the
 * others point to the entry. Without entry 0 is INVALID.
 */
enum ctinfo {
	CTINFO_ESTABLISHED = IP_CT_ESTABLISHED,
	CTINFO_RELATED = IP_CT_RELATED,
	CTINFO_NEW = IP_CT_NEW,
	CTINFO_ESTABLISHED_REPLY = IP_CT_ESTABLISHED_REPLY,
	CTINFO_RELATED_REPLY = IP_CT_RELATED_REPLY,
	CTINFO_UNTRACKED = 7,  /* IP_CT_UNTRACKED, which user headers leave out */
	CTINFO_MASK = 7,       /* skbuff.h: NFCT_INFOMASK */
	CTINFO_ENTRY = 1 << 3, /* there is an entry */
};

struct journey {
	__u64 location; /* caller of kfree_skb or consume_skb */
	/* monotonic time at the checkpoint before defragmentation, 0 when not reached */
	__u64 pre_defrag_ns;
	/* and at the one after it: tells which fragments make up which datagram */
	__u64 post_defrag_ns;
	__u32 checkpoints;
	/* skb->mark when this host was done with it: freed, handed to the transport or sent on */
	__u32 mark;
	/* enum skb_drop_reason of the running kernel (its core reasons fit 16 bits) */
	__u16 reason;
	__u8 end;
	__u8 ends;   /* how often a buffer of this packet was freed, saturating */
	__u8 ctinfo; /* enum ctinfo at CHECKPOINT_POST_CONNTRACK, 0 before */
	__u8 unused[3];
};

_Static_assert(sizeof(struct journey) == 40, "dossim/observe/journey.py reads records of 40 bytes");

#endif
