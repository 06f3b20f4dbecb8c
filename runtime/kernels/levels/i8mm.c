/* Arm with matrix products of int8, Jetson Thor's Neoverse V3AE among them. */
#define LEVEL level_i8mm
#define LEVEL_I8MM
#define LEVEL_GCC 10
#define LEVEL_CLANG 16
#define LEVEL_NAME "i8mm"
#define LEVEL_TARGET "arch=armv8.2-a+dotprod+i8mm"
#include "level.inc"
