/* clone3(2) RATE times a second (0: as fast as it can) for SECONDS; HOW is plain, memory or pidfd. */
#define _GNU_SOURCE
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    double rate = atof(argv[1]), seconds = atof(argv[2]), begin = now();
    const char *how = argv[3];
    static char stack[1 << 16] __attribute__((aligned(16)));
    long made = 0;
    while (now() - begin < seconds) {
        int pidfd = -1;
        struct clone_args args = {.exit_signal = SIGCHLD};
        if (!strcmp(how, "pidfd")) {
            args.flags = CLONE_PIDFD;
            args.pidfd = (unsigned long)&pidfd;
        } else if (!strcmp(how, "memory")) {
            args.flags = CLONE_VM | CLONE_VFORK;
            args.stack = (unsigned long)stack;
            args.stack_size = sizeof stack;
        }
        long child = syscall(SYS_clone3, &args, sizeof args);
        if (child < 0) return 1;
        if (child == 0) syscall(SYS_exit_group, 0);
        waitpid((pid_t)child, NULL, 0);
        if (pidfd >= 0) close(pidfd);
        made++;
        double ahead = rate > 0 ? begin + made / rate - now() : 0;
        if (ahead > 0) usleep((useconds_t)(ahead * 1e6));
    }
    printf("{\"count\": %ld}\n", made);
    return 0;
}
