/* Writes blocks of KB to FILE for SECONDS at random places of its first MB, HOW: direct, sync or fsync. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 6) return 2;
    size_t size = (size_t)atol(argv[2]) * 1024;
    long blocks = atol(argv[3]) * 1024 * 1024 / size, made = 0;
    const char *how = argv[5];
    int flags = O_RDWR | O_CREAT | (!strcmp(how, "direct") ? O_DIRECT : !strcmp(how, "sync") ? O_SYNC : 0);
    int file = open(argv[1], flags, 0600);
    void *block;
    if (file < 0 || blocks < 1 || posix_memalign(&block, 4096, size)) return 1;
    memset(block, 5, size);
    time_t end = time(NULL) + atol(argv[4]);
    while (time(NULL) < end) {
        if (pwrite(file, block, size, (random() % blocks) * (off_t)size) < 0) return 1;
        if (!strcmp(how, "fsync") && fdatasync(file)) return 1;
        made++;
    }
    printf("{\"count\": %ld}\n", made);
    return 0;
}
