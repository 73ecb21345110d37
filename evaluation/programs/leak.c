/* Leaks KB every MS milliseconds and never gives anything back. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    size_t size = (size_t)atol(argv[1]) * 1024;
    for (;;) {
        char *block = malloc(size);
        if (!block) return 1;
        memset(block, 7, size);
        usleep(atol(argv[2]) * 1000);
    }
}
