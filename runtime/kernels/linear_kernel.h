/* Linear layers of 4-bit and 8-bit weights: what the arithmetic and the operator share. */
#ifndef LINEAR_KERNEL_H
#define LINEAR_KERNEL_H
#include <stddef.h>
#include <stdint.h>

#include "onnxruntime_abi.h"

#define LINEAR_FEW_ROWS 6
#define LINEAR_SPAN 128 /* outputs of few rows that one call computes */
#define LINEAR_TILE 64  /* outputs of many rows that one call computes */
#define LINEAR_LARGEST_BLOCK 4096 /* whose sums fit into 32 bits */
#define LINEAR_SUM_INPUTS 64 /* of a block, whose products a level with sums of int16 adds before it widens them */
#define LINEAR_UNIT 128 /* rows of inputs are padded to a multiple of it */

/* A linear layer, as its node describes it. */
typedef struct {
  const OrtApi *api;
  const struct LinearKernel *kernel;
  int64_t inputs, outputs, bits, block;
  int is_gated; /* GELU of the first half of the outputs, times the other half, is what it gives */
} LinearLayer;

/* One product. */
typedef struct {
  LinearLayer layer;
  int64_t rows;
  const float *x;         /* [rows][inputs] */
  const uint8_t *weights; /* [outputs][inputs * bits / 8] */
  const uint16_t *scales; /* bfloat16, [outputs][blocks] */
  float *products;        /* [rows][outputs]: `y`, but where few rows are gated */
  float *y;               /* [rows][given_outputs] */
  int8_t *integers;       /* x in int8, in the order in which it is multiplied */
  float *x_scales;        /* of `integers`, for each block of a row */
  int32_t *zero_terms;    /* what the zero point takes from products with them: one a block for few rows; for
                           * many what each sum begins with, where that is of int16 two of them */
  int lacks_memory;
} Product;

/* The parts of a product, as onnxruntime's ParallelFor calls them: `data` is a Product. Up to
 * LINEAR_FEW_ROWS rows are prepared one by one and give LINEAR_SPAN outputs a call, then are gated one
 * by one; more are prepared `height` by `height` and give LINEAR_TILE numbers of `y` a call.
 */
typedef struct LinearKernel {
  int64_t height;
  void (*prepare_row)(void *data, size_t row);
  void (*prepare_rows)(void *data, size_t group);
  void (*few_rows)(void *data, size_t span);
  void (*gate_row)(void *data, size_t row);
  void (*many_rows)(void *data, size_t tile);
} LinearKernel;

static inline int64_t blocks_of(const LinearLayer *layer) { return layer->inputs / layer->block; }

static inline int64_t given_outputs(const LinearLayer *layer) {
  return layer->is_gated ? layer->outputs / 2 : layer->outputs;
}

/* Of a row, at most: one for each block, and for LINEAR_SUM_INPUTS of a longer one. */
static inline int64_t zero_term_count(const LinearLayer *layer) {
  return layer->inputs / (layer->block < LINEAR_SUM_INPUTS ? layer->block : LINEAR_SUM_INPUTS);
}

/* Inputs of a row, with those that pad it. */
static inline int64_t padded_inputs(const LinearLayer *layer) {
  return (layer->inputs + LINEAR_UNIT - 1) / LINEAR_UNIT * LINEAR_UNIT;
}
#endif
