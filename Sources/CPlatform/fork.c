#include "fork.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

/* Every lock that was ever made is in one list, which only grows, so that it can be walked without a lock. What is given back
 * waits in a second list for its next user. */
static _Atomic(usae_lock *) newest, idle;
static atomic_flag taking = ATOMIC_FLAG_INIT; /* one thread at a time takes from `idle`, so that no lock comes back meanwhile */
static _Atomic int64_t forks;
static pthread_t forking_thread;
static _Thread_local usae_lock *newest_held;

/* The list's order is the same for all threads, so two that fork at once do not wait for each other. */
static void before_fork(void) {
  newest_held = atomic_load(&newest);
  for (usae_lock *lock = newest_held; lock != NULL; lock = lock->older) pthread_mutex_lock(&lock->mutex);
}

static void release(void) {
  for (usae_lock *lock = newest_held; lock != NULL; lock = lock->older) pthread_mutex_unlock(&lock->mutex);
}

/* The child has one thread, so nothing here can be observed half done. Locks made after before_fork are of other threads, which
 * have not told anyone of them yet. */
static void in_child(void) {
  release();
  for (usae_lock *lock = atomic_load(&newest); lock != newest_held; lock = lock->older) pthread_mutex_init(&lock->mutex, NULL);
  atomic_flag_clear(&taking);
  forking_thread = pthread_self();
  atomic_fetch_add(&forks, 1);
}

static void watch_forks(void) { pthread_atfork(before_fork, release, in_child); }

static usae_lock *take_idle(void) {
  while (atomic_flag_test_and_set_explicit(&taking, memory_order_acquire)) {
  }
  usae_lock *lock = atomic_load(&idle);
  while (lock != NULL && !atomic_compare_exchange_weak(&idle, &lock, lock->idle)) {
  }
  atomic_flag_clear_explicit(&taking, memory_order_release);
  return lock;
}

usae_lock *usae_lock_make(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  usae_lock *lock = take_idle();
  if (lock != NULL) return lock;
  lock = malloc(sizeof *lock);
  if (lock == NULL) return NULL;
  pthread_mutex_init(&lock->mutex, NULL);
  lock->older = atomic_load(&newest);
  while (!atomic_compare_exchange_weak(&newest, &lock->older, lock)) {
  }
  return lock;
}

void usae_lock_recycle(usae_lock *lock) {
  lock->idle = atomic_load(&idle);
  while (!atomic_compare_exchange_weak(&idle, &lock->idle, lock)) {
  }
}

int64_t usae_fork_count(void) { return atomic_load_explicit(&forks, memory_order_acquire); }

int32_t usae_is_forking_thread(pthread_t thread) {
  return usae_fork_count() > 0 && pthread_equal(thread, forking_thread);
}
