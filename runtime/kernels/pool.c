#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

struct Pool {
  pthread_mutex_t callers, lock;
  pthread_cond_t begun, ended;
  void (*task)(void *data, size_t index);
  void *data;
  size_t count;
  atomic_size_t next;
  unsigned job; /* number of the last one that was begun */
  int workers, working, is_closing;
  pid_t process; /* that has the threads: a fork of it has none */
  pthread_t threads[];
};

static void take_tasks(Pool *pool) {
  for (size_t i; (i = atomic_fetch_add(&pool->next, 1)) < pool->count;) pool->task(pool->data, i);
}

static void *work(void *data) {
  Pool *pool = data;
  pthread_mutex_lock(&pool->lock);
  for (unsigned done = 0;;) {
    while (pool->job == done && !pool->is_closing) pthread_cond_wait(&pool->begun, &pool->lock);
    if (pool->is_closing) break;
    done = pool->job;
    pthread_mutex_unlock(&pool->lock);
    take_tasks(pool);
    pthread_mutex_lock(&pool->lock);
    if (!--pool->working) pthread_cond_signal(&pool->ended);
  }
  pthread_mutex_unlock(&pool->lock);
  return NULL;
}

Pool *pool_new(int threads) {
  size_t workers = threads > 1 ? (size_t)threads - 1 : 0;
  Pool *pool = calloc(1, sizeof *pool + workers * sizeof *pool->threads);
  if (!pool) return NULL;
  pool->process = getpid();
  pthread_mutex_init(&pool->callers, NULL);
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->begun, NULL);
  pthread_cond_init(&pool->ended, NULL);
  for (; pool->workers < (int)workers; pool->workers++)
    if (pthread_create(&pool->threads[pool->workers], NULL, work, pool)) {
      pool_free(pool);
      return NULL;
    }
  return pool;
}

void pool_run(Pool *pool, void (*task)(void *data, size_t index), void *data, size_t count) {
  if (getpid() != pool->process) {
    for (size_t i = 0; i < count; i++) task(data, i);
    return;
  }
  pthread_mutex_lock(&pool->callers);
  pthread_mutex_lock(&pool->lock);
  pool->task = task, pool->data = data, pool->count = count;
  atomic_store(&pool->next, 0);
  pool->working = pool->workers;
  pool->job++;
  pthread_cond_broadcast(&pool->begun);
  pthread_mutex_unlock(&pool->lock);
  take_tasks(pool);
  pthread_mutex_lock(&pool->lock);
  while (pool->working) pthread_cond_wait(&pool->ended, &pool->lock);
  pthread_mutex_unlock(&pool->lock);
  pthread_mutex_unlock(&pool->callers);
}

void pool_free(Pool *pool) {
  if (getpid() != pool->process) { /* whose locks may be held by threads that are not here */
    free(pool);
    return;
  }
  pthread_mutex_lock(&pool->lock);
  pool->is_closing = 1;
  pthread_cond_broadcast(&pool->begun);
  pthread_mutex_unlock(&pool->lock);
  for (int i = 0; i < pool->workers; i++) pthread_join(pool->threads[i], NULL);
  pthread_cond_destroy(&pool->begun);
  pthread_cond_destroy(&pool->ended);
  pthread_mutex_destroy(&pool->lock);
  pthread_mutex_destroy(&pool->callers);
  free(pool);
}
