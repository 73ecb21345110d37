/* Forks RATE times a second (0: as fast as it can) for SECONDS; each child lives HOLD_MS.
   MODE is fork, vfork, double (the child forks once more and leaves), or spawn (runs /bin/true). */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    double rate = atof(argv[1]), seconds = atof(argv[2]), begin = now();
    long hold_us = atol(argv[3]) * 1000, made = 0;
    const char *mode = argv[4], *path = argc > 5 ? argv[5] : "/bin/true";
    while (now() - begin < seconds) {
        pid_t child = -1;
        if (!strcmp(mode, "spawn")) {
            char *args[] = {(char *)path, NULL};
            if (posix_spawn(&child, path, NULL, NULL, args, environ)) return 1;
            waitpid(child, NULL, 0);
        } else if (!strcmp(mode, "vfork")) {
            child = vfork();
            if (child == 0) _exit(0);
            waitpid(child, NULL, 0);
        } else {
            child = fork();
            if (child == 0) {
                if (!strcmp(mode, "double") && fork()) _exit(0);
                if (hold_us) usleep(hold_us);
                _exit(0);
            }
            if (!hold_us || !strcmp(mode, "double")) waitpid(child, NULL, 0);
        }
        if (child > 0) made++;
        while (hold_us && waitpid(-1, NULL, WNOHANG) > 0) {}
        double ahead = rate > 0 ? begin + made / rate - now() : 0;
        if (ahead > 0) usleep((useconds_t)(ahead * 1e6));
    }
    printf("{\"count\": %ld}\n", made);
    return 0;
}
