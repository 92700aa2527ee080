// Disturbs the process that it is preloaded into.
//
// Power loss: counts the operations on names and the syncs below POWER_ROOT, and ends the process just before operation
// POWER_AT. POWER_LOG lists everything that was synced until then, so that the rest can be discarded. With POWER_ERROR (an
// errno) the operation fails instead, and the process continues.
//
// A wrong clock: CLOCK_OFFSET seconds ahead, or behind if negative.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

static atomic_long operations;

static int is_below_root(const char *path) {
    const char *root = getenv("POWER_ROOT");
    return root && path && strncmp(path, root, strlen(root)) == 0;
}

static void record(const char *format, ...) {
    char line[8192];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    const char *log = getenv("POWER_LOG");
    if (!log || length < 0 || length >= (int)sizeof line) return;
    int file = REAL(open)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) return;
    if (write(file, line, length) != length) abort();
    close(file);
}

// Whether the operation must fail; does not return if the power fails.
static int fails(const char *what, const char *path) {
    if (!is_below_root(path)) return 0;
    long number = atomic_fetch_add(&operations, 1) + 1;
    record("operation\t%ld\t%s\t%s\n", number, what, path);
    const char *at = getenv("POWER_AT"), *error = getenv("POWER_ERROR");
    if (!at || atol(at) != number) return 0;
    if (!error) _exit(137);
    errno = atoi(error);
    return 1;
}

static void path_of(int file, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
}

// Records what a sync made durable: the bytes of a file, or the names in a folder.
static void record_synced(int file, const char *path) {
    struct stat state;
    if (!is_below_root(path) || fstat(file, &state)) return;
    if (!S_ISDIR(state.st_mode)) {
        record("bytes\t%lu\t%ld\n", (unsigned long)state.st_ino, (long)state.st_size);
        return;
    }
    DIR *folder = opendir(path);
    if (!folder) return;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            record("name\t%s/%s\n", path, entry->d_name);
    closedir(folder);
}

static int sync_file(int file, int (*really)(int)) {
    char path[4096];
    path_of(file, path, sizeof path);
    if (fails("sync", path)) return -1;
    int result = really(file);
    if (result == 0) record_synced(file, path);
    return result;
}

int fsync(int file) { return sync_file(file, REAL(fsync)); }
int fdatasync(int file) { return sync_file(file, REAL(fdatasync)); }

int link(const char *from, const char *to) { return fails("link", to) ? -1 : REAL(link)(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    return fails("link", to) ? -1 : REAL(linkat)(a, from, b, to, flags);
}
int rename(const char *from, const char *to) { return fails("rename", to) ? -1 : REAL(rename)(from, to); }
int unlink(const char *path) { return fails("unlink", path) ? -1 : REAL(unlink)(path); }
int mkdir(const char *path, mode_t mode) { return fails("mkdir", path) ? -1 : REAL(mkdir)(path, mode); }

static int opens(const char *path, int flags) { return (flags & O_CREAT) && fails("create", path); }

#define OPEN(name)                                          \
    int name(const char *path, int flags, ...) {            \
        va_list arguments;                                  \
        va_start(arguments, flags);                         \
        mode_t mode = va_arg(arguments, mode_t);            \
        va_end(arguments);                                  \
        return opens(path, flags) ? -1 : REAL(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                        \
    int name(int folder, const char *path, int flags, ...) { \
        va_list arguments;                                  \
        va_start(arguments, flags);                         \
        mode_t mode = va_arg(arguments, mode_t);            \
        va_end(arguments);                                  \
        return opens(path, flags) ? -1 : REAL(name)(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    const char *offset = getenv("CLOCK_OFFSET");
    if (result == 0 && clock == CLOCK_REALTIME && offset) now->tv_sec += atol(offset);
    return result;
}
