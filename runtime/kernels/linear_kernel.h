/* Linear layers of 4-bit and 8-bit weights: what the arithmetic and the operator share. */
#ifndef LINEAR_KERNEL_H
#define LINEAR_KERNEL_H
#include <stddef.h>
#include <stdint.h>

#include "onnxruntime_abi.h"

#define FEW_ROWS 6
#define SPAN 128 /* outputs of few rows that one call computes */
#define TILE 32  /* outputs of many rows that one call computes */
#define HEIGHT 6 /* rows that registers hold beside them */

/* A linear layer, as its node describes it. */
typedef struct {
  const OrtApi *api;
  int64_t inputs, outputs, bits, block;
} LinearLayer;

/* One product. */
typedef struct {
  LinearLayer layer;
  int64_t rows;
  const float *x;         /* [rows][inputs] */
  const uint8_t *weights; /* [outputs][inputs * bits / 8] */
  const float *scales;    /* [outputs][blocks] */
  float *y;               /* [rows][outputs] */
  int8_t *integers;       /* x in int8, in the order in which it is multiplied */
  float *x_scales;        /* of `integers`, for each block of a row */
  int32_t *zero_point_terms; /* with which sums begin: minus the zero point times the integers' sum */
  int lacks_memory;
} Product;

static inline int64_t blocks_of(const LinearLayer *layer) { return layer->inputs / layer->block; }

/* Weights in a vector of 64 bytes. */
static inline int64_t group_of(const LinearLayer *layer) { return 512 / layer->bits; }

/* Inputs of a row, in whole vectors of weights. */
static inline int64_t padded(const LinearLayer *layer) {
  int64_t group = group_of(layer);
  return (layer->inputs + group - 1) / group * group;
}

/* Whether this processor runs the others. */
int linear_has_instructions(void);

/* The parts of a product, as onnxruntime's ParallelFor calls them: `data` is a Product. Up to FEW_ROWS
 * rows are prepared one by one and give SPAN outputs a call; more are prepared HEIGHT by HEIGHT and
 * give TILE outputs a call.
 */
void linear_prepare_row(void *data, size_t row);
void linear_prepare_tile(void *data, size_t tile);
void linear_few_rows(void *data, size_t span);
void linear_many_rows(void *data, size_t tile);
#endif
