//! The form that Kubernetes writes quantities in. Source: `apimachinery/pkg/api/resource/quantity.go`.

use crate::fraction;

const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// From 10^-9 on, in steps of a thousand.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const NANO: i128 = 1_000_000_000;

/// The text as Kubernetes would write it: `1.5Gi` is `1536Mi`, `0.5` is `500m`. `None` when it is malformed or too large.
#[must_use]
pub fn canonical(text: &str) -> Option<String> {
    let (numerator, denominator) = fraction(text)?;
    let text = text.trim();
    let whole = numerator % denominator == 0;
    if text.ends_with('i') {
        return Some(if whole { binary(numerator / denominator) } else { text.to_owned() });
    }
    // Written with an exponent it keeps one.
    let has_exponent = text.contains(['e', 'E']) && !text.ends_with('E');
    match numerator.checked_mul(NANO) {
        Some(nano) if !has_exponent && nano % denominator == 0 => Some(decimal(nano / denominator)),
        _ => Some(text.to_owned()),
    }
}

fn binary(mut value: i128) -> String {
    let mut unit = None;
    while value.abs() >= 1024 && value % 1024 == 0 && unit != Some(BINARY.len() - 1) {
        value /= 1024;
        unit = Some(unit.map_or(0, |unit| unit + 1));
    }
    match unit {
        Some(unit) => format!("{value}{}", BINARY[unit]),
        None => decimal(value * NANO),
    }
}

fn decimal(mut nano: i128) -> String {
    let mut unit = 0;
    while nano % 1000 == 0 && unit + 1 < DECIMAL.len() && nano != 0 {
        nano /= 1000;
        unit += 1;
    }
    if nano == 0 { "0".to_owned() } else { format!("{nano}{}", DECIMAL[unit]) }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn quantities_are_written_as_kubernetes_writes_them() {
        for (given, written) in [
            ("1.5Gi", "1536Mi"),
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("150m", "150m"),
            ("100Ki", "100Ki"),
            ("0.5Ki", "512"),
            ("0", "0"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("-1", "-1"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(written), "{given}");
        }
        for given in ["1Xi", "", "much", "."] {
            assert_eq!(canonical(given), None, "{given}");
        }
    }
}
