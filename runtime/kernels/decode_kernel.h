/* Softmax attention of one row over keys and values in 8 bits, which have a step for every channel. */
#ifndef ANSWER_KERNEL_H
#define ANSWER_KERNEL_H
#include <stddef.h>
#include <stdint.h>

#define ANSWER_SPAN 512 /* keys of a head that are attended in one call */
#define ANSWER_UNIT 16  /* head sizes are multiples of it */
#define ANSWER_LARGEST 256

typedef struct {
  const float *query, *new_key, *new_value; /* [kv_heads * sharing][size], twice [kv_heads][size] */
  int8_t *keys, *values;                    /* [kv_heads][capacity][size] */
  const float *key_steps, *value_steps;     /* [kv_heads][size] */
  const float *mask;                        /* [key_count], added to scores */
  float *out;                               /* like the query */
  ptrdiff_t kv_heads, sharing, size, capacity, key_count;
  float scale;    /* of scores */
  float *queries; /* like the query, so that scores come out as powers of two */
  float *sums;    /* [kv_heads][spans][sharing][size], of weighted values in their steps */
  float *highest; /* [kv_heads][spans][sharing], scores */
  float *totals;  /* likewise, of weights: powers of two of scores less the highest */
} Answer;

static inline ptrdiff_t answer_spans(const Answer *answer) {
  return (answer->key_count + ANSWER_SPAN - 1) / ANSWER_SPAN;
}

/* Whether this processor runs those below. */
int answer_has_instructions(void);

/* The steps of an answer: the new row to the caches, then each span of each head, then their sum. A
 * row that sees no key at all is not a number. */
void answer_begin(const Answer *answer);
void answer_attend(void *data, size_t head_and_span);
void answer_end(const Answer *answer);
#endif
