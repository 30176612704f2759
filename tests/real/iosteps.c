/* Counts the I/O steps of a process, and kills it (SIGKILL), or has a call fail, at a chosen one: an LD_PRELOAD for tests/real/iosteps.py.
 *
 * A step is one call of the C library that changes something below the folders in IOSTEPS_BELOW (colon-separated): writing, truncating,
 * syncing, making, renaming, linking, removing, permissions and times. The page in the file IOSTEPS_PAGE is shared with the harness, which
 * arms and disarms while the process runs. Each step is written to the file IOSTEPS_LOG, "number call path", before it is done.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { BEFORE = 0, AFTER = 1, HALF = 2, FAIL = 3 };

static struct page {
    _Atomic unsigned armed, count, at, how, code; /* steps are counted while armed; the one with the number `at` (from 1) is the one */
    char only[4096 - 20];                         /* of FAIL: calls below this path fail with `code`, every one of them */
} *page;
static char *below[16];
static int log_fd = -1;

__attribute__((constructor)) static void begin(void) {
    char *folders = getenv("IOSTEPS_BELOW"), *file = getenv("IOSTEPS_PAGE"), *log = getenv("IOSTEPS_LOG");
    if (!folders || !file || !log) return;
    folders = strdup(folders);
    int n = 0;
    for (char *one = strtok(folders, ":"); one && n < 15; one = strtok(NULL, ":")) below[n++] = one;
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    void *shared = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    page = shared == MAP_FAILED ? NULL : shared;
}

static int is_below(const char *path, const char *top) {
    size_t size = strlen(top);
    return strncmp(path, top, size) == 0 && (path[size] == 0 || path[size] == '/');
}

static void of_fd(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = readlink(link, out, PATH_MAX - 1);
    out[got < 0 ? 0 : got] = 0;
}

