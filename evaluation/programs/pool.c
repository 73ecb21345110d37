/* A supervisor that keeps WIDTH jobs alive for SECONDS: whatever ends is started again at once. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    int width = atoi(argv[1]), alive = 0;
    long made = 0;
    time_t end = time(NULL) + atol(argv[2]);
    while (time(NULL) < end) {
        for (; alive < width; alive++, made++) {
            pid_t child;
            if (posix_spawnp(&child, argv[3], NULL, NULL, argv + 3, environ)) return 1;
        }
        if (waitpid(-1, NULL, 0) > 0) alive--;
    }
    while (waitpid(-1, NULL, 0) > 0) {}
    printf("{\"count\": %ld}\n", made);
    return 0;
}
