/* What a library linked here asks of glibc and an older one has under no name, see old_glibc.py. Hidden: each library has its own. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Functions since glibc 2.33, before that inline calls of __xstat. On 64-bit machines glibc's struct stat is the kernel's. */
_Static_assert(sizeof(void *) == 8, "32-bit glibc converts the kernel's struct stat");
int fstatat(int folder, const char *path, struct stat *result, int flags) {
  return (int)syscall(SYS_newfstatat, folder, path, result, flags);
}
int stat(const char *path, struct stat *result) { return fstatat(AT_FDCWD, path, result, 0); }
int lstat(const char *path, struct stat *result) { return fstatat(AT_FDCWD, path, result, AT_SYMLINK_NOFOLLOW); }
int fstat(int file, struct stat *result) { return (int)syscall(SYS_fstat, file, result); }

/* Since glibc 2.32. False costs libstdc++ an atomic instruction, no more. */
char __libc_single_threaded = 0;
