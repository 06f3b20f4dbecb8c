/* Softmax attention of one head of one layer; `attention_kernel.c` says how, `pack_qkv.c` in
 * which order it reads.
 */
#ifndef ATTENTION_KERNEL_H
#define ATTENTION_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "softmax.h"

#define BLOCK 128 /* keys that are attended at a time */
#define TILE 8 /* rows of a product that registers hold */
#define VECTORS 2
#define LANES 16
#define QUERIES (VECTORS * LANES)
#define LARGEST_HEAD 256

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
  const float *mask; /* added to scores, a row for each of the queries; NULL where all see all */
  ptrdiff_t mask_stride;
} Head;

/* What a mask lets QUERIES queries see of a block of keys. */
enum { SEES_NOTHING, SEES_SOME, SEES_ALL };

/* QUERIES queries as scores are computed from them, so that these come out as powers of two:
 * [size / 2 or size / 4][QUERIES], and the int8 scale of each. */
typedef struct {
  _Alignas(64) uint32_t words[LARGEST_HEAD / 2 * QUERIES];
  _Alignas(64) float scales[QUERIES];
} Queries;

/* The head size in whole tiles. */
static inline ptrdiff_t padded(ptrdiff_t size) { return (size + TILE - 1) / TILE * TILE; }
static inline ptrdiff_t blocks(ptrdiff_t rows) { return (rows + BLOCK - 1) / BLOCK; }

/* Numbers of 32 bits that the packed keys of a head take at most, or its values. */
static inline ptrdiff_t packed_words(ptrdiff_t key_count, ptrdiff_t size) {
  return blocks(key_count) * BLOCK / 2 * padded(size);
}

/* Keys of TILE rows as they were packed, in numbers of 32 bits. */
static inline ptrdiff_t tile_words(ptrdiff_t size, int is_int8) {
  return TILE * (is_int8 ? padded(size) / 4 + 2 : padded(size) / 2);
}

/* Whether this processor runs those below. */
int attention_has_instructions(void);

/* Whether it has a matrix unit, which libraries use better than this kernel its vectors. */
int has_amx_bf16(void);

/* Packs keys and values; returns whether the keys are in int8, which `attend_rows` must know. */
int pack_head(const Head *head, uint32_t *keys, uint32_t *values);

/* Packs blocks `first` .. `last` of keys and values, in bfloat16. */
void pack_blocks(const Head *head, ptrdiff_t first, ptrdiff_t last, uint32_t *keys,
                 uint32_t *values);

/* Packs queries `first` .. `first + count`, count <= QUERIES; zeros past the last. */
void pack_queries(const Head *head, int is_int8, ptrdiff_t first, ptrdiff_t count, Queries *out);

/* SEES_* of each block of keys for queries `first` .. `first + count`, by the mask. */
void block_visibility(const Head *head, ptrdiff_t first, ptrdiff_t count, uint8_t *visibility);

/* Attention of queries `first` .. `first + count`, count <= QUERIES. `visibility` is written by
 * `block_visibility`; NULL where there is no mask. */
void attend_rows(const Head *head, const uint32_t *keys, const uint32_t *values, int is_int8,
                 const uint8_t *visibility, ptrdiff_t first, ptrdiff_t count);

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define HAS_KERNEL
#define KERNEL \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni")))
#define INLINE KERNEL static inline __attribute__((always_inline))

/* 16 numbers of each as 32 of bfloat16, those of `low` first. */
INLINE __m512i bfloat16_of(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* 16 pairs of bfloat16. */
INLINE __m512i pairs_of(__m512 even, __m512 odd) {
  static const uint16_t in_pairs[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_loadu_si512(in_pairs), bfloat16_of(even, odd));
}
#endif
#endif
