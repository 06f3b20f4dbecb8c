/* Loops of multiply instructions over registers alone: what a level can do at most on a thread. */
#ifndef PEAKS_H
#define PEAKS_H
#include <stddef.h>

typedef struct {
  const char *name;
  double flop; /* of a round; two for each multiplication and its addition */
  void (*run)(ptrdiff_t rounds);
} Peak;

/* Ends with one that has no name. */
typedef Peak Peaks[6];
#endif
