/* Softmax attention of many queries of a head of a layer, over keys and values in float32.
 *
 * A block of keys and values is packed once for all queries (`pack_blocks`), then some queries at a
 * time attend to all blocks (`attend`): both for each part by itself, on any thread.
 */
#ifndef ATTENTION_KERNEL_H
#define ATTENTION_KERNEL_H
#include <stddef.h>
#include <stdint.h>

#define ATTENTION_BLOCK 128 /* keys that are packed and attended at a time */
#define ATTENTION_UNIT 32   /* head sizes are padded to it at most */
#define ATTENTION_LARGEST_HEAD 256

/* Keys and values of one head, and the queries that attend to them: those of `group_size` heads side
 * by side, so that query r is number r % group_size of row r / group_size. Strides are of rows, in
 * numbers.
 */
typedef struct {
  const float *queries, *keys, *values;
  float *out; /* like the queries */
  ptrdiff_t query_stride, key_stride, out_stride;
  ptrdiff_t query_count, key_count, group_size, size;
  float scale;       /* of scores */
  int is_bytes;      /* all products are of bytes, which `bytes_suffice` allows; without a mask */
  const float *mask; /* added to scores, a row for each of the queries; NULL where all see all */
  ptrdiff_t mask_stride;
} Head;

/* What a mask lets queries see of a block of keys. */
enum { SEES_NOTHING, SEES_SOME, SEES_ALL };

typedef struct {
  ptrdiff_t queries; /* that are attended at once */

  /* Whether int8 queries and keys move no row's scores by more than 0.05, root mean square, and int8
   * values are within 2 % of the values; NULL where they are no faster. */
  int (*bytes_suffice)(const Head *head);

  /* Packs blocks `first` .. `last` of keys and values; [packed_words] each, best from 64 bytes on. */
  void (*pack_blocks)(const Head *head, ptrdiff_t first, ptrdiff_t last, uint32_t *keys,
                      uint32_t *values);

  /* SEES_* of each block of keys for queries `first` .. `first + count`, by the mask. */
  void (*block_visibility)(const Head *head, ptrdiff_t first, ptrdiff_t count, uint8_t *visibility);

  /* Attention of queries `first` .. `first + count`, count <= queries. `visibility` is written by
   * `block_visibility`; NULL where there is no mask. A block that is not seen need not be packed. A
   * row whose blocks are all SEES_NOTHING is not a number. */
  void (*attend)(const Head *head, const uint32_t *keys, const uint32_t *values,
                 const uint8_t *visibility, ptrdiff_t first, ptrdiff_t count);
} AttentionKernel;

static inline ptrdiff_t attention_blocks(ptrdiff_t key_count) {
  return (key_count + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK;
}

/* Numbers of 32 bits of one packed block of keys, or of values, and of what belongs to them. */
static inline ptrdiff_t packed_block_words(ptrdiff_t size) {
  ptrdiff_t padded = (size + ATTENTION_UNIT - 1) / ATTENTION_UNIT * ATTENTION_UNIT;
  return ATTENTION_BLOCK / 2 * (padded + ATTENTION_UNIT / 2);
}

/* Those of the packed keys of a head, or of its values. */
static inline ptrdiff_t packed_words(ptrdiff_t key_count, ptrdiff_t size) {
  return attention_blocks(key_count) * packed_block_words(size);
}
#endif
