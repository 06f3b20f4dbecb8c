/* Threads that share the tasks of one job after another. */
#ifndef POOL_H
#define POOL_H
#include <stddef.h>

typedef struct Pool Pool;

/* A pool of `threads` threads, the one that calls `pool_run` among them; NULL where the system gives no
 * memory or no thread. */
Pool *pool_new(int threads);

/* Does tasks 0 .. `count` - 1 and returns when all are done. A thread takes the next one when it has done
 * the last, so that slow cores take fewer. Jobs of several callers are done one after the other. */
void pool_run(Pool *pool, void (*task)(void *data, size_t index), void *data, size_t count);

void pool_free(Pool *pool);
#endif
