//! Kubernetes' resource quantities (`250m`, `1.5Gi`, `5234567n`, `1e3`) as numbers of their unit: cores, bytes.
//! The grammar: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

mod canonical;
mod parse;

pub use canonical::canonical;
pub use parse::Malformed;

use parse::Parsed;

/// The number that a quantity stands for; `None` when it is malformed or too large.
#[must_use]
pub fn value(text: &str) -> Option<f64> {
    let (numerator, denominator) = fraction(text)?;
    Some(numerator as f64 / denominator as f64)
}

/// [`value`] in whole units, rounded up as Kubernetes does; `None` also where it is negative.
#[must_use]
pub fn whole(text: &str) -> Option<u64> {
    let (numerator, denominator) = fraction(text)?;
    u64::try_from(ceil(numerator, denominator)).ok()
}

/// [`value`] in thousandths, rounded up as Kubernetes does.
#[must_use]
pub fn milli(text: &str) -> Option<i64> {
    let (numerator, denominator) = fraction(text)?;
    i64::try_from(ceil(numerator.checked_mul(1000)?, denominator)).ok()
}

/// Writes thousandths in Kubernetes' canonical decimal form: `12m`, `3`, `4096k`.
#[must_use]
pub fn from_milli(milli: i64) -> String {
    if milli % 1000 != 0 {
        return format!("{milli}m");
    }
    let mut value = milli / 1000;
    let mut suffixes = ["", "k", "M", "G", "T", "P"].into_iter();
    let mut suffix = suffixes.next().unwrap_or_default();
    while value != 0 && value % 1000 == 0 {
        let Some(next) = suffixes.next() else { break };
        value /= 1000;
        suffix = next;
    }
    format!("{value}{suffix}")
}

/// Away from zero, as Kubernetes rounds.
fn ceil(numerator: i128, denominator: i128) -> i128 {
    numerator / denominator + (numerator % denominator).signum()
}

/// The exact value, as numerator and (positive) denominator.
fn fraction(text: &str) -> Option<(i128, i128)> {
    Parsed::read(text.trim()).ok()?.fraction()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_writes() {
        for (text, thousandths) in [
            ("250m", 250),
            ("2", 2000),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("5234567n", 6),
            ("128974848", 128_974_848_000),
            ("129M", 129_000_000_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("-1", -1000),
        ] {
            assert_eq!(milli(text), Some(thousandths), "{text}");
        }
        assert_eq!(["500m", "1.5Gi", "2"].map(whole), [Some(1), Some(1_610_612_736), Some(2)]);
        assert_eq!([value("250m"), value("-2k"), value("1e-3")], [Some(0.25), Some(-2000.0), Some(0.001)]);
        assert_eq!(whole("-1"), None);
        for text in ["", "1.2.3", "1x", "1-2", "-+1", ".-5", "99999999999999999999999999999999E", "1e99"] {
            assert_eq!(value(text), None, "{text}");
        }
        assert_eq!(milli("9999999E"), None);
    }

    #[test]
    fn writes_the_canonical_form() {
        for (milli, text) in
            [(12, "12m"), (3000, "3"), (4_096_000_000, "4096k"), (0, "0"), (183_930_881_000, "183930881")]
        {
            assert_eq!(from_milli(milli), text);
        }
    }
}
