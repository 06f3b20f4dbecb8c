/* Kernels called directly, without onnxruntime, against the formula in double precision. */
#ifndef CHECK_H
#define CHECK_H
#include <stddef.h>
#include <stdint.h>

#include "level.h"

/* Numbers that are the same in every run and on every processor. */
double drawn(double low, double high);
void draw_floats(float *to, ptrdiff_t count, double low, double high);
void draw_bytes(int8_t *to, ptrdiff_t count, int low, int high);

/* Memory of exactly that size; the program ends where there is none. */
void *allocated(ptrdiff_t count, size_t size);

/* The largest difference between `given` and `expected` over the largest of `expected`; infinite where
 * a number is not finite. */
double difference(const float *given, const double *expected, ptrdiff_t count);

/* The largest difference over all cases of a kernel. */
double check_decode(const DecodeKernel *kernel);
double check_linear(const LinearKernel *kernel);
double check_norm(const NormKernel *kernel);
double check_attention(const AttentionKernel *kernel);
double check_attention_bytes(const AttentionKernel *kernel); /* 0 where scores are none of bytes */
double check_vision(const VisionKernel *kernel);
#endif
