/* What a transformer layer does between its matrix products, each in one pass over memory, on the CPU.

   Plain C with the vector extension of gcc and clang, so that one source serves AVX-512, AVX2 and NEON. Numbers come
   as fp32 (kind 0) or bf16 (kind 1) and are computed in fp32. Dropout masks are functions of (seed, position): nothing
   is stored for the backward pass, and the number of threads changes nothing. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_max_threads(void) { return 1; }
static int omp_get_thread_num(void) { return 0; }
#endif

#if defined(__AVX512F__) /* numbers in a vector, and as many sums of products as fit into registers */
#define W 16
#define FIRST {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#define TALL 8
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

/* ---- vectors ---- */

INLINE vf all(float x) { return (vf){} + x; }
INLINE vf pick(vi where, vf yes, vf no) { return (vf)(((vi)yes & where) | ((vi)no & ~where)); }
INLINE vf larger(vf a, vf b) { return pick(a > b, a, b); }

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

INLINE vf widen(vh bits) { return (vf)(__builtin_convertvector(bits, vu) << 16); }

INLINE vh narrow(vf x) { /* to the nearest bf16, ties to even */
    vu bits = (vu)x, nan = (vu)(x != x);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return __builtin_convertvector((bits & ~nan) | (nan & 0x7fc0), vh);
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

INLINE vf exponential(vf x) {
    x = larger(all(-87.0f), x); /* a NaN stays one */
    vf n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* to a whole number */
    vf r = (x - n * 0.693145752f) - n * 1.42860677e-6f;   /* ln 2 in two parts: |r| <= 0.35 */
    vf y = all(1.0f / 5040);
    y = y * r + 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    return (vf)((vu)y + ((vu)__builtin_convertvector(n, vi) << 23));
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

/* ---- GELU with the bias before it: a = (x + b) Phi(x + b); Phi by Abramowitz & Stegun (1964), 7.1.26 ---- */

INLINE vf normal_cdf(vf x, vf bell) { /* bell = exp(-x x / 2); absolute error below 1e-7 */
    vf z = (vf)((vi)x & 0x7fffffff) * 0.70710678f;
    vf t = 1.0f / (1.0f + 0.3275911f * z);
    vf tail = 0.5f * bell * t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    return pick(x < all(0), tail, 1.0f - tail);
}

void gelu_forward(int64_t kind, int64_t rows, int64_t width, const void *x, const float *bias, void *out) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c += W) {
            int n = (int)(width - c);
            vf v = get_some(kind, x, r * width + c, n);
            if (bias) v += get_some(0, bias, c, n);
            put_some(kind, out, r * width + c, v * normal_cdf(v, exponential(-0.5f * v * v)), n);
        }
}

/* sums: [threads, width], 0 on entry; the bias's gradient, by thread */
void gelu_backward(int64_t kind, int64_t rows, int64_t width, const void *x, const float *bias, const void *gradient,
                   void *dx, float *sums) {
#pragma omp parallel
    {
        float *own = bias ? sums + omp_get_thread_num() * width : 0;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < width; c += W) {
                int n = (int)(width - c);
                vf v = get_some(kind, x, r * width + c, n);
                if (bias) v += get_some(0, bias, c, n);
                vf bell = exponential(-0.5f * v * v);
                vf d = get_some(kind, gradient, r * width + c, n) * (normal_cdf(v, bell) + v * bell * 0.39894228f);
                put_some(kind, dx, r * width + c, d, n);
                if (own) put_some(0, own, c, get_some(0, own, c, n) + d, n);
            }
    }
}

/* ---- y = LayerNorm(residual + dropout(x + bias)); the sum is written to `sum`, mean and 1/deviation to `facts` ---- */

