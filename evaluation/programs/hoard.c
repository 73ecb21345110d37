/* Holds KB more every MS milliseconds: HOW is mmap (never unmapped), shared (the same, shared), or
   fragments (every other block is freed, and the next ones do not fit into the holes). */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    size_t size = (size_t)atol(argv[1]) * 1024, block = 512;
    const char *how = argv[3];
    int flags = MAP_ANONYMOUS | (!strcmp(how, "shared") ? MAP_SHARED : MAP_PRIVATE);
    static char *blocks[65536];
    for (;;) {
        if (strcmp(how, "fragments")) {
            char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
            if (map == MAP_FAILED) return 1;
            memset(map, 7, size);
        } else {
            size_t count = size / block;
            for (size_t n = 0; n < count && n < 65536; n++) {
                if (!(blocks[n] = malloc(block))) return 1;
                memset(blocks[n], 7, block);
            }
            for (size_t n = 0; n < count && n < 65536; n += 2) free(blocks[n]);
            block += 32;
        }
        usleep((useconds_t)atol(argv[2]) * 1000);
    }
}
