/* A tree that grows: every process makes FANOUT children, DEPTH times, STEP_MS apart; then all stay HOLD s. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    int fanout = atoi(argv[1]), depth = atoi(argv[2]), step_ms = atoi(argv[3]), hold = atoi(argv[4]);
    for (int level = 0; level < depth; level++) {
        for (int n = 0; n < fanout; n++) {
            usleep(step_ms * 1000);
            pid_t child = fork();
            if (child < 0) return 1;
            if (child == 0 && level + 1 < depth) goto next;
            if (child == 0) {
                sleep(hold);
                _exit(0);
            }
        }
        break;
    next:;
    }
    sleep(hold);
    return 0;
}