void norm_forward(int64_t kind, int64_t rows, int64_t width, const void *x, const float *bias, const float *residual,
                  const float *weight, const float *shift, double eps, int64_t cut, double scale, uint64_t seed,
                  float *sum, float *facts, float *y, void *half) {
    Drop d = {(uint32_t)cut, (float)scale, seed};
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        ptrdiff_t at = r * width;
        vf total = all(0), squares = all(0);
        for (int64_t c = 0; c < width; c += W) {
            int n = (int)(width - c);
            vf v = get_some(kind, x, at + c, n);
            if (bias) v += get_some(0, bias, c, n);
            if (cut) v *= kept(d, at + c);
            v += get_some(0, residual, at + c, n);
            put_some(0, sum, at + c, v, n);
            if (n < W) v = pick((vi)(LANES < (uint32_t)n), v, all(0));
            total += v;
        }
        float mean = sum_of(total) / width;
        for (int64_t c = 0; c < width; c += W) {
            int n = (int)(width - c);
            vf v = get_some(0, sum, at + c, n) - mean;
            if (n < W) v = pick((vi)(LANES < (uint32_t)n), v, all(0));
            squares += v * v;
        }
        float inverse = 1 / sqrtf(sum_of(squares) / width + (float)eps);
        facts[2 * r] = mean, facts[2 * r + 1] = inverse;
        for (int64_t c = 0; c < width; c += W) {
            int n = (int)(width - c);
            vf v = (get_some(0, sum, at + c, n) - mean) * inverse;
            v = v * get_some(0, weight, c, n) + get_some(0, shift, c, n);
            put_some(0, y, at + c, v, n);
            if (half) put_some(1, half, at + c, v, n);
        }
    }
}

/* sums: [threads, 3, width], 0 on entry: gradients of weight, shift and bias; gradient or half (of y's copy) may be 0 */
void norm_backward(int64_t kind, int64_t rows, int64_t width, const float *gradient, const void *half,
                   const float *sum, const float *facts, const float *weight, int64_t cut, double scale,
                   uint64_t seed, void *dx, float *dresidual, float *sums) {
    Drop d = {(uint32_t)cut, (float)scale, seed};
#pragma omp parallel
    {
        float *dweight = sums + omp_get_thread_num() * 3 * width, *dshift = dweight + width, *dbias = dshift + width;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            ptrdiff_t at = r * width;
            float mean = facts[2 * r], inverse = facts[2 * r + 1];
            vf plain = all(0), along = all(0);
            for (int64_t c = 0; c < width; c += W) {
                int n = (int)(width - c);
                vf g = gradient ? get_some(0, gradient, at + c, n) : all(0);
                if (half) g += get_some(1, half, at + c, n);
                vf norm = (get_some(0, sum, at + c, n) - mean) * inverse;
                put_some(0, dweight, c, get_some(0, dweight, c, n) + g * norm, n);
                put_some(0, dshift, c, get_some(0, dshift, c, n) + g, n);
                g *= get_some(0, weight, c, n);
                plain += g;
                along += g * norm; /* beyond the end g is 0 */
            }
            float average = sum_of(plain) / width, slope = sum_of(along) / width;
            for (int64_t c = 0; c < width; c += W) {
                int n = (int)(width - c);
                vf g = gradient ? get_some(0, gradient, at + c, n) : all(0);
                if (half) g += get_some(1, half, at + c, n);
                vf norm = (get_some(0, sum, at + c, n) - mean) * inverse;
                vf v = (g * get_some(0, weight, c, n) - average - norm * slope) * inverse;
                put_some(0, dresidual, at + c, v, n);
                if (cut) v *= kept(d, at + c);
                put_some(kind, dx, at + c, v, n);
                put_some(0, dbias, c, get_some(0, dbias, c, n) + v, n);
            }
        }
    }
}

/* ---- attention within each sequence of a packed batch ---- */

