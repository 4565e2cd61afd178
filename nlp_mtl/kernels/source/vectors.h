/* What a transformer layer does between its matrix products, each in one pass over memory, on the CPU.

   Plain C with the vector extension of gcc and clang, so that one source serves AVX-512, AVX2 and NEON. Numbers come
   as fp32 (kind 0) or bf16 (kind 1) and are computed in fp32. Dropout masks are functions of (seed, position): nothing
   is stored for the backward pass, and the number of threads changes nothing. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_max_threads(void) { return 1; }
static int omp_get_thread_num(void) { return 0; }
static int omp_get_num_threads(void) { return 1; }
#endif

#if defined(__AVX512F__) /* numbers in a vector, and as many sums of products as fit into registers */
#define W 16
#define FIRST {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#define TALL 12
#else
#if defined(__AVX2__)
#define W 8
#define FIRST {0, 1, 2, 3, 4, 5, 6, 7}
#else
#define W 4
#define FIRST {0, 1, 2, 3}
#endif
#define TALL 4
#endif
#define BROAD 2
#define INLINE static inline __attribute__((always_inline))
#define UP(n) (((n) + W - 1) / W * W)

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef uint16_t vh __attribute__((vector_size(2 * W)));

static const vu LANES = FIRST;

/* ---- vectors; where compilers make more of it than the machine needs, AVX-512 is spelled out ---- */

INLINE vf all(float x) { return (vf){} + x; }

#ifdef __AVX512F__
INLINE vf pick(vi where, vf yes, vf no) {
    return (vf)_mm512_ternarylogic_epi32((__m512i)where, (__m512i)yes, (__m512i)no, 0xca);
}
INLINE vf larger(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); } /* a NaN in b stays */
INLINE vf widen(vh bits) { return (vf)(_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)bits), 16)); }
#else
INLINE vf pick(vi where, vf yes, vf no) { return (vf)(((vi)yes & where) | ((vi)no & ~where)); }
INLINE vf larger(vf a, vf b) { return pick(a > b, a, b); }
INLINE vf widen(vh bits) { return (vf)(__builtin_convertvector(bits, vu) << 16); }
#endif

#ifdef __AVX512F__
INLINE float sum_of(vf x) { return _mm512_reduce_add_ps((__m512)x); }
INLINE float largest_of(vf x) { return _mm512_reduce_max_ps((__m512)x); }
#else
INLINE float sum_of(vf x) {
    float s = 0;
    for (int i = 0; i < W; i++) s += x[i];
    return s;
}

INLINE float largest_of(vf x) {
    float m = x[0];
    for (int i = 1; i < W; i++) m = x[i] > m ? x[i] : m;
    return m;
}
#endif

INLINE vh narrow(vf x) { /* to the nearest bf16, ties to even */
#ifdef __AVX512BF16__
    return (vh)_mm512_cvtneps_pbh((__m512)x);
#else
    vu bits = (vu)x, nan = (vu)(x != x);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return __builtin_convertvector((bits & ~nan) | (nan & 0x7fc0), vh);
#endif
}

INLINE vf get(int kind, const void *at, ptrdiff_t i) {
    if (kind) {
        vh x;
        memcpy(&x, (const uint16_t *)at + i, sizeof x);
        return widen(x);
    }
    vf x;
    memcpy(&x, (const float *)at + i, sizeof x);
    return x;
}

INLINE void put(int kind, void *at, ptrdiff_t i, vf x) {
    if (kind) {
        vh y = narrow(x);
        memcpy((uint16_t *)at + i, &y, sizeof y);
    } else
        memcpy((float *)at + i, &x, sizeof x);
}

INLINE vf get_some(int kind, const void *at, ptrdiff_t i, int n) { /* the first n, then zeros */
    if (n >= W) return get(kind, at, i);
    char whole[W * 4] = {0};
    memcpy(whole, (const char *)at + i * (kind ? 2 : 4), n * (kind ? 2 : 4));
    return get(kind, whole, 0);
}

INLINE void put_some(int kind, void *at, ptrdiff_t i, vf x, int n) {
    if (n >= W) {
        put(kind, at, i, x);
        return;
    }
    char whole[W * 4];
    put(kind, whole, 0, x);
    memcpy((char *)at + i * (kind ? 2 : 4), whole, n * (kind ? 2 : 4));
}

/* To 2e-7 of the result; with `rough` to 5e-5, which is a fortieth of what bf16 rounds off. */
INLINE vf exponential(int rough, vf x) {
    x = larger(all(-87.0f), x); /* a NaN stays one */
    vf n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* to a whole number */
    vf r = (x - n * 0.693145752f) - n * 1.42860677e-6f;   /* ln 2 in two parts: |r| <= 0.35 */
    vf y;
    if (rough) y = r * (1.0f / 24) + 1.0f / 6;
    else {
        y = r * (1.0f / 5040) + 1.0f / 720;
        y = y * r + 1.0f / 120;
        y = y * r + 1.0f / 24;
        y = y * r + 1.0f / 6;
    }
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    return (vf)((vu)y + ((vu)__builtin_convertvector(n, vi) << 23));
}

INLINE vf inverse_of(int rough, vf x) {
#ifdef __AVX512F__
    if (rough) return (vf)_mm512_rcp14_ps((__m512)x);
#endif
    (void)rough;
    return 1.0f / x;
}

/* ---- dropout: one hash of (seed, position) for every number ---- */

typedef struct {
    uint32_t cut; /* a number is dropped where its hash is below; 0: none is */
    float scale;
    uint64_t seed;
} Drop;

INLINE vf kept(Drop d, uint64_t position) { /* 0 or the scale, for W numbers from `position` on */
    vu x = LANES + (uint32_t)position + (uint32_t)d.seed;
    uint32_t high = (uint32_t)(d.seed >> 32) + (uint32_t)(position >> 32) * 0x9e3779b9u;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15) ^ high) * 0x846ca68bu;
    x = (x ^ (x >> 16)) * 0x9e3779b1u;
    x ^= x >> 15;
    return pick((vi)(x >= d.cut), all(d.scale), all(0));
}
