//! The form that Kubernetes writes quantities in. Source: `apimachinery/pkg/api/resource/quantity.go`.

use crate::ceil;
use crate::parse::{Malformed, Parsed, Unit};

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// From 10^-9 on, in steps of a thousand.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const NANO: i128 = 1_000_000_000;
/// Digits beyond this many go the slow way, and are rounded.
const QUICK_DIGITS: usize = 18;
/// What a quantity of a binary unit is at the most.
const MOST: i128 = i64::MAX as i128;

/// The text as Kubernetes would write it: `1.5Gi` is `1536Mi`, `0.5` is `500m`. A quantity that has far more digits
/// than any machine needs stays as it is.
///
/// # Errors
/// If it is no quantity.
pub fn canonical(text: &str) -> Result<String, Malformed> {
    let text = text.trim();
    let parsed = Parsed::read(text)?;
    if is_canonical(&parsed) {
        return Ok(text.to_owned());
    }
    let nano = parsed.fraction().and_then(|(numerator, denominator)| {
        let rest = ceil((numerator % denominator).checked_mul(NANO)?, denominator);
        (numerator / denominator).checked_mul(NANO)?.checked_add(rest)
    });
    let is_huge = nano.is_some() || parsed.digits.len() - parsed.decimals > MOST.to_string().len();
    Ok(match (nano, parsed.unit) {
        (Some(0), _) => "0".to_owned(),
        (Some(nano), Unit::Exponent(_)) => {
            let (value, thousands) = shortened(nano, usize::MAX);
            match 3 * i128::try_from(thousands).unwrap_or_default() - 9 {
                0 => value.to_string(),
                exponent => format!("{value}e{exponent}"),
            }
        }
        (Some(nano), Unit::Binary(_)) if nano.abs() <= MOST * NANO => {
            // A fraction of a byte is not lost: it is written in decimal units.
            if nano % NANO == 0 && nano.abs() >= 1024 * NANO { binary(nano / NANO) } else { decimal(nano) }
        }
        (_, Unit::Binary(_)) if is_huge => binary(if parsed.negative { -MOST } else { MOST }),
        (Some(nano), Unit::Decimal(_)) => decimal(nano),
        _ => text.to_owned(),
    })
}

/// Whether Kubernetes keeps the text: it takes a power of a thousand, without a thousand in the number, for canonical.
fn is_canonical(parsed: &Parsed) -> bool {
    let (Unit::Decimal(exponent) | Unit::Exponent(exponent)) = parsed.unit else { return false };
    let Ok(decimals) = i32::try_from(parsed.decimals) else { return false };
    let scale = exponent.saturating_sub(decimals);
    parsed.digits.len() <= QUICK_DIGITS
        && scale >= -9
        && scale % 3 == 0
        && !parsed.digits.ends_with("000")
        && !parsed.digits.starts_with('0')
}

fn binary(mut value: i128) -> String {
    let mut unit = 0;
    while value % 1024 == 0 && unit + 1 < BINARY.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value}{}", BINARY[unit])
}

fn decimal(nano: i128) -> String {
    let (value, thousands) = shortened(nano, DECIMAL.len() - 1);
    format!("{value}{}", DECIMAL[thousands])
}

/// The number without the thousands in it, and how many there were, at most `most`.
fn shortened(mut value: i128, most: usize) -> (i128, usize) {
    let mut thousands = 0;
    while value % 1000 == 0 && value != 0 && thousands < most {
        value /= 1000;
        thousands += 1;
    }
    (value, thousands)
}

#[cfg(test)]
mod tests {
    use super::canonical;
    use crate::Malformed;

    /// Asked of a real API server.
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
            ("0.0000000001", "1n"),
            ("1e-10", "1e-9"),
            ("1.5e3", "1500"),
            ("3000e3", "3e6"),
            ("7e-2", "70e-3"),
            ("717419.5264e3", "717419526400e-3"),
            ("0.001Ki", "1024m"),
            ("1.1Ki", "1126400m"),
            ("2924.7Pi", "3292919457542622412800m"),
            ("119.09Ei", "9223372036854775807"),
            ("99999999999999999999", "99999999999999999999"),
            ("00012", "00012"),
            ("+5", "+5"),
            ("5.", "5."),
            ("3797.203k", "3797.203k"),
            ("7796.0942u", "7796095n"),
            ("e3", "0"),
            ("0e3", "0"),
            ("1e99", "1e99"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(written), "{given}");
        }
        for given in ["1Xi", "", "much", "1 Ki", "1.5.2", "1_000", "1e1.5"] {
            assert_eq!(canonical(given), Err(Malformed::Form), "{given}");
        }
        for given in ["++1", "-+1", ".-5", "1e", "1K", "1ki", "1i"] {
            assert_eq!(canonical(given), Err(Malformed::Suffix), "{given}");
        }
    }
}
