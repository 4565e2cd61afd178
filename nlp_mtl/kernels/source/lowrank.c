#include "vectors.h"

/* ---- LoRA's products where each token has the A and B of its own task: out += scale B A x ----

   runs: [count, 3], first token, token after the last, and whose they are; they do not overlap, and tokens that none
   covers are left alone. A: a table of addresses, one for each owner, of fp32 numbers [rank, in]; B: of [out, rank]. */

typedef struct {
    int64_t begin, end, owner;
} Run;

INLINE void down_tile(int kind, int tall, int broad, int64_t width, const char *x, int64_t step, const float *rows,
                      float *low, int64_t rank) { /* low[t, j] = x[t] . rows[j] */
    vf sums[4][4] = {{{0}}};
    int64_t c = 0;
    for (; c + W <= width; c += W) {
        vf own[4];
        for (int j = 0; j < broad; j++) own[j] = get(0, rows, j * width + c);
        for (int t = 0; t < tall; t++) {
            vf v = get(kind, x + t * step, c);
            for (int j = 0; j < broad; j++) sums[t][j] += v * own[j];
        }
    }
    if (c < width) {
        int n = (int)(width - c);
        for (int t = 0; t < tall; t++) {
            vf v = get_some(kind, x + t * step, c, n);
            for (int j = 0; j < broad; j++) sums[t][j] += v * get_some(0, rows, j * width + c, n);
        }
    }
    for (int t = 0; t < tall; t++)
        for (int j = 0; j < broad; j++) low[t * rank + j] = sum_of(sums[t][j]);
}

INLINE void down_run(int kind, Run run, int64_t rank, int64_t width, const char *x, int64_t step, const float *rows,
                     float *low) {
    for (int64_t t = run.begin; t < run.end; t += 4)
        for (int64_t j = 0; j < rank; j += 4) {
            int tall = run.end - t < 4 ? (int)(run.end - t) : 4, broad = rank - j < 4 ? (int)(rank - j) : 4;
            const char *here = x + t * step;
            const float *own = rows + j * width;
            float *to = low + t * rank + j;
            if (tall == 4 && broad == 4) down_tile(kind, 4, 4, width, here, step, own, to, rank);
            else down_tile(kind, tall, broad, width, here, step, own, to, rank);
        }
}

INLINE void up_tile(int kind, int tall, int64_t rank, int64_t width, const float *low, const float *rows, float scale,
                    char *out, int64_t step, int64_t c, int n) { /* out[t] += scale low[t] . rows, 2 W columns */
    vf sums[4][2] = {{{0}}};
    for (int64_t j = 0; j < rank; j++) {
        vf left = get_some(0, rows, j * width + c, n), right = n > W ? get_some(0, rows, j * width + c + W, n - W) : all(0);
        for (int t = 0; t < tall; t++) {
            sums[t][0] += low[t * rank + j] * left;
            sums[t][1] += low[t * rank + j] * right;
        }
    }
    for (int t = 0; t < tall; t++)
        for (int b = 0; b * W < n; b++) {
            vf before = get_some(kind, out + t * step, c + b * W, n - b * W);
            put_some(kind, out + t * step, c + b * W, before + scale * sums[t][b], n - b * W);
        }
}

INLINE void up_run(int kind, Run run, int64_t rank, int64_t width, const float *low, const float *rows, float scale,
                   char *out, int64_t step) {
    for (int64_t t = run.begin; t < run.end; t += 4) {
        int tall = run.end - t < 4 ? (int)(run.end - t) : 4;
        for (int64_t c = 0; c < width; c += 2 * W) {
            int n = width - c < 2 * W ? (int)(width - c) : 2 * W;
            const float *own = low + t * rank;
            if (tall == 4 && n == 2 * W) up_tile(kind, 4, rank, width, own, rows, scale, out + t * step, step, c, 2 * W);
            else up_tile(kind, tall, rank, width, own, rows, scale, out + t * step, step, c, n);
        }
    }
}

INLINE void outer_tile(int kind, int broad, Run run, int64_t rank, const float *low, const char *x, int64_t step,
                       float scale, float *sums, int64_t width, int64_t c, int n) { /* 2 W columns */
    vf own[8][2] = {{{0}}};
    for (int64_t t = run.begin; t < run.end; t++) {
        vf left = get_some(kind, x + t * step, c, n), right = n > W ? get_some(kind, x + t * step, c + W, n - W) : all(0);
        for (int j = 0; j < broad; j++) {
            own[j][0] += low[t * rank + j] * left;
            own[j][1] += low[t * rank + j] * right;
        }
    }
    for (int j = 0; j < broad; j++)
        for (int b = 0; b * W < n; b++) {
            vf before = get_some(0, sums, j * width + c + b * W, n - b * W);
            put_some(0, sums, j * width + c + b * W, before + scale * own[j][b], n - b * W);
        }
}

