/* Softmax attention of one head of one layer; `attention_kernel.c` says how. */
#ifndef EDGE_MEDGEMMA_ATTENTION_KERNEL_H
#define EDGE_MEDGEMMA_ATTENTION_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#define BLOCK 128 /* keys per pass */
#define TILE 8 /* rows of a product that registers hold */
#define VECTORS 2
#define LANES 16
#define QUERIES (VECTORS * LANES)
#define LARGEST_HEAD 256

/* `head` of `heads`, each of `size` numbers a row; queries, keys and values of all side by side. */
typedef struct {
  ptrdiff_t rows, heads, size, head;
} Shape;

/* The head size in whole tiles. */
static inline ptrdiff_t padded(ptrdiff_t size) { return (size + TILE - 1) / TILE * TILE; }
static inline ptrdiff_t blocks(ptrdiff_t rows) { return (rows + BLOCK - 1) / BLOCK; }

/* Numbers of 32 bits that the packed keys of a head take at most, or its values. */
static inline ptrdiff_t packed_words(Shape s) {
  return blocks(s.rows) * BLOCK / 2 * padded(s.size);
}

/* Whether this processor runs the two below. */
int has_instructions(void);

/* Whether it has a matrix unit, which libraries use better than this kernel its vectors. */
int has_amx_bf16(void);

/* Packs keys and values; returns whether the keys are in 8 bits, which `attend_rows` must know. */
int pack_head(const float *joined, Shape s, uint32_t *keys, uint32_t *values);

/* Attention of rows `first` .. `first + count`, count <= QUERIES, to `out`. */
void attend_rows(const float *joined, Shape s, const uint32_t *keys, const uint32_t *values,
                 int in_bytes, ptrdiff_t first, ptrdiff_t count, float *out);

#endif
