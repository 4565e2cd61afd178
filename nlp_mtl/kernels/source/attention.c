#include "vectors.h"

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
        for (int64_t i = 0, rows; i < m; i += rows) {
            rows = m - i <= TALL ? m - i : m - i < 2 * TALL ? (m - i + 1) / 2 : TALL; /* no thin tile is left over */
#define TILE(r)                                                                                                    \
    case r:                                                                                                        \
        if (one) tile(r, 1, a + i * row, row, step, b + j, ldb, c + i * ldc + j, ldc, depth, add);                 \
        else tile(r, BROAD, a + i * row, row, step, b + j, ldb, c + i * ldc + j, ldc, depth, add);                 \
        break;
            switch (rows) {
                TILE(1) TILE(2) TILE(3) TILE(4)
#if TALL > 4
                TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
#endif
            }
        }
    }
}

INLINE void take_rows(int kind, const void *from, ptrdiff_t stride, int64_t count, int64_t size, int64_t lead,
                      float factor, float *to) {
    for (int64_t t = 0; t < count; t++) {
        int64_t c = 0;
        for (; c + W <= size; c += W) put(0, to, t * lead + c, get(kind, from, t * stride + c) * factor);
        if (c < size) put(0, to, t * lead + c, get_some(kind, from, t * stride + c, (int)(size - c)) * factor);
    }
}

static void take(int64_t kind, const void *from, ptrdiff_t stride, int64_t count, int64_t size, int64_t lead, float factor,
                 float *to) {
    if (kind) take_rows(1, from, stride, count, size, lead, factor, to);
    else take_rows(0, from, stride, count, size, lead, factor, to);
}

/* [count, lead] to [lead, wide], zeros beyond `count` */
static void turn(const float *from, int64_t count, int64_t lead, float *to, int64_t wide) {
#ifdef __AVX512F__
    vf x[W]; /* a square is turned by exchanging halves, quarters, … of its rows */
    for (int64_t t = 0; t < wide; t += W)
        for (int64_t c = 0; c < lead; c += W) {
            for (int i = 0; i < W; i++) x[i] = t + i < count ? get(0, from, (t + i) * lead + c) : all(0);
#pragma GCC unroll 4
            for (uint32_t d = W / 2; d > 0; d /= 2) {
                vu upper = (LANES & d) * (W / d), one = (LANES & ~d) + upper, other = (LANES | d) + upper;
#pragma GCC unroll 16
                for (uint32_t i = 0; i < W; i++)
                    if (!(i & d)) {
                        __m512 a = (__m512)x[i], b = (__m512)x[i + d];
                        x[i] = (vf)_mm512_permutex2var_ps(a, (__m512i)one, b);
                        x[i + d] = (vf)_mm512_permutex2var_ps(a, (__m512i)other, b);
                    }
            }
            for (int i = 0; i < W; i++) put(0, to, (c + i) * wide + t, x[i]);
        }
#else
    for (int64_t c = 0; c < lead; c++) {
        for (int64_t t = 0; t < count; t++) to[c * wide + t] = from[t * lead + c];
        memset(to + c * wide + count, 0, (wide - count) * sizeof(float));
    }
#endif
}

INLINE void give_rows(int kind, const float *from, int64_t lead, int64_t count, int64_t size, float factor, void *to,
                      ptrdiff_t stride) {
    for (int64_t t = 0; t < count; t++) {
        int64_t c = 0;
        for (; c + W <= size; c += W) put(kind, to, t * stride + c, get(0, from, t * lead + c) * factor);
        if (c < size) put_some(kind, to, t * stride + c, get(0, from, t * lead + c) * factor, (int)(size - c));
    }
}

static void give(int64_t kind, const float *from, int64_t lead, int64_t count, int64_t size, float factor, void *to,
                 ptrdiff_t stride) {
    if (kind) give_rows(1, from, lead, count, size, factor, to, stride);
    else give_rows(0, from, lead, count, size, factor, to, stride);
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
            turn(keys, length, lead, turned, UP(length));
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
                        x = pick(x == all(-INFINITY), all(0), exponential(kind, x - top));
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
            turn(keys, length, lead, turned_keys, UP(length));
            turn(values, length, lead, turned_values, UP(length));
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
                        vf x = exponential(kind, get(0, p, c) - log);
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