INLINE void tile(int rows, int vectors, const float *a, ptrdiff_t row, ptrdiff_t step, const float *b, ptrdiff_t ldb,
                 float *c, ptrdiff_t ldc, int64_t depth, int add) {
    vf sums[TALL][BROAD];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sums[r][v] = add ? get(0, c, r * ldc + v * W) : all(0);
    for (int64_t k = 0; k < depth; k++) {
        vf right[BROAD];
        for (int v = 0; v < vectors; v++) right[v] = get(0, b, k * ldb + v * W);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++) sums[r][v] += a[r * row + k * step] * right[v];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) put(0, c, r * ldc + v * W, sums[r][v]);
}

/* c [m, n] (+)= a [m, depth] b [depth, n]; n is a multiple of W; a is read with any strides */
static void product(int64_t m, int64_t n, int64_t depth, const float *a, ptrdiff_t row, ptrdiff_t step, const float *b,
                    ptrdiff_t ldb, float *c, ptrdiff_t ldc, int add) {
    for (int64_t j = 0; j < n; j += BROAD * W) {
        int one = n - j < BROAD * W;
        int64_t i = 0;
#define TILES(rows)                                                                                                \
    for (; i + (rows) <= m; i += (rows))                                                                           \
        if (one) tile(rows, 1, a + i * row, row, step, b + j, ldb, c + i * ldc + j, ldc, depth, add);              \
        else tile(rows, BROAD, a + i * row, row, step, b + j, ldb, c + i * ldc + j, ldc, depth, add);
        TILES(TALL)
        TILES(2)
        TILES(1)
    }
}

/* [count, size] of a head to fp32 rows of `lead` numbers, zeros beyond `size` */
static void take(int kind, const void *from, ptrdiff_t stride, int64_t count, int64_t size, int64_t lead, float factor,
                 float *to) {
    for (int64_t t = 0; t < count; t++)
        for (int64_t c = 0; c < lead; c += W)
            put(0, to, t * lead + c, get_some(kind, from, t * stride + c, size > c ? (int)(size - c) : 0) * factor);
}

static void turn(const float *from, int64_t count, int64_t size, int64_t lead, float *to, int64_t wide) {
    for (int64_t c = 0; c < size; c++) {
        for (int64_t t = 0; t < count; t++) to[c * wide + t] = from[t * lead + c];
        memset(to + c * wide + count, 0, (wide - count) * sizeof(float));
    }
}

static void give(int kind, const float *from, int64_t lead, int64_t count, int64_t size, float factor, void *to,
                 ptrdiff_t stride) {
    for (int64_t t = 0; t < count; t++)
        for (int64_t c = 0; c < size; c += W)
            put_some(kind, to, t * stride + c, get(0, from, t * lead + c) * factor, (int)(size - c));
}

#define BLOCK 32 /* queries at a time */

typedef struct {
    int64_t low, high; /* keys that some query of the block sees: low is a multiple of W */
} Span;

INLINE Span span_of(int64_t first, int64_t last, int64_t length, int causal, int64_t window) {
    Span s = {0, length};
    if (window > 0 && first - window + 1 > 0) s.low = (first - window + 1) / W * W;
    if (causal && last + 1 < length) s.high = last + 1;
    else if (window > 0 && last + window < length) s.high = last + window;
    return s;
}

INLINE vi seen(int64_t query, int64_t key, int64_t length, int causal, int64_t window) {
    vi place = (vi)LANES + (int32_t)key;
    vi yes = place < (int32_t)length;
    if (causal) yes &= place <= (int32_t)query;
    if (window > 0) yes &= (place > (int32_t)(query - window)) & (place < (int32_t)(query + window));
    return yes;
}

/* q, k, v: token t, head h at t * stride + h * size; out [tokens, heads, size]; logs [tokens, heads]. `order` are the
   sequences, the longest first. Gradients: token t, head h at t * ds + h * size. Masks are told apart by the query's place in [tokens, heads] and the key. */
