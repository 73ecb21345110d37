/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Every fork, exec and exit of a process as one record in a ring buffer, for BCC.
 *
 * What tracepoints tell is read through their formats, which the running kernel gives. Its
 * structures are read only with LINNIX_TASKS, which says that the headers are the running
 * kernel's own: those of another would give garbage.
 *
 * Given on the command line of the compiler: LINNIX_PAGES (of the ring), LINNIX_CPUS
 * (possible processors), LINNIX_TASKS, and LINNIX_GROUP_DEAD where sched_process_exit tells
 * which thread was the last (since 6.16).
 */
#define BPF_LICENSE Dual MIT/GPL

#ifdef LINNIX_TASKS
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/mm_types.h>
#endif

/* `linnix_plugin_bcc/wire.py` knows these and the layout of struct event. */
#define ARGS_BYTES 16384
#define EXE_BYTES 4096
#define FORK 1
#define EXEC 2
#define EXIT 3
#define OOM 4
#define ARGS_CUT 1
#define ARGS_UNREADABLE 2

/* Of the kernel's include/uapi/linux/sched.h and include/linux/sched/signal.h. */
#define THREAD_FLAG 0x00010000
#define PARENT_FLAG 0x00008000
#define GROUP_EXIT_FLAG 0x00000004

#define ARG_CHUNK 2048 /* of one argument at a time */
#define ARG_CHUNKS 512
#define NO_WAKEUP 1 /* the reader looks by itself: a wake-up costs ten times the event */

struct event {
	u64 time_ns; /* of CLOCK_BOOTTIME */
	u64 start_ns; /* of the process, or of its fork event; 0: not known */
	u64 cgroup;
	u64 cpu_ns;
	u64 max_rss_pages;
	u32 pid;
	u32 ppid; /* 0: not known */
	u32 uid;
	u32 gid;
	u32 exit_status; /* as wait(2) gives it */
	u16 kind;
	u16 flags;
	u16 args_bytes;
	u16 exe_bytes;
	char comm[16];
	u32 pad;
	char text[ARGS_BYTES + EXE_BYTES]; /* arguments, each ended by NUL, then the path */
};

#define HEADER_BYTES offsetof(struct event, text)

/* What the verifier does not see for itself. The barrier keeps the compiler from checking
 * a copy and using the original. */
#define BOUND(value, limit)                      \
	do {                                     \
		asm volatile("" : "+r"(value));  \
		if (value > (limit))             \
			value = (limit);         \
	} while (0)

struct counters {
	u64 emitted;
	u64 lost;
	u64 pad[6]; /* to a cache line, so that processors do not share one */
};

BPF_RINGBUF_OUTPUT(events, LINNIX_PAGES);
/* BPF_F_MMAPABLE, so that it can be read without privileges. */
BPF_F_TABLE("array", u32, struct counters, counted, LINNIX_CPUS, 1 << 10);
/* An event is too large for the stack. */
BPF_PERCPU_ARRAY(scratch, struct event, 1);

static __always_inline struct event *begin(u16 kind)
{
	u32 zero = 0;
	struct event *event = scratch.lookup(&zero);
	u64 ids = bpf_get_current_uid_gid();

	if (!event)
		return 0;
	__builtin_memset(event, 0, HEADER_BYTES);
	event->time_ns = bpf_ktime_get_boot_ns();
	event->cgroup = bpf_get_current_cgroup_id();
	event->uid = ids;
	event->gid = ids >> 32;
	event->kind = kind;
	return event;
}

static __always_inline void emit(struct event *event, u64 size)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct counters *counters = counted.lookup(&cpu);

	if (!counters)
		return;
	__sync_fetch_and_add(&counters->emitted, 1);
	if (events.ringbuf_output(event, size, NO_WAKEUP))
		__sync_fetch_and_add(&counters->lost, 1);
}

#ifndef LINNIX_TASKS
/* When processes began, so that a pid that is in use again is never taken for its former
 * owner, even if the events between are lost. */
BPF_HASH(born, u32, u64, 131072);

static __always_inline u64 start_of(u32 process)
{
	u64 *start_ns = born.lookup(&process);

	return start_ns ? *start_ns : 0;
}
#endif

