/* Constants that the kernels of attention share. */
#ifndef SOFTMAX_H
#define SOFTMAX_H

#define LOG2_E 1.4426950408889634f
#define HIDDEN -1e30f /* added to a score, or less: it has no weight beside one that is seen */
#endif
