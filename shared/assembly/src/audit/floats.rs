//! How much floats that several records make up may differ.

/// The allowed relative difference of floats: the last digits of sums and means depend on the order of their parts.
const FLOAT_TOLERANCE: f64 = 1e-9;

/// The allowed multiple of the change that another order of the same records makes.
const NOISE_FACTOR: f64 = 4.0;

/// How many units in the last place a number whose rounding is known may differ in any case.
const LAST_PLACES: f64 = 4.0;

/// Are these floats equal, except for the order of their computation? `noise` is the change that another order has
/// made; `rounding` is how much rounding may change them, where that is known.
pub(super) fn is_close(a: f64, b: f64, noise: f64, rounding: Option<f64>) -> bool {
    let (difference, size) = ((a - b).abs(), a.abs().max(b.abs()));
    let within = |bound: f64| difference.is_finite() && bound.is_finite() && difference <= bound;
    let known = |rounding: f64| within(rounding.max(LAST_PLACES * f64::EPSILON * size));
    a == b
        || (a.is_nan() && b.is_nan())
        || rounding.map_or_else(|| within(FLOAT_TOLERANCE * size), known)
        || within(NOISE_FACTOR * noise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_not_hidden_by_a_large_sum() {
        assert!(!is_close(2e9, 2e9 + 1.0, 0.0, Some(1e-3)) && is_close(2e9, 2e9 + 1.0, 0.0, None));
    }

    #[test]
    fn infinities_are_close_to_themselves_only() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for (a, b) in [(inf, inf), (-inf, -inf), (nan, nan), (0.0, -0.0), (1.0, 1.0 + 1e-12)] {
            assert!(is_close(a, b, 0.0, None), "{a} {b}");
        }
        for (a, b) in [(inf, 1.0), (inf, -inf), (nan, 1.0), (f64::MAX, -f64::MAX), (1.0, 1.1)] {
            for noise in [0.0, inf, nan] {
                assert!(!is_close(a, b, noise, None) && !is_close(b, a, 0.0, Some(noise)), "{a} {b} {noise}");
            }
        }
    }
}