static void of_name(int dir, const char *name, char *out) {
    if (name[0] == '/') {
        snprintf(out, PATH_MAX, "%s", name);
        return;
    }
    char folder[PATH_MAX];
    if (dir != AT_FDCWD) of_fd(dir, folder);
    else if (!getcwd(folder, sizeof folder)) folder[0] = 0;
    if (snprintf(out, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX) out[0] = 0;
}

static void now_dead(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* Begins a step; what is to be done about it: -1 nothing, else BEFORE (never returned: dead by then), AFTER, HALF, FAIL. */
static int step(const char *call, const char *path) {
    if (!page || !page->armed) return -1;
    int saved = errno, ours = 0;
    for (int i = 0; below[i]; i++) ours |= is_below(path, below[i]);
    size_t size_of = strlen(path);
    if (size_of > 4 && strcmp(path + size_of - 4, "-shm") == 0) ours = 0; /* SQLite's index of its log: memory, made anew from the log */
    if (!ours) {
        errno = saved;
        return -1;
    }
    unsigned number = atomic_fetch_add(&page->count, 1) + 1;
    char line[PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%u %s %s\n", number, call, path);
    if (size > 0 && syscall(SYS_write, log_fd, line, size) < 0) abort();
    unsigned how = page->how;
    errno = saved;
    if (how == FAIL) return page->only[0] && is_below(path, page->only) ? FAIL : -1;
    if (number != page->at) return -1;
    if (how == BEFORE) now_dead();
    return how;
}

static int failing(void) {
    errno = page->code;
    return -1;
}

static void *found(void **kept, const char *name) {
    if (!*kept) *kept = dlsym(RTLD_NEXT, name);
    return *kept;
}

#define LOOKUP(name) static void *real_##name;
#define REAL(name) ((__typeof__(&name))found(&real_##name, #name))

/* A call that is done whole: path in `where`, the real one in `doing`. */
#define DO(call, doing)                            \
    int how = step(call, where);                   \
    if (how == FAIL) return failing();             \
    __typeof__(doing) result = doing;              \
    if (how == AFTER || how == HALF) now_dead();   \
    return result;

/* Writing `size` bytes: may be torn in the middle. */
#define WRITE(call, whole, half)        \
    char where[PATH_MAX];               \
    if (!page || !page->armed) return whole; \
    of_fd(fd, where);                   \
    int how = step(call, where);        \
    if (how == FAIL) return failing();  \
    if (how == HALF) {                  \
        if (half < 0) abort();          \
        now_dead();                     \
    }                                   \
    ssize_t result = whole;             \
    if (how == AFTER) now_dead();       \
    return result;

LOOKUP(write) LOOKUP(pwrite) LOOKUP(pwrite64)
ssize_t write(int fd, const void *data, size_t size) { WRITE("write", REAL(write)(fd, data, size), REAL(write)(fd, data, size / 2)) }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    WRITE("pwrite64", REAL(pwrite)(fd, data, size, at), REAL(pwrite)(fd, data, size / 2, at))
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    WRITE("pwrite64", REAL(pwrite64)(fd, data, size, at), REAL(pwrite64)(fd, data, size / 2, at))
}

#define OF_FD(fd)                            \
    char where[PATH_MAX];                    \
    where[0] = 0;                            \
    if (page && page->armed) of_fd(fd, where);
#define OF_NAME(dir, name)                   \
    char where[PATH_MAX];                    \
    where[0] = 0;                            \
    if (page && page->armed) of_name(dir, name, where);

LOOKUP(fsync) LOOKUP(fdatasync) LOOKUP(syncfs) LOOKUP(ftruncate) LOOKUP(ftruncate64) LOOKUP(fchmod) LOOKUP(fchown) LOOKUP(futimens)
int fsync(int fd) { OF_FD(fd) DO("fsync", REAL(fsync)(fd)) }
int fdatasync(int fd) { OF_FD(fd) DO("fdatasync", REAL(fdatasync)(fd)) }
int syncfs(int fd) { OF_FD(fd) DO("syncfs", REAL(syncfs)(fd)) }
int ftruncate(int fd, off_t size) { OF_FD(fd) DO("ftruncate", REAL(ftruncate)(fd, size)) }
int ftruncate64(int fd, off64_t size) { OF_FD(fd) DO("ftruncate", REAL(ftruncate64)(fd, size)) }
int fchmod(int fd, mode_t mode) { OF_FD(fd) DO("fchmod", REAL(fchmod)(fd, mode)) }
int fchown(int fd, uid_t uid, gid_t gid) { OF_FD(fd) DO("fchown", REAL(fchown)(fd, uid, gid)) }
int futimens(int fd, const struct timespec times[2]) { OF_FD(fd) DO("utimensat", REAL(futimens)(fd, times)) }

LOOKUP(rename) LOOKUP(renameat) LOOKUP(renameat2) LOOKUP(link) LOOKUP(linkat) LOOKUP(symlink)
int rename(const char *old, const char *new) { OF_NAME(AT_FDCWD, new) DO("rename", REAL(rename)(old, new)) }
int renameat(int from, const char *old, int to, const char *new) { OF_NAME(to, new) DO("renameat", REAL(renameat)(from, old, to, new)) }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    OF_NAME(to, new) DO("renameat2", REAL(renameat2)(from, old, to, new, flags))
}
int link(const char *old, const char *new) { OF_NAME(AT_FDCWD, new) DO("link", REAL(link)(old, new)) }
int linkat(int from, const char *old, int to, const char *new, int flags) {
    OF_NAME(to, new) DO("linkat", REAL(linkat)(from, old, to, new, flags))
}
int symlink(const char *target, const char *new) { OF_NAME(AT_FDCWD, new) DO("symlink", REAL(symlink)(target, new)) }

LOOKUP(unlink) LOOKUP(unlinkat) LOOKUP(rmdir) LOOKUP(mkdir) LOOKUP(mkdirat) LOOKUP(chmod) LOOKUP(fchmodat) LOOKUP(utimensat)
int unlink(const char *name) { OF_NAME(AT_FDCWD, name) DO("unlink", REAL(unlink)(name)) }
int unlinkat(int dir, const char *name, int flags) { OF_NAME(dir, name) DO("unlinkat", REAL(unlinkat)(dir, name, flags)) }
int rmdir(const char *name) { OF_NAME(AT_FDCWD, name) DO("rmdir", REAL(rmdir)(name)) }
int mkdir(const char *name, mode_t mode) { OF_NAME(AT_FDCWD, name) DO("mkdir", REAL(mkdir)(name, mode)) }
int mkdirat(int dir, const char *name, mode_t mode) { OF_NAME(dir, name) DO("mkdirat", REAL(mkdirat)(dir, name, mode)) }
int chmod(const char *name, mode_t mode) { OF_NAME(AT_FDCWD, name) DO("chmod", REAL(chmod)(name, mode)) }
int fchmodat(int dir, const char *name, mode_t mode, int flags) { OF_NAME(dir, name) DO("fchmodat", REAL(fchmodat)(dir, name, mode, flags)) }
int utimensat(int dir, const char *name, const struct timespec times[2], int flags) {
    OF_NAME(dir, name) DO("utimensat", REAL(utimensat)(dir, name, times, flags))
}

LOOKUP(copy_file_range)
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags) {
    OF_FD(to) DO("copy_file_range", REAL(copy_file_range)(from, at, to, there, size, flags))
}

