#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

/* Threads train one autoencoder, encode with another, and look at both. Whatever they do when the process is forked, the child
 * can use what was at rest, and is told what was not. */

static usae_sae *trained, *resting;
static usae_matrix inputs[2];
static atomic_int stop;

static void *train(void *unused) {
  while (!stop) usae_step(trained, 2, inputs, NULL, 0, -1, USAE_STEP_TRAIN, NULL, NULL, NULL, NULL);
  return unused;
}

static void *look(void *unused) {
  static float values[TOKENS * K];
  static int32_t indices[TOKENS * K];
  usae_recipe r = {.size = sizeof r};
  while (!stop) {
    usae_current_recipe(trained, &r, NULL);
    usae_step_count(resting);
    usae_encode(resting, 0, &inputs[0], values, indices, NULL, NULL);
  }
  return unused;
}

/* Waits until the child has ended; one that hangs ends by its alarm. */
static int ended_well(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0) return 1;
  printf("a child ended with status %#x\n", (unsigned)status); /* 0x100 times its code, or the number of its signal */
  return 0;
}

static int works(usae_sae *sae) {
  static float values[TOKENS * K];
  static int32_t indices[TOKENS * K];
  return usae_encode(sae, 1, &inputs[1], values, indices, NULL, NULL) == USAE_OK;
}

/* AddressSanitizer's own lock stays held in a child that is forked beside threads that free memory. */
static int can_fork_beside_threads(void) {
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
  return 0;
#endif
#endif
  return 1;
}

static void test_forks_beside_threads(void) {
  pthread_t threads[3];
  int good = 1;
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, i == 0 ? train : look, NULL);
  for (int i = 0; i < 150 && good; i++) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      usae_error error = {""};
      const usae_status status = usae_step(trained, 2, inputs, NULL, 0, 0, USAE_STEP_TRAIN, NULL, NULL, NULL, &error);
      const int told = status == USAE_OK || (status == USAE_INVALID_ARGUMENT && strstr(error.message, "fork") != NULL);
      const int64_t concepts = usae_concepts(trained), steps = usae_step_count(trained);
      const int again = usae_step(resting, 2, inputs, NULL, 0, 0, USAE_STEP_TRAIN, NULL, NULL, NULL, NULL) == USAE_OK;
      _exit((told ? 0 : 1) + (concepts == CONCEPTS && steps >= 0 ? 0 : 2) + (works(resting) ? 0 : 4) + (again ? 0 : 8));
    }
    good = ended_well(child);
    usleep(300);
  }
  stop = 1;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  check(good, "a child can use what was at rest, and is told what was not");
}

/* A handler of a signal may fork while a call polls. */
static int32_t fork_once(void *context) {
  pid_t *const child = context;
  if (*child == -1) *child = fork();
  return 0;
}

static void test_forks_in_a_poll(void) {
  pid_t child = -1;
  const usae_interrupt interrupt = {fork_once, &child};
  usae_error error = {""};
  const usae_status status = usae_step(resting, 2, inputs, NULL, 0, 0, USAE_STEP_TRAIN, &interrupt, NULL, NULL, &error);
  if (child == 0) {
    alarm(60);
    const int again = usae_step(resting, 2, inputs, NULL, 0, 0, USAE_STEP_TRAIN, NULL, NULL, NULL, NULL) == USAE_OK;
    _exit(status == USAE_INVALID_ARGUMENT && strstr(error.message, "fork") && works(resting) && again ? 0 : 1);
  }
  check(status == USAE_OK, "the parent goes on");
  check(ended_well(child), "and the call of the child ends, without harm");
}

void test_forks(void) {
  usae_recipe r = recipe();
  inputs[0] = matrix(left, TOKENS, LEFT);
  inputs[1] = matrix(right, TOKENS, RIGHT);
  usae_sae **saes[] = {&trained, &resting};
  for (int i = 0; i < 2; i++)
    check(usae_create(CONCEPTS, K, 7, 2, &r, saes[i], NULL) == USAE_OK &&
              usae_initialize_from(*saes[i], 2, names, inputs, NULL, NULL) == USAE_OK,
          "an autoencoder");
  test_forks_in_a_poll();
  if (can_fork_beside_threads()) test_forks_beside_threads();
  usae_destroy(trained);
  usae_destroy(resting);
}
