/* Changes blocks of KB at random places of the first MB of FILE through a mapping for SECONDS, and syncs each. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    size_t block = (size_t)atol(argv[2]) * 1024, size = (size_t)atol(argv[3]) * 1024 * 1024;
    int file = open(argv[1], O_RDWR | O_CREAT, 0600);
    if (file < 0 || posix_fallocate(file, 0, (off_t)size)) return 1;
    char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (map == MAP_FAILED) return 1;
    long made = 0;
    time_t end = time(NULL) + atol(argv[4]);
    while (time(NULL) < end) {
        char *place = map + (size_t)random() % (size / block) * block;
        memset(place, (int)made, block);
        if (msync(place, block, MS_SYNC)) return 1;
        made++;
    }
    printf("{\"count\": %ld}\n", made);
    return 0;
}