/* Opening is a step where it makes the file or empties it. */
#define OPEN(dir, real)                                                                                    \
    mode_t mode = 0;                                                                                       \
    if (flags & (O_CREAT | __O_TMPFILE)) {                                                                 \
        va_list rest;                                                                                      \
        va_start(rest, flags);                                                                             \
        mode = va_arg(rest, mode_t);                                                                       \
        va_end(rest);                                                                                      \
    }                                                                                                      \
    if (!page || !page->armed) return real;                                                                \
    int saved = errno;                                                                                     \
    if (!(flags & O_TRUNC) && !((flags & O_CREAT) && syscall(SYS_faccessat, dir, name, F_OK))) {           \
        errno = saved;                                                                                     \
        if (page->how != FAIL || !page->only[0]) return real;                                              \
        OF_NAME(dir, name)                                                                                 \
        return is_below(where, page->only) ? failing() : real;                                             \
    }                                                                                                      \
    errno = saved;                                                                                         \
    OF_NAME(dir, name) DO("open", real)

LOOKUP(open) LOOKUP(open64) LOOKUP(openat) LOOKUP(openat64)
int open(const char *name, int flags, ...) { OPEN(AT_FDCWD, REAL(open)(name, flags, mode)) }
int open64(const char *name, int flags, ...) { OPEN(AT_FDCWD, REAL(open64)(name, flags, mode)) }
int openat(int dir, const char *name, int flags, ...) { OPEN(dir, REAL(openat)(dir, name, flags, mode)) }
int openat64(int dir, const char *name, int flags, ...) { OPEN(dir, REAL(openat64)(dir, name, flags, mode)) }

/* Reading is no step, but may be made to fail. */
LOOKUP(read) LOOKUP(pread) LOOKUP(pread64)
#define READ(real)                                             \
    if (page && page->armed && page->how == FAIL && page->only[0]) { \
        int saved = errno;                                     \
        char where[PATH_MAX];                                  \
        of_fd(fd, where);                                      \
        errno = saved;                                         \
        if (is_below(where, page->only)) return failing();     \
    }                                                          \
    return real;
ssize_t read(int fd, void *data, size_t size) { READ(REAL(read)(fd, data, size)) }
ssize_t pread(int fd, void *data, size_t size, off_t at) { READ(REAL(pread)(fd, data, size, at)) }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) { READ(REAL(pread64)(fd, data, size, at)) }