/* Fired in the parent, before the child runs. sched_process_fork does not tell a thread. */
TRACEPOINT_PROBE(task, task_newtask)
{
	struct event *event;

	if (args->clone_flags & THREAD_FLAG)
		return 0;
	event = begin(FORK);
	if (!event)
		return 0;
	event->pid = args->pid;
	/* Otherwise a sibling, whose parent is not told. */
	if (!(args->clone_flags & PARENT_FLAG))
		event->ppid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
#ifndef LINNIX_TASKS
	u32 child = args->pid;

	born.update(&child, &event->time_ns);
#endif
	emit(event, HEADER_BYTES);
	return 0;
}

#ifndef LINNIX_TASKS

/* The arguments of execs that are under way, by process: the calls that fail are many. */
struct arguments {
	u16 bytes;
	u16 flags;
	u32 pad;
	char text[ARGS_BYTES];
};
BPF_HASH(pending, u32, struct arguments, 256);

/* With room for a chunk that begins at the end. */
struct arguments_scratch {
	struct arguments arguments;
	char more[ARG_CHUNK];
};
BPF_PERCPU_ARRAY(reading, struct arguments_scratch, 1);

static __always_inline int take_arguments(const char *const *argv)
{
	u32 zero = 0, process = bpf_get_current_pid_tgid() >> 32;
	struct arguments_scratch *room = reading.lookup(&zero);
	const char *argument = 0;
	u64 used = 0, index = 0;
	int chunk;
	long length;

	if (!room)
		return 0;
	room->arguments.flags = ARGS_CUT;
	for (chunk = 0; chunk < ARG_CHUNKS; chunk++) {
		if (!argument) {
			if (bpf_probe_read_user(&argument, sizeof(argument), &argv[index])) {
				room->arguments.flags = ARGS_UNREADABLE;
				break;
			}
			if (!argument) {
				room->arguments.flags = 0;
				break;
			}
			index++;
		}
		if (used >= ARGS_BYTES)
			break;
		length = bpf_probe_read_user_str(room->arguments.text + used, ARG_CHUNK, argument);
		if (length <= 0) {
			room->arguments.flags = ARGS_UNREADABLE;
			break;
		}
		if (length == ARG_CHUNK) {
			/* There is more of it, or only its NUL. */
			used += ARG_CHUNK - 1;
			argument += ARG_CHUNK - 1;
		} else {
			used += length;
			argument = 0;
		}
	}
	if (used > ARGS_BYTES) {
		used = ARGS_BYTES;
		room->arguments.flags |= ARGS_CUT;
	}
	room->arguments.bytes = used;
	pending.update(&process, &room->arguments);
	return 0;
}

static __always_inline int drop_arguments(void)
{
	u32 process = bpf_get_current_pid_tgid() >> 32;

	pending.delete(&process);
	return 0;
}

TRACEPOINT_PROBE(syscalls, sys_enter_execve)
{
	return take_arguments((const char *const *)args->argv);
}

TRACEPOINT_PROBE(syscalls, sys_enter_execveat)
{
	return take_arguments((const char *const *)args->argv);
}

TRACEPOINT_PROBE(syscalls, sys_exit_execve)
{
	return drop_arguments();
}

TRACEPOINT_PROBE(syscalls, sys_exit_execveat)
{
	return drop_arguments();
}

#endif

TRACEPOINT_PROBE(sched, sched_process_exec)
{
	struct event *event = begin(EXEC);
	u32 process = bpf_get_current_pid_tgid() >> 32;
	u64 used = 0;
	long length;

	if (!event)
		return 0;
	event->pid = process;
	bpf_get_current_comm(event->comm, sizeof(event->comm));

#ifdef LINNIX_TASKS
	struct task_struct *task = (struct task_struct *)bpf_get_current_task(), *leader = 0;
	struct mm_struct *mm = 0;
	unsigned long first = 0, end = 0;

	bpf_probe_read_kernel(&leader, sizeof(leader), &task->group_leader);
	bpf_probe_read_kernel(&event->start_ns, sizeof(u64), &leader->start_boottime);
	bpf_probe_read_kernel(&mm, sizeof(mm), &task->mm);
	bpf_probe_read_kernel(&first, sizeof(first), &mm->arg_start);
	bpf_probe_read_kernel(&end, sizeof(end), &mm->arg_end);
	used = end - first;
	if (used > ARGS_BYTES)
		event->flags |= ARGS_CUT;
	BOUND(used, ARGS_BYTES);
	if (bpf_probe_read_user(event->text, used, (void *)first)) {
		used = 0;
		event->flags |= ARGS_UNREADABLE;
	}
#else
	struct arguments *arguments = pending.lookup(&process);

	event->start_ns = start_of(process);
	if (arguments) {
		used = arguments->bytes;
		event->flags = arguments->flags;
		BOUND(used, ARGS_BYTES);
		bpf_probe_read_kernel(event->text, used, arguments->text);
		pending.delete(&process);
	} else {
		event->flags = ARGS_UNREADABLE;
	}
#endif

	event->args_bytes = used;
	length = bpf_probe_read_kernel_str(event->text + used, EXE_BYTES,
					   (void *)args + (args->data_loc_filename & 0xffff));
	if (length > 0) {
		event->exe_bytes = length;
		used += length;
	}
	BOUND(used, ARGS_BYTES + EXE_BYTES);
	emit(event, HEADER_BYTES + used);
	return 0;
}

