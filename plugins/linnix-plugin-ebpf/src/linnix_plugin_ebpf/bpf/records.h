/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What travels from the kernel to Python. `linnix_plugin_ebpf/wire.py` reads the same
 * layouts; a test compares the two through the object's BTF.
 */
#ifndef LINNIX_RECORDS_H
#define LINNIX_RECORDS_H

#include "kernel.h"

#define MAX_PATH_BYTES 4096
#define MAX_NAME_BYTES 256
/* As many as the readers of /proc take, and several times what the core keeps. */
#define MAX_ARGS_BYTES 16384

enum kind {
	FORK = 1,
	EXEC = 2,
	EXIT = 3,
	OOM = 4,
	CGROUP = 5,
};

enum flags {
	ARGS_CUT = 1 << 0,
	ARGS_UNREADABLE = 1 << 1,
	EXE_CUT = 1 << 2,
	CWD_CUT = 1 << 3,
};

/* Set in a cgroup id that is of the version 1 hierarchy: each hierarchy counts for itself. */
#define CGROUP_V1 (1ULL << 63)

/* Every record begins with this. Times are of CLOCK_BOOTTIME. */
struct event {
	u64 time_ns;
	u64 start_ns;
	u64 parent_start_ns;
	u64 cgroup;
	u32 pid;
	u32 ppid;
	u32 uid;
	u32 gid;
	char comm[16];
	u16 kind;
	u16 flags;
	u32 exit_status; /* as wait(2) gives it */
};

struct exit_event {
	struct event event;
	u64 cpu_ns;
	u64 max_rss_pages;
};

/* Followed by the parts of both paths, each ended by NUL, the last part first, and by the
 * arguments as they stand in memory. */
struct exec_event {
	struct event event;
	u16 exe_bytes;
	u16 cwd_bytes;
	u32 args_bytes;
};

/* Followed by the path of the new cgroup. */
struct cgroup_event {
	struct event event;
	u64 path_bytes;
};

/* One thread in a snapshot. What a whole process has is in the record of its leader. */
struct thread {
	u64 start_ns;
	u64 parent_start_ns;
	u64 cgroup;
	u64 cpu_ns;
	u64 read_bytes;
	u64 write_bytes;
	u64 delay_ns; /* ready to run, and waiting for a processor */
	s64 rss_pages; /* file, anonymous and shared; -1: no address space */
	s64 anon_pages;
	s64 shmem_pages;
	s64 read_offset; /* in all files that it reads, added up; -1: not known */
	u32 pid;
	u32 tid;
	u32 ppid;
	u32 uid;
	u32 gid;
	u32 threads;
	s32 fds; /* -1: not known */
	u16 state;
	u16 kernel; /* whether it is one of the kernel's own */
	char comm[16];
};

/*
 * What became of everything that one processor had to tell. `begun` is counted first and
 * one of the others last, so their sums are equal whenever no program is in between.
 */
struct counters {
	u64 begun;
	u64 submitted;
	u64 ring_full;
	u64 throttled;
	u64 pad[4]; /* to a cache line, so that processors do not share one */
};

/* What the reader tells the programs. */
struct control {
	u32 reader_sleeps;
	s32 v1_subsystem; /* index of the version 1 controller to name groups by, or -1 */
	s32 v1_hierarchy;
	u32 pad;
	u64 cost_ns; /* token bucket of each cgroup: what one event costs; 0: no limit */
	u64 burst_ns;
};

#endif
