/* A disk that fails on demand, preloaded into the bridge. Before each write and sync of the store it
 * reads the file that FAULT_FILE names; its first letter selects the fault:
 * i: EIO on sync, w: EIO on write, r: a file system gone read-only, s: a sync takes six seconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static char fault(void) {
    char letter = 0;
    const char *name = getenv("FAULT_FILE");
    int file = name ? open(name, O_RDONLY) : -1;
    if (file >= 0) {
        if (read(file, &letter, 1) != 1) letter = 0;
        close(file);
    }
    return letter;
}

static int fails_write(void) {
    char now = fault();
    if (now == 'w') errno = EIO;
    if (now == 'r') errno = EROFS;
    return now == 'w' || now == 'r';
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    return fails_write() ? -1 : real(fd, bytes, count, offset);
}

int ftruncate64(int fd, off64_t length) {
    int (*real)(int, off64_t) = dlsym(RTLD_NEXT, "ftruncate64");
    return fails_write() ? -1 : real(fd, length);
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    char now = fault();
    if (now == 's') sleep(15);
    if (now == 'i') {
        errno = EIO;
        return -1;
    }
    return real(fd);
}
