/* Levels: instruction sets that the kernels are compiled for. One of them is in use. */
#ifndef LEVEL_H
#define LEVEL_H
#include "attention_kernel.h"
#include "decode_kernel.h"
#include "vision_kernel.h"
#include "linear_kernel.h"
#include "norm_kernel.h"
#include "peaks.h"

typedef struct {
  const char *name;
  const DecodeKernel *decode; /* NULL where this library was not compiled for the level's processors */
  const AttentionKernel *attention;
  const VisionKernel *vision;
  const LinearKernel *linear;
  const NormKernel *norm;
  const Peaks *peaks;
} Level;

extern const Level level_amx, level_avx512, level_avx_vnni, level_avx2, level_i8mm, level_dotprod;

/* Every level, the fastest first, then NULL. */
extern const Level *const all_levels[];

/* Whether this processor and its operating system say that they have the level's instructions. */
int level_is_claimed(const Level *level);

/* The level that operators compute with; NULL, as at first, where there is none. Chosen once, before
 * any operator is made: not for two threads. */
const Level *level_in_use(void);
void use_level(const Level *level);
#endif