int64_t attention_forward(int64_t kind, int64_t sequences, const int64_t *order, const int64_t *offsets, int64_t heads,
                          int64_t size, const void *q, int64_t qs, const void *k, int64_t ks, const void *v,
                          int64_t vs, double factor, int64_t causal, int64_t window, int64_t cut, double scale,
                          uint64_t seed, void *out, float *logs) {
    Drop d = {(uint32_t)cut, (float)scale, seed};
    int64_t lead = UP(size), wide = 0, failed = 0, bytes = kind ? 2 : 4;
    for (int64_t i = 0; i < sequences; i++)
        if (UP(offsets[i + 1] - offsets[i]) > wide) wide = UP(offsets[i + 1] - offsets[i]);
#pragma omp parallel reduction(| : failed)
    {
        float *room = aligned_alloc(64, sizeof(float) * (wide * lead * 3 + BLOCK * (wide + 2 * lead)));
        float *turned = room, *values = turned + wide * lead, *keys = values + wide * lead;
        float *ask = keys + wide * lead, *found = ask + BLOCK * lead, *scores = found + BLOCK * lead;
        failed |= !room;
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < sequences * heads; unit++) {
            if (!room) continue;
            int64_t i = order[unit / heads], h = unit % heads, begin = offsets[i], length = offsets[i + 1] - begin;
            take(kind, (const char *)k + (begin * ks + h * size) * bytes, ks, length, size, lead, 1, keys);
            take(kind, (const char *)v + (begin * vs + h * size) * bytes, vs, length, size, lead, 1, values);
            turn(keys, length, size, lead, turned, UP(length));
            for (int64_t first = 0; first < length; first += BLOCK) {
                int64_t count = length - first < BLOCK ? length - first : BLOCK;
                Span s = span_of(first, first + count - 1, length, causal, window);
                int64_t n = UP(s.high - s.low);
                take(kind, (const char *)q + ((begin + first) * qs + h * size) * bytes, qs, count, size, lead, (float)factor, ask);
                product(count, n, size, ask, lead, 1, turned + s.low, UP(length), scores, n, 0);
                for (int64_t r = 0; r < count; r++) {
                    float *line = scores + r * n;
                    vf most = all(-INFINITY), total = all(0);
                    for (int64_t c = 0; c < n; c += W) {
                        vf x = pick(seen(first + r, s.low + c, length, causal, window), get(0, line, c), all(-INFINITY));
                        put(0, line, c, x);
                        most = larger(most, x);
                    }
                    float top = largest_of(most);
                    uint64_t place = (uint64_t)((begin + first + r) * heads + h) << 20;
                    for (int64_t c = 0; c < n; c += W) {
                        vf x = get(0, line, c);
                        x = pick(x == all(-INFINITY), all(0), exponential(x - top));
                        total += x;
                        put(0, line, c, cut ? x * kept(d, place + s.low + c) : x);
                    }
                    float sum = sum_of(total);
                    logs[(begin + first + r) * heads + h] = top + logf(sum);
                    for (int64_t c = 0; c < n; c += W) put(0, line, c, get(0, line, c) / sum);
                }
                int64_t whole = s.high - s.low;
                product(count, lead, whole, scores, n, 1, values + s.low * lead, lead, found, lead, 0);
                give(kind, found, lead, count, size, 1, (char *)out + ((begin + first) * heads + h) * size * bytes, heads * size);
            }
        }
        free(room);
    }
    return failed;
}

