#define _GNU_SOURCE
#include "platform.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <pthread.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>

/* Tiles are eight kilobytes of state for each thread, so a process must ask Linux once before it uses them. */
int32_t usae_allow_tiles(void) {
  const long ask_for_state = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA */
  return syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
}
#else
int32_t usae_allow_tiles(void) { return 0; }
#endif

int32_t usae_cpu_features(void) {
  int32_t features = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v3")) {
    features |= USAE_CPU_AVX2;
    if (__builtin_cpu_supports("avxvnni")) features |= USAE_CPU_AVX_VNNI;
  }
  if (__builtin_cpu_supports("x86-64-v4")) {
    features |= USAE_CPU_AVX512;
    if (__builtin_cpu_supports("avx512vnni")) {
      features |= USAE_CPU_AVX512_VNNI;
      if (__builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8")) features |= USAE_CPU_AMX;
    }
  }
#elif defined(__aarch64__) && defined(__linux__)
  const unsigned long products_of_bytes = 1ul << 20; /* HWCAP_ASIMDDP */
  if (getauxval(AT_HWCAP) & products_of_bytes) features |= USAE_CPU_DOTPROD;
#elif defined(__aarch64__) && defined(__APPLE__)
  int32_t has_products_of_bytes = 0;
  size_t size = sizeof has_products_of_bytes;
  if (sysctlbyname("hw.optional.arm.FEAT_DotProd", &has_products_of_bytes, &size, NULL, 0) == 0 && has_products_of_bytes != 0)
    features |= USAE_CPU_DOTPROD;
#endif
  return features;
}

#if defined(__linux__)
enum { LONGEST = 4096 }; /* of a path, and of /proc/self/cgroup */

/* Reads the whole of a short file as text; false if it cannot be read or is longer. */
static bool read_text(const char *path, char *text, size_t size) {
  FILE *file = fopen(path, "re");
  if (file == NULL) return false;
  size_t length = fread(text, 1, size, file);
  fclose(file);
  if (length == size) return false;
  text[length] = '\0';
  return true;
}

/* Cores of a group's own quota, 0 without one. */
static double quota_of(const char *folder, bool version_1) {
  char path[LONGEST + 32], text[128];
  double quota = 0, period = 0;
  if (!version_1) {
    snprintf(path, sizeof path, "%s/cpu.max", folder); /* "max 100000" without a quota, so that nothing is read */
    if (!read_text(path, text, sizeof text) || sscanf(text, "%lf %lf", &quota, &period) != 2) return 0;
  } else {
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder); /* -1 without one */
    if (!read_text(path, text, sizeof text) || sscanf(text, "%lf", &quota) != 1) return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (!read_text(path, text, sizeof text) || sscanf(text, "%lf", &period) != 1) return 0;
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

/* The smallest quota of a group and those above it. In a container, the group's path may be one of the host that is not there
 * below `root`; `root` itself is the container's group then. */
static double smallest_quota(const char *root, const char *group, size_t length, bool version_1) {
  char folder[LONGEST];
  if (snprintf(folder, sizeof folder, "%s%.*s", root, (int)length, group) >= (int)sizeof folder) return 0;
  const size_t end = strlen(root);
  double smallest = 0;
  for (;;) {
    const double own = quota_of(folder, version_1);
    if (own > 0 && (smallest == 0 || own < smallest)) smallest = own;
    char *slash = strrchr(folder, '/');
    if (slash == NULL || strlen(folder) <= end) return smallest;
    *(slash < folder + end ? folder + end : slash) = '\0';
  }
}

/* Whether a comma-separated list of `length` characters has the word "cpu". */
static bool lists_cpu(const char *list, size_t length) {
  for (size_t i = 0; i + 3 <= length; i++)
    if (memcmp(list + i, "cpu", 3) == 0 && (i == 0 || list[i - 1] == ',') && (i + 3 == length || list[i + 3] == ','))
      return true;
  return false;
}

int32_t usae_cpu_quota(const char *membership, const char *mount) {
  double smallest = 0;
  for (const char *line = membership; *line != '\0';) { /* number:controllers:path */
    const size_t length = strcspn(line, "\n");
    const char *first = memchr(line, ':', length);
    const char *second = first == NULL ? NULL : memchr(first + 1, ':', length - (size_t)(first + 1 - line));
    if (second != NULL) {
      const size_t controllers = (size_t)(second - first - 1), group = length - (size_t)(second + 1 - line);
      const bool version_1 = controllers > 0;
      char root[LONGEST];
      if ((!version_1 || lists_cpu(first + 1, controllers)) &&
          snprintf(root, sizeof root, "%s%s", mount, version_1 ? "/cpu" : "") < (int)sizeof root) {
        const double quota = smallest_quota(root, second + 1, group, version_1);
        if (quota > 0 && (smallest == 0 || quota < smallest)) smallest = quota;
      }
    }
    line += length + (line[length] != '\0');
  }
  if (smallest == 0 || smallest > INT32_MAX / 2) return 0;
  const int32_t whole = (int32_t)smallest;
  return whole + (smallest > whole);
}

static int32_t own_quota = 0;

static void read_own_quota(void) {
  char membership[LONGEST];
  if (read_text("/proc/self/cgroup", membership, sizeof membership)) own_quota = usae_cpu_quota(membership, "/sys/fs/cgroup");
}
#else
int32_t usae_cpu_quota(const char *membership, const char *mount) { return 0; }
#endif

int32_t usae_cpu_count(void) {
  int32_t count = 0;
#if defined(__linux__)
  static pthread_once_t once = PTHREAD_ONCE_INIT; /* quotas are in files, too slow to read for each call */
  pthread_once(&once, read_own_quota);
  cpu_set_t allowed; /* fewer than the machine has, in a container or under taskset */
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) count = CPU_COUNT(&allowed);
#endif
  if (count <= 0) {
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    count = online > 0 ? (int32_t)online : 1;
  }
#if defined(__linux__)
  if (own_quota > 0 && own_quota < count) count = own_quota;
#endif
  return count;
}
