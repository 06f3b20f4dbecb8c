/* Norms by the root of the mean square, with what stands beside them in a decoder's layer. */
#ifndef NORM_KERNEL_H
#define NORM_KERNEL_H
#include <stddef.h>
#include <stdint.h>

#define NORM_ROWS 8 /* rows that one call computes */

/* What a layer adds to its residual, normed before and after. */
typedef struct {
  const float *residual, *product;           /* [rows][size] */
  const float *product_weight, *next_weight; /* [size] */
  float *sum;                                /* [rows][size]: residual + norm of product */
  float *normed;                             /* [rows][size]: norm of `sum` */
  int64_t rows, size;
  float epsilon;
} ResidualNorm;

enum { NORM_QUERIES, NORM_KEYS, NORM_KINDS };

/* Queries and keys of one product, each head normed and rotated by its position. */
typedef struct {
  const float *product;             /* [rows][all heads of queries, then of keys][size] */
  const float *weights[NORM_KINDS]; /* [size] */
  const float *cosines, *sines;     /* [rows][size / 2] */
  float *out[NORM_KINDS];           /* [rows][heads][size] */
  int64_t rows, heads[NORM_KINDS], size;
  float epsilon;
} HeadNorm;

/* As onnxruntime's ParallelFor calls them: NORM_ROWS rows from NORM_ROWS * group on. */
typedef struct {
  void (*add_residual)(void *residual_norm, size_t group);
  void (*rotate_heads)(void *head_norm, size_t group);
} NormKernel;
#endif
