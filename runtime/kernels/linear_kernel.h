/* The linear maps of 4-bit and 8-bit weights: what the arithmetic and the operator share. */
#ifndef LINEAR_KERNEL_H
#define LINEAR_KERNEL_H
#include <stddef.h>
#include <stdint.h>

#include "onnxruntime_abi.h"

#define FEW_ROWS 6
#define SPAN 128 /* outputs that few rows meet in one call */
#define TILE 32  /* outputs that many rows meet in one call */
#define HEIGHT 6 /* rows that registers hold beside them */

/* A linear map, as its node describes it. */
typedef struct {
  const OrtApi *api;
  int64_t inputs, outputs, bits, block;
} Linear;

/* One product. */
typedef struct {
  Linear map;
  int64_t rows;
  const float *x;         /* [rows][inputs] */
  const uint8_t *weights; /* [outputs][inputs * bits / 8] */
  const float *scales;    /* [outputs][blocks] */
  float *y;               /* [rows][outputs] */
  int8_t *integers;       /* x in 8 bits, in the order in which weights meet it */
  float *steps;           /* of `integers`, for each block of a row */
  int32_t *starts;        /* of sums: minus the weights' zero times the sum of the integers */
  int lacks_memory;
} Product;

static inline int64_t blocks_of(const Linear *map) { return map->inputs / map->block; }

/* Weights in a vector of 64 bytes. */
static inline int64_t group_of(const Linear *map) { return 512 / map->bits; }

/* Inputs of a row, in whole vectors of weights. */
static inline int64_t padded(const Linear *map) {
  int64_t group = group_of(map);
  return (map->inputs + group - 1) / group * group;
}

/* Whether this processor runs the others. */
int linear_has_instructions(void);

/* The steps of a product, as onnxruntime's ParallelFor calls them: `data` is a Product. Up to FEW_ROWS
 * rows are prepared one by one and meet SPAN outputs at a time; more are prepared HEIGHT by HEIGHT and
 * meet TILE outputs.
 */
void linear_prepare_row(void *data, size_t row);
void linear_prepare_tile(void *data, size_t tile);
void linear_few_rows(void *data, size_t span);
void linear_many_rows(void *data, size_t tile);
#endif
