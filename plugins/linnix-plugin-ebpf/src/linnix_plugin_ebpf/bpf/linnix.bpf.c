/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Every fork, exec and exit of a process as one record in a ring buffer, and a snapshot of
 * every thread. Only BTF tracepoints and a task iterator: no kprobes, which many kernels
 * are built without, and no tracefs.
 */
#include "records.h"

#define MAX_PATH_STEPS 64 /* parts of a path and mounts on the way */
#define MAX_FD_WORDS 1024 /* 65536 descriptors */
#define MAX_READ_FILES 256
#define MAX_BUCKETS 4096
#define LONGEST_TICK_NS 10000000 /* HZ is 100 at the least */

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* set before loading */
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* one for each possible processor, set before loading */
	__type(key, u32);
	__type(value, struct counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct control);
} control SEC(".maps");

struct bucket {
	u64 full_ns; /* when the bucket was, or will be, full again less its burst */
	u64 throttled;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_BUCKETS);
	__type(key, u64);
	__type(value, struct bucket);
} buckets SEC(".maps");

struct identity {
	u64 start_ns;
	u32 pid;
	u32 pad;
};

/* Who has exited lately; used by kernels that do not tell which thread was the last. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct identity);
	__type(value, u8);
} exited SEC(".maps");

struct arrival {
	u64 time_ns;
	u64 used_ns;
	u32 tid;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct arrival);
} arrivals SEC(".maps");

/* The last part of a path may begin where the limit ends. */
#define PATH_ROOM (MAX_PATH_BYTES + MAX_NAME_BYTES)

