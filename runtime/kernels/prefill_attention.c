/* GroupQueryAttention of many rows over caches of float32: prefill. Keys and values are
 * packed once for all the queries of the heads that share them.
 */
#include <stdlib.h>
#include <string.h>

#include "attention_op.h"

#define ALIGNMENT 64 /* of packed keys and values */
#define MANY_ROWS 48 /* packing keys and values does not pay for fewer */

/* The rows of a call, all heads after one another. */
typedef struct {
  const AttentionKernel *kernel;
  Head head; /* the current one */
  const float *new_keys, *new_values;
  float *keys, *values; /* caches [kv_heads][capacity][size] */
  ptrdiff_t kv_heads, capacity, rows;
  uint32_t *packed_keys, *packed_values;
  uint8_t *visibility; /* [groups of queries][blocks] */
} Job;

int is_prefill(const AttentionOp *kernel, const Call *call) {
  return !kernel->is_int8 && call->rows >= MANY_ROWS && call->size <= ATTENTION_LARGEST_HEAD;
}

/* Writes the new rows of a head to the caches. */
static void write_rows(void *data, size_t index) {
  Job *job = data;
  ptrdiff_t size = job->head.size, width = job->kv_heads * size;
  ptrdiff_t from = (ptrdiff_t)index * size;
  ptrdiff_t to = ((ptrdiff_t)index * job->capacity + job->head.key_count - job->rows) * size;
  for (ptrdiff_t row = 0; row < job->rows; row++, from += width, to += size) {
    memcpy(job->keys + to, job->new_keys + from, (size_t)size * sizeof(float));
    memcpy(job->values + to, job->new_values + from, (size_t)size * sizeof(float));
  }
}

static ptrdiff_t groups_of(const Job *job) {
  return (job->head.query_count + job->kernel->queries - 1) / job->kernel->queries;
}

/* Queries from `first` on that are attended at once. */
static ptrdiff_t queries_at(const Job *job, ptrdiff_t first) {
  ptrdiff_t left = job->head.query_count - first;
  return left < job->kernel->queries ? left : job->kernel->queries;
}

/* SEES_* of a group of queries. */
static uint8_t *seen_by(const Job *job, size_t group) {
  return job->visibility + (ptrdiff_t)group * attention_blocks(job->head.key_count);
}

static void group_visibility(void *data, size_t index) {
  const Job *job = data;
  ptrdiff_t first = (ptrdiff_t)index * job->kernel->queries;
  job->kernel->block_visibility(&job->head, first, queries_at(job, first), seen_by(job, index));
}

/* Packs a block of keys and values that any group of queries sees. */
static void pack_visible(void *data, size_t index) {
  Job *job = data;
  ptrdiff_t count = attention_blocks(job->head.key_count), block = (ptrdiff_t)index;
  for (ptrdiff_t cell = block; cell < groups_of(job) * count; cell += count)
    if (job->visibility[cell] != SEES_NOTHING) {
      job->kernel->pack_blocks(&job->head, block, block + 1, job->packed_keys, job->packed_values);
      return;
    }
}

static void attend_group(void *data, size_t index) {
  const Job *job = data;
  ptrdiff_t first = (ptrdiff_t)index * job->kernel->queries;
  job->kernel->attend(&job->head, job->packed_keys, job->packed_values, seen_by(job, index), first,
                      queries_at(job, first));
}

static OrtStatus *attend_heads(const OrtApi *api, OrtKernelContext *context, Job *job) {
  Head *head = &job->head;
  size_t groups = (size_t)groups_of(job), parts = (size_t)attention_blocks(head->key_count);
#define EACH(part, number) TRY(api->KernelContext_ParallelFor(context, part, number, number, job))
  EACH(write_rows, (size_t)job->kv_heads);
  EACH(group_visibility, groups);
  for (ptrdiff_t i = 0; i < job->kv_heads; i++) {
    EACH(pack_visible, parts);
    EACH(attend_group, groups);
    head->queries += head->group_size * head->size, head->out += head->group_size * head->size;
    head->keys += job->capacity * head->size, head->values += job->capacity * head->size;
  }
  return NULL;
}

OrtStatus *prefill_attention(const AttentionOp *kernel, const Call *call,
                             OrtKernelContext *context) {
  ptrdiff_t group_size = kernel->heads / kernel->kv_heads, width = kernel->heads * call->size;
  Head head = {.queries = call->in[QUERY],
               .keys = call->in[PAST_KEY],
               .values = call->in[PAST_VALUE],
               .out = call->out[OUT],
               .query_stride = width,
               .key_stride = call->size,
               .out_stride = width,
               .query_count = call->rows * group_size,
               .key_count = call->total,
               .group_size = group_size,
               .size = call->size,
               .scale = call->scale,
               .mask = call->in[MASK],
               .mask_stride = call->total};
  Job job = {.kernel = kernel->level->attention,
             .head = head,
             .new_keys = call->in[KEY],
             .new_values = call->in[VALUE],
             .keys = call->in[PAST_KEY],
             .values = call->in[PAST_VALUE],
             .kv_heads = kernel->kv_heads,
             .capacity = call->capacity,
             .rows = call->rows};
  size_t words = (size_t)packed_words(head.key_count, head.size);
  size_t cells = (size_t)(groups_of(&job) * attention_blocks(head.key_count));
  size_t bytes = 2 * words * sizeof *job.packed_keys + cells;
  job.packed_keys = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
  if (!job.packed_keys) return kernel->api->CreateStatus(ORT_FAIL, NO_MEMORY);
  job.packed_values = job.packed_keys + words;
  job.visibility = (uint8_t *)(job.packed_values + words);
  OrtStatus *status = attend_heads(kernel->api, context, &job);
  free(job.packed_keys);
  return status;
}
