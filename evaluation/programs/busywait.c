/* Waits for SECONDS for what never comes, by asking: HOW is poll, epoll, futex, yield or trylock. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const char *how = argv[2];
    int ends[2], word = 1, queue = epoll_create1(0);
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct epoll_event event = {.events = EPOLLIN};
    if (pipe(ends) || epoll_ctl(queue, EPOLL_CTL_ADD, ends[0], &event)) return 1;
    struct pollfd asked = {.fd = ends[0], .events = POLLIN};
    pthread_mutex_lock(&lock);
    alarm((unsigned)atoi(argv[1]));
    for (;;) {
        if (!strcmp(how, "poll")) poll(&asked, 1, 0);
        else if (!strcmp(how, "epoll")) epoll_wait(queue, &event, 1, 0);
        else if (!strcmp(how, "futex")) syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0);
        else if (!strcmp(how, "yield")) sched_yield();
        else pthread_mutex_trylock(&lock);
    }
}