/* sums[owner, j] += scale (sum over its tokens of low[t, j] x[t]), for columns from c on: whoever has them has them for
   all tokens, so the order of adding does not hang on the number of threads */
INLINE void outer(int kind, int64_t count, const Run *runs, int64_t rank, int64_t width, const float *low,
                  const char *x, int64_t step, float scale, float *sums, int64_t c) {
    int n = width - c < 2 * W ? (int)(width - c) : 2 * W;
    for (int64_t r = 0; r < count; r++)
        for (int64_t j = 0; j < rank; j += 8) {
            int broad = rank - j < 8 ? (int)(rank - j) : 8;
            float *to = sums + (runs[r].owner * rank + j) * width;
            if (n == 2 * W && broad == 8) outer_tile(kind, 8, runs[r], rank, low + j, x, step, scale, to, width, c, 2 * W);
            else outer_tile(kind, broad, runs[r], rank, low + j, x, step, scale, to, width, c, n);
        }
}

INLINE void turn(int64_t rows, int64_t columns, const float *from, float *to) { /* to[c, r] = from[r, c] */
    for (int64_t c = 0; c < columns; c++)
        for (int64_t r = 0; r < rows; r++) to[c * rows + r] = from[r * columns + c];
}

/* turned: [owners, rank, out], B turned over; low: [tokens, rank], A x; both are kept for the backward pass.
   Strides: numbers from one token to the next. */
void lowrank_forward(int64_t kind, int64_t count, const Run *runs, int64_t owners, int64_t rank, int64_t in,
                     int64_t out, const float *const *a, const float *const *b, double scale, const char *x,
                     int64_t x_stride, char *y, int64_t y_stride, float *turned, float *low) {
    int64_t size = kind ? 2 : 4, x_step = x_stride * size, y_step = y_stride * size;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t k = 0; k < owners; k++) turn(out, rank, b[k], turned + k * rank * out);
#pragma omp for schedule(dynamic, 1)
        for (int64_t r = 0; r < count; r++) {
            const float *own = turned + runs[r].owner * rank * out;
            if (kind) {
                down_run(1, runs[r], rank, in, x, x_step, a[runs[r].owner], low);
                up_run(1, runs[r], rank, out, low, own, (float)scale, y, y_step);
            } else {
                down_run(0, runs[r], rank, in, x, x_step, a[runs[r].owner], low);
                up_run(0, runs[r], rank, out, low, own, (float)scale, y, y_step);
            }
        }
    }
}

/* apart: whether owners have a B each, or all the first one. slope: [tokens, rank], to work with; dx: 0 if it is not wanted, else added to; da [owners, rank, in] and work
   [owners, rank, out] are 0 on entry; db: [owners, out, rank] */
void lowrank_backward(int64_t kind, int64_t count, const Run *runs, int64_t owners, int64_t rank, int64_t in,
                      int64_t out, const float *const *a, double scale, const char *x, int64_t x_stride,
                      const char *dy, int64_t dy_stride, int64_t apart, const float *turned, const float *low,
                      float *slope, char *dx, float *da, float *work, float *db) {
    int64_t size = kind ? 2 : 4, x_step = x_stride * size, dy_step = dy_stride * size;
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t r = 0; r < count; r++) {
            const float *own = turned + (apart ? runs[r].owner : 0) * rank * out;
            if (kind) {
                down_run(1, runs[r], rank, out, dy, dy_step, own, slope);
                if (dx) up_run(1, runs[r], rank, in, slope, a[runs[r].owner], (float)scale, dx, in * size);
            } else {
                down_run(0, runs[r], rank, out, dy, dy_step, own, slope);
                if (dx) up_run(0, runs[r], rank, in, slope, a[runs[r].owner], (float)scale, dx, in * size);
            }
        }
#pragma omp for schedule(static) nowait
        for (int64_t c = 0; c < in; c += 2 * W) {
            if (kind) outer(1, count, runs, rank, in, slope, x, x_step, (float)scale, da, c);
            else outer(0, count, runs, rank, in, slope, x, x_step, (float)scale, da, c);
        }
#pragma omp for schedule(static)
        for (int64_t c = 0; c < out; c += 2 * W) {
            if (kind) outer(1, count, runs, rank, out, low, dy, dy_step, (float)scale, work, c);
            else outer(0, count, runs, rank, out, low, dy, dy_step, (float)scale, work, c);
        }
#pragma omp for schedule(static)
        for (int64_t k = 0; k < owners; k++) turn(rank, out, work + k * rank * out, db + k * rank * out);
    }
}
