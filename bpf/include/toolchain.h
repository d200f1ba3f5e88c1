/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * One source, two toolchains: clang with libbpf (ahead of time) and bcc (on the host, which defines
 * BCC_SEC).
 *
 * With libbpf, the only element of a map is a global variable, so reading it needs no look-up. A
 * map may be declared by a macro, but not looked up by one (bcc rewrites the calls that it finds in
 * a function's body), so each map has an accessor function with a body for each toolchain. bcc
 * accepts only maps declared with its own macros, and rewrites only the source file, so functions
 * in our headers use no map. With bcc a setting is a macro, so nothing else may have its name.
 */
#ifndef TOOLCHAIN_H
#define TOOLCHAIN_H

#ifdef BCC_SEC

#define TOOLCHAIN_BCC 1
#define PROGRAM(section)
/* bcc turns every function that is not static into a program. */
#define SUBPROGRAM static __always_inline
/* bcc compiles settings in: -D name=value. */
#define SETTING(type, name)
#define HASH_MAP(name, key_type, value_type, entries) \
	BPF_F_TABLE("hash", key_type, value_type, name, entries, 0)
#define LPM_MAP(name, key_type, value_type, entries) \
	BPF_F_TABLE("lpm_trie", key_type, value_type, name, entries, BPF_F_NO_PREALLOC)
#define ARRAY_MAP(name, value_type, entries) BPF_TABLE("array", __u32, value_type, name, entries)
#define MMAPABLE_ARRAY_MAP(name, value_type, entries) \
	BPF_F_TABLE("array", __u32, value_type, name, entries, BPF_F_MMAPABLE)
/*
 * As bytes: for every other array in a value bcc generates code that prints and parses each element,
 * most of its time. So the accessor casts.
 */
#define VARIABLE_MAP(name, value_type)         \
	struct name##_bytes {                  \
		char byte[sizeof(value_type)]; \
	};                                     \
	MMAPABLE_ARRAY_MAP(name, struct name##_bytes, 1)
#define PERCPU_ARRAY_MAP(name, value_type, entries) \
	BPF_TABLE("percpu_array", __u32, value_type, name, entries)

#else

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PROGRAM(section) SEC(section)
#define SUBPROGRAM __attribute__((noinline))
/*
 * Constants that user space sets before loading; the verifier removes code they make unreachable.
 */
#define SETTING(type, name) const volatile type name
#define DECLARE_MAP(name, map_type, key_type, value_type, entries, flags) \
	struct {                                                          \
		__uint(type, map_type);                                   \
		__uint(max_entries, entries);                             \
		__uint(map_flags, flags);                                 \
		__type(key, key_type);                                    \
		__type(value, value_type);                                \
	} name SEC(".maps")
#define HASH_MAP(name, key_type, value_type, entries) \
	DECLARE_MAP(name, BPF_MAP_TYPE_HASH, key_type, value_type, entries, 0)
#define LPM_MAP(name, key_type, value_type, entries) \
	DECLARE_MAP(name, BPF_MAP_TYPE_LPM_TRIE, key_type, value_type, entries, BPF_F_NO_PREALLOC)
#define ARRAY_MAP(name, value_type, entries) \
	DECLARE_MAP(name, BPF_MAP_TYPE_ARRAY, __u32, value_type, entries, 0)
#define MMAPABLE_ARRAY_MAP(name, value_type, entries) \
	DECLARE_MAP(name, BPF_MAP_TYPE_ARRAY, __u32, value_type, entries, BPF_F_MMAPABLE)
/* An array map of this one element, called ".bss.<name>". */
#define VARIABLE_MAP(name, value_type) value_type name SEC(".bss." #name)
#define PERCPU_ARRAY_MAP(name, value_type, entries) \
	DECLARE_MAP(name, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, value_type, entries, 0)

#endif

#endif
