/* THREADS threads that wait for something that never comes, for SECONDS. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static volatile int done;

static void *spin(void *unused) {
    while (!done) {}
    return unused;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    pthread_t thread;
    for (int n = 1; n < atoi(argv[1]); n++) pthread_create(&thread, NULL, spin, NULL);
    alarm(atoi(argv[2]));
    spin(NULL);
}
