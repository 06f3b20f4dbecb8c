/* Arm from Cortex-A55 and A76 on, Jetson Orin's A78AE among them: dot products of int8. */
#define LEVEL level_dotprod
#define LEVEL_DOTPROD
#define LEVEL_GCC 9
#define LEVEL_CLANG 16
#define LEVEL_NAME "dotprod"
#define LEVEL_TARGET "arch=armv8.2-a+dotprod"
#include "level.inc"
