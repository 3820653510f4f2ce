#include "fuzz.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STATUSES = 8, FUNCTIONS = 96, SECONDS_OF_A_CALL = 100 };

static struct {
  const char *name;
  int64_t counts[STATUSES];
} functions[FUNCTIONS];
static int64_t calls, first_traced = INT64_MAX, failures;
static const char *running = "nothing";
static usae_error error;
static bool has_error;
static uint64_t seed;

usae_error *begin_call(const char *function) {
  running = function;
  if (++calls >= first_traced) fprintf(stderr, "%lld %s\n", (long long)calls, function);
  memset(&error, 'x', sizeof error);
  has_error = !chance(10);
  alarm(SECONDS_OF_A_CALL);
  return has_error ? &error : NULL;
}

usae_status end_call(const char *function, usae_status status) {
  int at = 0;
  while (at < FUNCTIONS && functions[at].name != NULL && strcmp(functions[at].name, function) != 0) at++;
  require(at < FUNCTIONS && status >= 0 && status < STATUSES, "the status is one of usae.h");
  functions[at].name = function;
  functions[at].counts[status]++;
  if (status != USAE_OK && has_error)
    require(memchr(error.message, 0, sizeof error.message) != NULL && strlen(error.message) > 8, "a failure has words");
  if (calls >= first_traced) fprintf(stderr, "  %d %s\n", (int)status, status != USAE_OK && has_error ? error.message : "");
  return status;
}

void require(bool condition, const char *sentence) {
  if (condition) return;
  failures++;
  printf("FAILED in call %lld, %s: %s\n", (long long)calls, running, sentence);
  if (failures >= 20) {
    print_counts();
    exit(1);
  }
}

static void tell(int number) {
  char text[256];
  int length = snprintf(text, sizeof text, "signal %d in call %lld, %s; seed %llu\n", number, (long long)calls, running,
                        (unsigned long long)seed);
  if (write(STDOUT_FILENO, text, (size_t)length) < 0) _exit(3);
  signal(number, SIG_DFL);
  raise(number);
}

void watch_signals(uint64_t given) {
  seed = given;
  signal(SIGALRM, tell); /* a call that hangs */
  signal(SIGABRT, tell);
  signal(SIGILL, tell); /* Swift's traps */
  signal(SIGTRAP, tell);
  signal(SIGFPE, tell);
#ifndef USAE_FUZZ_ADDRESSES /* else the sanitizer tells more */
  signal(SIGSEGV, tell);
  signal(SIGBUS, tell);
#endif
}

int64_t calls_made(void) { return calls; }

void trace_from(int64_t call) { first_traced = call; }

bool print_counts(void) {
  static const char *const names[STATUSES] = {"ok",         "invalid",       "shape",       "unknown model",
                                              "not finite", "uninitialized", "interrupted", "memory"};
  int64_t totals[STATUSES] = {0};
  printf("%-28s", "");
  for (int s = 0; s < STATUSES; s++) printf("%14s", names[s]);
  for (int f = 0; f < FUNCTIONS && functions[f].name != NULL; f++) {
    printf("\n%-28s", functions[f].name);
    for (int s = 0; s < STATUSES; s++) {
      printf("%14lld", (long long)functions[f].counts[s]);
      totals[s] += functions[f].counts[s];
    }
  }
  printf("\n%-28s", "all");
  for (int s = 0; s < STATUSES; s++) printf("%14lld", (long long)totals[s]);
  printf("\n%lld calls, seed %llu: %lld did not hold\n", (long long)calls, (unsigned long long)seed, (long long)failures);
  return failures == 0;
}
