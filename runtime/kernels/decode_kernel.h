/* Softmax attention of one row over keys and values in float32, or in int8 with a scale for every channel. */
#ifndef DECODE_KERNEL_H
#define DECODE_KERNEL_H
#include <stddef.h>
#include <stdint.h>

#define DECODE_SPAN 512 /* keys of a head that are attended in one call */
#define DECODE_UNIT 16  /* head sizes are multiples of it */
#define DECODE_LARGEST_HEAD 256

typedef struct {
  const float *query, *new_key, *new_value; /* [kv_heads * group_size][size], twice [kv_heads][size] */
  void *keys, *values;                      /* [kv_heads][capacity][size] */
  const float *key_scales, *value_scales;   /* [kv_heads][size]; NULL of float32 */
  const float *mask;                        /* [key_count], added to scores */
  float *out;                               /* like the query */
  ptrdiff_t kv_heads, group_size, size, capacity, key_count;
  float scale;    /* of scores */
  float *queries; /* like the query, so that scores come out as powers of two */
  float *sums;    /* [kv_heads][spans][group_size][size], of weighted values in their scales */
  float *highest; /* [kv_heads][spans][group_size], scores */
  float *totals;  /* likewise, of weights: powers of two of scores less the highest */
} DecodeStep;

static inline int has_int8_caches(const DecodeStep *step) { return step->key_scales != NULL; }

static inline ptrdiff_t decode_spans(const DecodeStep *step) {
  return (step->key_count + DECODE_SPAN - 1) / DECODE_SPAN;
}

/* One step of decode: the new row to the caches, then each span of each head, then their sum. A row
 * that sees no key at all is not a number. */
typedef struct {
  void (*begin)(const DecodeStep *step);
  void (*attend)(void *step, size_t head_and_span);
  void (*end)(const DecodeStep *step);
} DecodeKernel;
#endif