/* An exec's record is too large for the stack, and too varied in size to reserve. */
struct scratch {
	struct exec_event exec;
	u8 text[2 * PATH_ROOM + MAX_ARGS_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

/* What the verifier does not see for itself. The barrier keeps the compiler from checking
 * a copy and using the original. */
#define BOUND(value, limit)                      \
	do {                                     \
		asm volatile("" : "+r"(value));  \
		if (value > (limit))             \
			value = (limit);         \
	} while (0)

/* A copy that takes no notice of the type of what it reads: for pointers of which the
 * verifier knows nothing, and where it should not know. */
#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), &(from))

static __always_inline struct control *the_control(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline struct counters *my_counters(void)
{
	u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&counters, &cpu);
}

static __always_inline u64 wakeup(const struct control *control)
{
	/* A wake-up for each event costs ten times the event; a reader that is awake looks
	 * again by itself. */
	return *(volatile const u32 *)&control->reader_sleeps ? BPF_RB_FORCE_WAKEUP :
								BPF_RB_NO_WAKEUP;
}

/* --- who it is about ------------------------------------------------------------------ */

static __always_inline u64 cgroup_of(struct task_struct *task, const struct control *control)
{
	struct cgroup *group = task->cgroups->dfl_cgrp;
	s32 subsystem = control->v1_subsystem;

	if (group->level == 0 && subsystem >= 0 && subsystem < CGROUP_SUBSYSTEMS) {
		struct cgroup_subsys_state *state = 0, **states = 0;
		struct cgroup *v1 = 0;
		struct kernfs_node *node = 0;
		u64 id = 0;

		states = (void *)task->cgroups + field_offset(task->cgroups->subsys);
		READ(state, states[subsystem]);
		READ(v1, state->cgroup);
		READ(node, v1->kn);
		READ(id, node->id);
		return id | CGROUP_V1;
	}
	return group->kn->id;
}

static __always_inline void describe(struct event *event, enum kind kind, struct task_struct *task,
				     u64 cgroup)
{
	struct task_struct *parent = task->real_parent;

	event->time_ns = bpf_ktime_get_boot_ns();
	event->start_ns = task->group_leader->start_boottime;
	event->parent_start_ns = parent->group_leader->start_boottime;
	event->cgroup = cgroup;
	event->pid = task->tgid;
	event->ppid = parent->tgid;
	event->uid = task->cred->uid.val;
	event->gid = task->cred->gid.val;
	READ(event->comm, task->comm);
	event->kind = kind;
	event->flags = 0;
	event->exit_status = 0;
}

/* --- what may pass -------------------------------------------------------------------- */

/*
 * A token bucket for each cgroup, as one number (GCRA: the virtual scheduling algorithm of
 * ITU-T I.371): the time at which the bucket would be full, less the burst. Two processors
 * that refill at once may let a few more pass; none is ever lost uncounted.
 */
static __always_inline int throttled(u64 cgroup, const struct control *control)
{
	u64 cost = control->cost_ns, now, earliest;
	struct bucket *bucket;

	if (!cost)
		return 0;
	bucket = bpf_map_lookup_elem(&buckets, &cgroup);
	now = bpf_ktime_get_boot_ns();
	earliest = now > control->burst_ns ? now - control->burst_ns : 0;
	if (!bucket) {
		struct bucket fresh = { .full_ns = earliest + cost };

		bpf_map_update_elem(&buckets, &cgroup, &fresh, BPF_ANY);
		return 0;
	}
	if (bucket->full_ns < earliest)
		bucket->full_ns = earliest;
	if (bucket->full_ns > now) {
		__sync_fetch_and_add(&bucket->throttled, 1);
		return 1;
	}
	__sync_fetch_and_add(&bucket->full_ns, cost);
	return 0;
}

/* Room for a record of this size, or NULL with the reason counted. */
static __always_inline void *admit(u64 size, u64 cgroup, const struct control *control,
				   struct counters *counts)
{
	void *room;

	__sync_fetch_and_add(&counts->begun, 1);
	if (throttled(cgroup, control)) {
		__sync_fetch_and_add(&counts->throttled, 1);
		return 0;
	}
	room = bpf_ringbuf_reserve(&ring, size, 0);
	if (!room)
		__sync_fetch_and_add(&counts->ring_full, 1);
	return room;
}

static __always_inline void submit(void *record, const struct control *control,
				   struct counters *counts)
{
	bpf_ringbuf_submit(record, wakeup(control));
	__sync_fetch_and_add(&counts->submitted, 1);
}

/* --- fork ----------------------------------------------------------------------------- */

SEC("tp_btf/sched_process_fork")
int sched_process_fork(u64 *ctx)
{
	struct task_struct *child = (void *)ctx[1];
	struct control *control = the_control();
	struct counters *counts = my_counters();
	struct event *event;
	u64 cgroup;

	if (child->pid != child->tgid || !control || !counts)
		return 0; /* a thread is not a process */
	cgroup = cgroup_of(child, control);
	event = admit(sizeof(*event), cgroup, control, counts);
	if (!event)
		return 0;
	describe(event, FORK, child, cgroup);
	submit(event, control, counts);
	return 0;
}

/* --- exec ----------------------------------------------------------------------------- */

#define PATH_CUT (1ULL << 32)

/*
 * Writes the parts of a path at a position of the scratch text, the last part first, each
 * with its NUL. Returns the position after them, with PATH_CUT if there were more. A path
 * goes up through the mounts to the root of its mount namespace, as d_path() does;
 * bpf_d_path() is not allowed in this kind of program.
 *
 * A global function, so that the verifier checks it once and by itself. The addresses are
 * numbers for the same reason.
 */
__attribute__((noinline)) u64 write_path(u64 vfsmount, u64 dentry_address, u64 begin)
{
	u32 zero = 0;
	struct scratch *room = bpf_map_lookup_elem(&scratch, &zero);
	struct dentry *dentry = (void *)dentry_address;
	struct mount *probe = 0, *mount, *parent = 0;
	u64 position = begin;
	int step;

	if (!room)
		return begin;
	mount = (void *)vfsmount - field_offset(probe->mnt);
	for (step = 0; step < MAX_PATH_STEPS; step++) {
		struct dentry *root = 0, *up = 0;
		const unsigned char *name = 0;
		long length;

		READ(root, mount->mnt.mnt_root);
		READ(up, dentry->d_parent);
		if (dentry == root) {
			READ(parent, mount->mnt_parent);
			if (parent == mount || !parent)
				return position;
			READ(dentry, mount->mnt_mountpoint);
			mount = parent;
			continue;
		}
		BOUND(position, 2 * PATH_ROOM - MAX_NAME_BYTES);
		if (position - begin >= MAX_PATH_BYTES)
			return position | PATH_CUT;
		READ(name, dentry->d_name.name);
		length = bpf_probe_read_kernel_str(room->text + position, MAX_NAME_BYTES, name);
		if (length < 0)
			return position | PATH_CUT;
		position += length;
		if (dentry == up)
			return position; /* it never was in a tree: memfd_create() */
		dentry = up;
	}
	return position | PATH_CUT;
}

SEC("tp_btf/sched_process_exec")
int sched_process_exec(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct control *control = the_control();
	struct counters *counts = my_counters();
	u32 zero = 0;
	struct scratch *room = bpf_map_lookup_elem(&scratch, &zero);
	struct exec_event *exec;
	struct mm_struct *mm;
	u64 cgroup, start, size, used, mount = 0, dentry = 0;

	if (!control || !counts || !room)
		return 0;
	__sync_fetch_and_add(&counts->begun, 1);
	cgroup = cgroup_of(task, control);
	if (throttled(cgroup, control)) {
		__sync_fetch_and_add(&counts->throttled, 1);
		return 0;
	}
	exec = &room->exec;
	describe(&exec->event, EXEC, task, cgroup);
	mm = task->mm;

	/* Read like this, they are numbers to the verifier. */
	READ(mount, mm->exe_file->f_path.mnt);
	READ(dentry, mm->exe_file->f_path.dentry);
	used = write_path(mount, dentry, 0);
	if (used & PATH_CUT)
		exec->event.flags |= EXE_CUT;
	used = (u32)used;
	exec->exe_bytes = used;
	READ(mount, task->fs->pwd.mnt);
	READ(dentry, task->fs->pwd.dentry);
	used = write_path(mount, dentry, used);
	if (used & PATH_CUT)
		exec->event.flags |= CWD_CUT;
	used = (u32)used;
	BOUND(used, 2 * PATH_ROOM);
	exec->cwd_bytes = used - exec->exe_bytes;

	start = mm->arg_start;
	size = mm->arg_end - start;
	if (size > MAX_ARGS_BYTES) {
		size = MAX_ARGS_BYTES;
		exec->event.flags |= ARGS_CUT;
	}
	if (bpf_probe_read_user(room->text + used, size, (void *)start)) {
		size = 0;
		exec->event.flags |= ARGS_UNREADABLE;
	}
	exec->args_bytes = size;
	size += sizeof(*exec) + used;
	BOUND(size, sizeof(*room));
	if (bpf_ringbuf_output(&ring, room, size, wakeup(control)))
		__sync_fetch_and_add(&counts->ring_full, 1);
	else
		__sync_fetch_and_add(&counts->submitted, 1);
	return 0;
}

/* --- CPU time ------------------------------------------------------------------------- */

/*
 * The scheduler adds up the time of a task when it is interrupted by a tick or switched
 * out, so most short lives end with a sum of zero. Here each processor notes when it
 * switched to whom, and what that one had used by then.
 */
SEC("tp_btf/sched_switch")
int sched_switch(u64 *ctx)
{
	struct task_struct *next = (void *)ctx[2];
	u32 zero = 0;
	struct arrival *arrival = bpf_map_lookup_elem(&arrivals, &zero);

	if (!arrival)
		return 0;
	arrival->time_ns = bpf_ktime_get_ns();
	arrival->used_ns = next->se.sum_exec_runtime;
	arrival->tid = next->pid;
	return 0;
}

/* What the running task has used until now. */
static __always_inline u64 cpu_time_of(struct task_struct *task)
{
	u64 known = task->se.sum_exec_runtime, exact;
	u32 zero = 0;
	struct arrival *arrival = bpf_map_lookup_elem(&arrivals, &zero);

	if (!arrival || arrival->tid != (u32)task->pid)
		return known; /* it has not been switched to since this began */
	exact = arrival->used_ns + bpf_ktime_get_ns() - arrival->time_ns;
	/* The sum is brought up to date with each tick. If this is further ahead, the hypervisor
	 * has had the processor meanwhile, which is nobody's use. */
	if (exact > known + LONGEST_TICK_NS)
		exact = known + LONGEST_TICK_NS;
	return exact > known ? exact : known;
}

/* --- exit ----------------------------------------------------------------------------- */

static __always_inline int emit_exit(struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct signal_struct *signal = task->signal;
	struct control *control = the_control();
	struct counters *counts = my_counters();
	struct exit_event *exit;
	u64 cgroup;

	if (!control || !counts)
		return 0;
	cgroup = cgroup_of(task, control);
	exit = admit(sizeof(*exit), cgroup, control, counts);
	if (!exit)
		return 0;
	describe(&exit->event, EXIT, task, cgroup);
	READ(exit->event.comm, leader->comm);
	/* What wait(2) reports: the code of the group if it was ended as one. */
	exit->event.exit_status = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code :
								      leader->exit_code;
	/* utime and stime count ticks, and are 0 for short lives. The threads that were
	 * released before are summed in the signal; a leader that is waited for is not. */
	exit->cpu_ns = signal->sum_sched_runtime + cpu_time_of(task);
	if (task != leader)
		exit->cpu_ns += leader->se.sum_exec_runtime;
	exit->max_rss_pages = signal->maxrss;
	submit(exit, control, counts);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int sched_process_exit(u64 *ctx)
{
	/* bool group_dead, since 6.16: whether this was the last thread. */
	if (!(ctx[1] & 1))
		return 0;
	return emit_exit((void *)ctx[0]);
}

SEC("tp_btf/sched_process_exit")
int sched_process_exit_until_6_15(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct identity identity = {};
	u8 one = 1;

	if (task->signal->live.counter)
		return 0;
	/* Two threads that end together may both see that none is alive: one of them tells. */
	identity.pid = task->tgid;
	identity.start_ns = task->group_leader->start_boottime;
	if (bpf_map_update_elem(&exited, &identity, &one, BPF_NOEXIST) == -17 /* EEXIST */)
		return 0;
	return emit_exit(task);
}

/* --- chosen by the OOM killer --------------------------------------------------------- */

static __always_inline int emit_oom(struct task_struct *task, u32 pid)
{
	struct control *control = the_control();
	struct counters *counts = my_counters();
	struct event *event;

	if (!control || !counts)
		return 0;
	/* Not throttled: there are few, and each one matters. */
	__sync_fetch_and_add(&counts->begun, 1);
	event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&counts->ring_full, 1);
		return 0;
	}
	if (task) {
		describe(event, OOM, task, cgroup_of(task, control));
	} else {
		__builtin_memset(event, 0, sizeof(*event));
		event->time_ns = bpf_ktime_get_boot_ns();
		event->kind = OOM;
		event->pid = pid;
	}
	submit(event, control, counts);
	return 0;
}

SEC("tp_btf/mark_victim")
int mark_victim(u64 *ctx)
{
	return emit_oom((void *)ctx[0], 0);
}

SEC("tp_btf/mark_victim")
int mark_victim_until_6_7(u64 *ctx)
{
	return emit_oom(0, (u32)ctx[0]); /* a pid was all it told */
}

/* --- new cgroups ---------------------------------------------------------------------- */

/* Not an event, so not counted as one: what is missed here is found by looking. */
static __always_inline int emit_cgroup(struct cgroup *group, const char *path)
{
	struct control *control = the_control();
	int hierarchy = group->root->hierarchy_id;
	u32 zero = 0;
	struct scratch *room = bpf_map_lookup_elem(&scratch, &zero);
	struct cgroup_event *record = (void *)room;
	long length;
	u64 size;

	if (!control || !room)
		return 0;
	if (hierarchy && hierarchy != control->v1_hierarchy)
		return 0;
	__builtin_memset(&record->event, 0, sizeof(record->event));
	record->event.time_ns = bpf_ktime_get_boot_ns();
	record->event.kind = CGROUP;
	record->event.cgroup = group->kn->id | (hierarchy ? CGROUP_V1 : 0);
	length = bpf_probe_read_kernel_str(record + 1, MAX_PATH_BYTES, path);
	if (length < 0 || length > MAX_PATH_BYTES)
		return 0;
	record->path_bytes = length;
	size = sizeof(*record) + length;
	bpf_ringbuf_output(&ring, room, size, wakeup(control));
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int cgroup_mkdir(u64 *ctx)
{
	return emit_cgroup((void *)ctx[0], (void *)ctx[1]);
}

SEC("tp_btf/cgroup_rename")
int cgroup_rename(u64 *ctx)
{
	return emit_cgroup((void *)ctx[0], (void *)ctx[1]);
}

/* --- the snapshot --------------------------------------------------------------------- */

/* What processors hold back can make a small sum negative. */
static __always_inline s64 not_negative(s64 pages)
{
	return pages < 0 ? 0 : pages;
}

/* File, anonymous and shared memory; the swapped are not resident. */
static __always_inline void count_pages(struct thread *thread, struct mm_struct *mm)
{
	struct mm_struct___until_6_1 *old = (void *)mm;
	s64 file = 0, anonymous = 0, shared = 0;

	if (field_exists(old->rss_stat.count)) {
		READ(file, old->rss_stat.count[MM_FILEPAGES]);
		READ(anonymous, old->rss_stat.count[MM_ANONPAGES]);
		READ(shared, old->rss_stat.count[MM_SHMEMPAGES]);
	} else {
		READ(file, mm->rss_stat[MM_FILEPAGES].count);
		READ(anonymous, mm->rss_stat[MM_ANONPAGES].count);
		READ(shared, mm->rss_stat[MM_SHMEMPAGES].count);
	}
	thread->rss_pages = not_negative(file + anonymous + shared);
	thread->anon_pages = not_negative(anonymous);
	thread->shmem_pages = not_negative(shared);
}

static __always_inline u32 bits(u64 word)
{
	word -= (word >> 1) & 0x5555555555555555ULL;
	word = (word & 0x3333333333333333ULL) + ((word >> 2) & 0x3333333333333333ULL);
	word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (word * 0x0101010101010101ULL) >> 56;
}

static __always_inline s32 open_descriptors(struct files_struct *files)
{
	struct fdtable *table = files->fdt;
	u32 words = table->max_fds / 64, word;
	unsigned long *open = table->open_fds;
	s32 count = 0;

	if (words > MAX_FD_WORDS)
		words = MAX_FD_WORDS;
	for (word = 0; word < MAX_FD_WORDS; word++) {
		u64 map = 0;

		if (word >= words)
			break;
		READ(map, open[word]);
		if (map)
			count += bits(map);
	}
	return count;
}

/*
 * How far it is in the regular files that it only reads. What it writes is counted as such,
 * and standard output may be shared with others.
 */
static __always_inline s64 read_offset(struct files_struct *files)
{
	struct fdtable *table = files->fdt;
	struct file **files_of = table->fd, *file;
	u32 most = table->max_fds, n, mode;
	struct inode *inode;
	s64 sum = 0, offset;
	u16 type;

	for (n = 0; n < MAX_READ_FILES; n++) {
		if (n >= most)
			break;
		file = 0;
		READ(file, files_of[n]);
		if (!file)
			continue;
		mode = 0;
		READ(mode, file->f_mode);
		if ((mode & (FMODE_READ | FMODE_WRITE)) != FMODE_READ)
			continue;
		inode = 0;
		type = 0;
		READ(inode, file->f_inode);
		READ(type, inode->i_mode);
		if ((type & S_IFMT) != S_IFREG)
			continue;
		offset = 0;
		READ(offset, file->f_pos);
		sum += offset;
	}
	return sum;
}

static __always_inline u16 state_of(struct task_struct *task)
{
	u32 state;

	if (field_exists(task->__state))
		state = task->__state;
	else
		state = ((struct task_struct___until_5_13 *)task)->state;
	return state | task->exit_state;
}

SEC("iter/task")
int snapshot(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task, *leader, *parent;
	struct seq_file *seq = ctx->meta->seq;
	struct control *control = the_control();
	struct thread thread = {};
	struct signal_struct *signal;
	struct files_struct *files;
	struct mm_struct *mm;

	if (!task || !control)
		return 0;
	leader = task->group_leader;
	signal = task->signal;
	thread.pid = task->tgid;
	thread.tid = task->pid;
	thread.start_ns = leader->start_boottime;
	thread.cpu_ns = task->se.sum_exec_runtime;
	thread.state = state_of(task);
	if (field_exists(task->ioac.read_bytes)) {
		thread.read_bytes = task->ioac.read_bytes;
		thread.write_bytes = task->ioac.write_bytes;
	}
	if (field_exists(task->sched_info.run_delay))
		thread.delay_ns = task->sched_info.run_delay;
	mm = task->mm;
	thread.rss_pages = -1;
	thread.read_offset = -1;
	files = task->files;
	if (mm && !(task->flags & PF_KTHREAD)) {
		count_pages(&thread, mm);
		if (!thread.state && files)
			thread.read_offset = read_offset(files);
	}
	if (task == leader) {
		parent = task->real_parent;
		thread.ppid = parent->tgid;
		thread.parent_start_ns = parent->group_leader->start_boottime;
		thread.cgroup = cgroup_of(task, control);
		thread.uid = task->cred->uid.val;
		thread.gid = task->cred->gid.val;
		thread.threads = signal->nr_threads;
		thread.kernel = !!(task->flags & PF_KTHREAD);
		/* What the threads that are gone have used is kept here. */
		thread.cpu_ns += signal->sum_sched_runtime;
		if (field_exists(signal->ioac.read_bytes)) {
			thread.read_bytes += signal->ioac.read_bytes;
			thread.write_bytes += signal->ioac.write_bytes;
		}
		thread.fds = files ? open_descriptors(files) : -1;
		READ(thread.comm, task->comm);
	}
	bpf_seq_write(seq, &thread, sizeof(thread));
	return 0;
}