int64_t attention_backward(int64_t kind, int64_t sequences, const int64_t *order, const int64_t *offsets, int64_t heads,
                           int64_t size, const void *q, int64_t qs, const void *k, int64_t ks, const void *v,
                           int64_t vs, double factor, int64_t causal, int64_t window, int64_t cut, double scale,
                           uint64_t seed, const float *logs, const void *gradient, void *dq, void *dk, void *dv,
                           int64_t ds) {
    Drop d = {(uint32_t)cut, (float)scale, seed};
    int64_t lead = UP(size), wide = 0, failed = 0, bytes = kind ? 2 : 4, row = heads * size;
    for (int64_t i = 0; i < sequences; i++)
        if (UP(offsets[i + 1] - offsets[i]) > wide) wide = UP(offsets[i + 1] - offsets[i]);
#pragma omp parallel reduction(| : failed)
    {
        float *room = aligned_alloc(64, sizeof(float) * (wide * lead * 6 + BLOCK * (3 * wide + 3 * lead)));
        float *keys = room, *turned_keys = keys + wide * lead, *values = turned_keys + wide * lead;
        float *turned_values = values + wide * lead, *dkeys = turned_values + wide * lead;
        float *dvalues = dkeys + wide * lead, *ask = dvalues + wide * lead, *given = ask + BLOCK * lead;
        float *dask = given + BLOCK * lead, *weights = dask + BLOCK * lead, *dropped = weights + BLOCK * wide;
        float *slopes = dropped + BLOCK * wide;
        failed |= !room;
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < sequences * heads; unit++) {
            if (!room) continue;
            int64_t i = order[unit / heads], h = unit % heads, begin = offsets[i], length = offsets[i + 1] - begin;
            take(kind, (const char *)k + (begin * ks + h * size) * bytes, ks, length, size, lead, 1, keys);
            take(kind, (const char *)v + (begin * vs + h * size) * bytes, vs, length, size, lead, 1, values);
            turn(keys, length, size, lead, turned_keys, UP(length));
            turn(values, length, size, lead, turned_values, UP(length));
            memset(dkeys, 0, sizeof(float) * length * lead);
            memset(dvalues, 0, sizeof(float) * length * lead);
            for (int64_t first = 0; first < length; first += BLOCK) {
                int64_t count = length - first < BLOCK ? length - first : BLOCK;
                Span s = span_of(first, first + count - 1, length, causal, window);
                int64_t n = UP(s.high - s.low), whole = s.high - s.low, from = (begin + first) * heads + h;
                take(kind, (const char *)q + ((begin + first) * qs + h * size) * bytes, qs, count, size, lead, (float)factor, ask);
                take(kind, (const char *)gradient + from * size * bytes, row, count, size, lead, 1, given);
                product(count, n, size, ask, lead, 1, turned_keys + s.low, UP(length), weights, n, 0);
                product(count, n, size, given, lead, 1, turned_values + s.low, UP(length), slopes, n, 0);
                for (int64_t r = 0; r < count; r++) {
                    float *p = weights + r * n, *pd = dropped + r * n, *g = slopes + r * n;
                    float log = logs[from + r * heads];
                    uint64_t place = (uint64_t)(from + r * heads) << 20;
                    vf along = all(0);
                    for (int64_t c = 0; c < n; c += W) {
                        vf x = exponential(get(0, p, c) - log);
                        x = pick(seen(first + r, s.low + c, length, causal, window), x, all(0));
                        vf mask = cut ? kept(d, place + s.low + c) : all(1), slope = get(0, g, c) * mask;
                        put(0, p, c, x);
                        put(0, pd, c, x * mask);
                        put(0, g, c, slope);
                        along += x * slope;
                    }
                    float inner = sum_of(along);
                    for (int64_t c = 0; c < n; c += W) put(0, g, c, get(0, p, c) * (get(0, g, c) - inner));
                }
                product(whole, lead, count, dropped, 1, n, given, lead, dvalues + s.low * lead, lead, 1);
                product(whole, lead, count, slopes, 1, n, ask, lead, dkeys + s.low * lead, lead, 1);
                product(count, lead, whole, slopes, n, 1, keys + s.low * lead, lead, dask, lead, 0);
                give(kind, dask, lead, count, size, (float)factor, (char *)dq + ((begin + first) * ds + h * size) * bytes, ds);
            }
            give(kind, dkeys, lead, length, size, 1, (char *)dk + (begin * ds + h * size) * bytes, ds);
            give(kind, dvalues, lead, length, size, 1, (char *)dv + (begin * ds + h * size) * bytes, ds);
        }
        free(room);
    }
    return failed;
}

int64_t threads(void) { return omp_get_max_threads(); }
