/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* Stands for libbpf's header of this name where bpf/xdp_untracked.bpf.c is compiled for the host. */
#ifndef HOST_BPF_HELPERS_H
#define HOST_BPF_HELPERS_H

#include <linux/bpf.h>

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define SEC(name)

/* A map's declaration keeps its key and value as the types of pointers. */
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name

void *host_lookup(const void *map, const void *key);
#define bpf_map_lookup_elem host_lookup

/* All of a frame is in the first buffer. */
static inline __u64 bpf_xdp_get_buff_len(const struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data;
}

#endif
