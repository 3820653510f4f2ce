/* Locks that are free in a forked child. */
#ifndef USAE_FORK_H
#define USAE_FORK_H
#include <pthread.h>
#include <stdint.h>

/* A lock for short sections. fork() waits until no other thread holds any of them, so what they protect is whole in the child,
 * and they are free there. A section must not take another lock of this kind, fork, or call back. */
typedef struct usae_lock {
  pthread_mutex_t mutex;
  struct usae_lock *older; /* of all that were made */
  struct usae_lock *idle;  /* the next of those that nobody uses */
} usae_lock;

/* A lock that the caller gives back with usae_lock_recycle; NULL without memory. */
usae_lock *usae_lock_make(void);
void usae_lock_recycle(usae_lock *lock);

/* How many forks lie between this process and the one that made the first lock. */
int64_t usae_fork_count(void);

/* Whether this is the thread of this process that was in the parent: the one that called the last fork. */
int32_t usae_is_forking_thread(pthread_t thread);
#endif
