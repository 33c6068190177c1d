/* KERNELPRUNE_API marks what a shared library shows; all else is hidden. C and C++. */
#ifndef KERNELPRUNE_VISIBILITY_H_
#define KERNELPRUNE_VISIBILITY_H_

#define KERNELPRUNE_API __attribute__((visibility("default")))

#endif
