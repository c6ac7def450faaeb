/* What the kernels share: conversions, inner products, and the order of the best. */

#ifndef PERIMETRY_COMMON_H
#define PERIMETRY_COMMON_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512BW__
#include <immintrin.h>
#endif

#define EXPORT __attribute__((visibility("default")))
#define BLOCK 256
#define LANES 32
#define SPAN 64

typedef int64_t i64;

static inline float from_bf16(int16_t bits) {
    uint32_t wide = (uint32_t)(uint16_t)bits << 16;
    float out;
    memcpy(&out, &wide, 4);
    return out;
}

static inline uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

static inline float dot(const float *a, const float *b, i64 d) {
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (i64 i = 0; i < d; i++) s += a[i] * b[i];
    return s;
}

/* Four products with one vector at once: a single chain of additions would wait for itself. */
static inline void dot4(const float *x, const float *a, const float *b, const float *c, const float *e, i64 d, float *out) {
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (i64 i = 0; i < d; i++) {
        s0 += x[i] * a[i];
        s1 += x[i] * b[i];
        s2 += x[i] * c[i];
        s3 += x[i] * e[i];
    }
    out[0] = s0, out[1] = s1, out[2] = s2, out[3] = s3;
}

static inline void fetch(const float *row, i64 d) {
    for (i64 i = 0; i < d; i += 16) __builtin_prefetch(row + i, 0, 2);
}

#define DEFINE_DOTS(NAME, INDEX)                                                                                        \
    static inline void NAME(const float *x, const float *W, const INDEX *ids, i64 count, i64 d, float *out) {                  \
        i64 j = 0;                                                                                                      \
        for (; j + 4 <= count; j += 4) {                                                                                \
            for (i64 n = j + 4; n < j + 8 && n < count; n++) fetch(W + (i64)ids[n] * d, d);                             \
            dot4(x, W + (i64)ids[j] * d, W + (i64)ids[j + 1] * d, W + (i64)ids[j + 2] * d, W + (i64)ids[j + 3] * d, d,  \
                 out + j);                                                                                              \
        }                                                                                                               \
        for (; j < count; j++) out[j] = dot(x, W + (i64)ids[j] * d, d);                                                 \
    }
DEFINE_DOTS(dots32, int32_t)
DEFINE_DOTS(dots64, i64)

static inline void axpy(float *out, float a, const float *x, i64 d) {
#pragma omp simd
    for (i64 i = 0; i < d; i++) out[i] += a * x[i];
}

static inline void axpy4(float *out, const float *a, const float *w, const float *x, const float *y, const float *z, i64 d) {
    float a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
#pragma omp simd
    for (i64 i = 0; i < d; i++) out[i] += a0 * w[i] + a1 * x[i] + a2 * y[i] + a3 * z[i];
}

static inline void gather(float *out, const float *W, const i64 *ids, const float *values, i64 count, i64 d) {
    i64 j = 0;
    memset(out, 0, d * sizeof(float));
    for (; j + 4 <= count; j += 4) {
        for (i64 n = j + 4; n < j + 8 && n < count; n++) fetch(W + ids[n] * d, d);
        axpy4(out, values + j, W + ids[j] * d, W + ids[j + 1] * d, W + ids[j + 2] * d, W + ids[j + 3] * d, d);
    }
    for (; j < count; j++) axpy(out, values[j], W + ids[j] * d, d);
}

/* Takes candidate j into the order of the best k, if it is positive and belongs there; equal ones go by column. */
static inline i64 keep_best(const float *exact, const int32_t *ids, int32_t *order, i64 kept, i64 k, int32_t j) {
    if (!(exact[j] > 0)) return kept;
    i64 at = kept < k ? kept : k;
    while (at > 0 && (exact[order[at - 1]] < exact[j] || (exact[order[at - 1]] == exact[j] && ids[order[at - 1]] > ids[j]))) at--;
    if (at >= k) return kept;
    if (kept < k) kept++;
    for (i64 s = kept - 1; s > at; s--) order[s] = order[s - 1];
    order[at] = j;
    return kept;
}

#endif
