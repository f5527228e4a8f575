const LN2_HIGH = 0.6931471803691238; // 32 leading bits of ln 2, so that n * LN2_HIGH is exact
const LN2_LOW = 1.9082149292705877e-10;

/**
 * The natural logarithm by + - * / alone, within about an ulp: unlike Math.log it gives the same bits in every engine.
 * x = 2^n m with m in [sqrt(1/2), sqrt(2)); ln m = 2 atanh((m - 1) / (m + 1)).
 */
export function ln(x: number): number {
  if (!(x > 0)) return x === 0 ? Number.NEGATIVE_INFINITY : Number.NaN;
  if (x === Number.POSITIVE_INFINITY) return x;
  let n = 0;
  let m = x;
  while (m < 2 ** -32) {
    m *= 2 ** 32;
    n -= 32;
  }
  while (m >= 2 ** 32) {
    m /= 2 ** 32;
    n += 32;
  }
  while (m < Math.SQRT1_2) {
    m *= 2;
    n--;
  }
  while (m >= Math.SQRT2) {
    m /= 2;
    n++;
  }
  const f = m - 1;
  const t = f / (2 + f); // |t| < 0.172
  const t2 = t * t;
  let series = 1 / 23;
  for (let k = 21; k >= 3; k -= 2) series = series * t2 + 1 / k;
  // 2 atanh(t) = 2t + 2t^3 (1/3 + t^2/5 + ...), and 2t = f - t f keeps the leading term exact.
  return n * LN2_HIGH + (f - t * (f - 2 * t2 * series) + n * LN2_LOW);
}

/** e^x by + - * / alone, within a few ulps: the same bits in every engine. x = n ln 2 + r with |r| <= ln(2)/2. */
export function exp(x: number): number {
  if (Number.isNaN(x)) return x;
  if (x < -745.2) return 0;
  if (x > 709.8) return Number.POSITIVE_INFINITY;
  const n = Math.round(x / Math.LN2);
  const r = x - n * LN2_HIGH - n * LN2_LOW;
  let series = 1;
  for (let k = 14; k >= 1; k--) series = 1 + (r / k) * series;
  const half = Math.trunc(n / 2); // 2^n in two factors, since 2^1024 and 2^-1074 meet the ends of the range
  return series * 2 ** half * 2 ** (n - half);
}