#if defined(LINNIX_TASKS) && !defined(LINNIX_GROUP_DEAD)
/* Who has exited lately: threads that end together all find that none is alive. */
struct identity {
	u64 start_ns;
	u64 process;
};
BPF_TABLE("lru_hash", struct identity, u8, exited, 16384);
#endif

TRACEPOINT_PROBE(sched, sched_process_exit)
{
	u64 ids = bpf_get_current_pid_tgid();
	u32 process = ids >> 32;
	struct event *event;

#ifdef LINNIX_GROUP_DEAD
	if (!args->group_dead)
		return 0;
#elif !defined(LINNIX_TASKS)
	if ((u32)ids != process)
		return 0;
#endif

#ifdef LINNIX_TASKS
	struct task_struct *task = (struct task_struct *)bpf_get_current_task(), *leader = 0;
	struct signal_struct *signal = 0;
	u64 start_ns = 0, own_ns = 0;
	unsigned long long before_ns = 0;
	unsigned long max_rss = 0;
	unsigned int flags = 0;
	int status = 0;

	bpf_probe_read_kernel(&leader, sizeof(leader), &task->group_leader);
	bpf_probe_read_kernel(&signal, sizeof(signal), &task->signal);
	bpf_probe_read_kernel(&start_ns, sizeof(start_ns), &leader->start_boottime);
#ifndef LINNIX_GROUP_DEAD
	struct identity identity = {.start_ns = start_ns, .process = process};
	int alive = 0;
	u8 one = 1;

	bpf_probe_read_kernel(&alive, sizeof(alive), &signal->live);
	if (alive || exited.insert(&identity, &one))
		return 0;
#endif
#endif

	event = begin(EXIT);
	if (!event)
		return 0;
	event->pid = process;
	if ((u32)ids == process) /* any other is a thread's, which can have a name of its own */
		bpf_get_current_comm(event->comm, sizeof(event->comm));

#ifdef LINNIX_TASKS
	event->start_ns = start_ns;
	/* What wait(2) reports: the code of the group if it was ended as one. */
	bpf_probe_read_kernel(&flags, sizeof(flags), &signal->flags);
	if (flags & GROUP_EXIT_FLAG)
		bpf_probe_read_kernel(&status, sizeof(status), &signal->group_exit_code);
	else
		bpf_probe_read_kernel(&status, sizeof(status), &leader->exit_code);
	event->exit_status = status;
	/* utime and stime count ticks, and are 0 for short lives. The threads that were
	 * released before are summed in the signal; a leader that is waited for is not. */
	bpf_probe_read_kernel(&before_ns, sizeof(before_ns), &signal->sum_sched_runtime);
	bpf_probe_read_kernel(&own_ns, sizeof(own_ns), &task->se.sum_exec_runtime);
	event->cpu_ns = before_ns + own_ns;
	if (task != leader) {
		bpf_probe_read_kernel(&own_ns, sizeof(own_ns), &leader->se.sum_exec_runtime);
		event->cpu_ns += own_ns;
	}
	bpf_probe_read_kernel(&max_rss, sizeof(max_rss), &signal->maxrss);
	event->max_rss_pages = max_rss;
#else
	event->start_ns = start_of(process);
	born.delete(&process);
	pending.delete(&process);
#endif
	emit(event, HEADER_BYTES);
	return 0;
}

TRACEPOINT_PROBE(oom, mark_victim)
{
	struct event *event = begin(OOM);

	if (!event)
		return 0;
	event->pid = args->pid;
	emit(event, HEADER_BYTES);
	return 0;
}
