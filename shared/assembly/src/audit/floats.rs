//! How much floats that several records make up may differ.

/// The allowed relative difference of floats: the last digits of sums and means depend on the order of their parts.
const FLOAT_TOLERANCE: f64 = 1e-9;

/// The allowed multiple of the change that another order of the same records makes.
const NOISE_FACTOR: f64 = 4.0;

/// Are these floats equal, except for the order of their computation? `noise` is the change that another order has
/// made, and `rounding` how much rounding may change them, as far as that is known.
pub(super) fn is_close(a: f64, b: f64, noise: f64, rounding: f64) -> bool {
    let difference = (a - b).abs();
    let within = |bound: f64| difference.is_finite() && bound.is_finite() && difference <= bound;
    a == b
        || (a.is_nan() && b.is_nan())
        || within(FLOAT_TOLERANCE * a.abs().max(b.abs()))
        || within(NOISE_FACTOR * noise)
        || within(rounding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_are_close_to_themselves_only() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for (a, b) in [(inf, inf), (-inf, -inf), (nan, nan), (0.0, -0.0), (1.0, 1.0 + 1e-12)] {
            assert!(is_close(a, b, 0.0, 0.0), "{a} {b}");
        }
        for (a, b) in [(inf, 1.0), (inf, -inf), (nan, 1.0), (f64::MAX, -f64::MAX), (1.0, 1.1)] {
            for noise in [0.0, inf, nan] {
                assert!(!is_close(a, b, noise, 0.0) && !is_close(b, a, 0.0, noise), "{a} {b} {noise}");
            }
        }
    }
}
