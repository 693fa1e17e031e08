//! Kubernetes' resource quantities, in thousandths.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Reads a quantity (`250m`, `1.5Gi`, `5234567n`, `1e3`) in thousandths of its unit, rounded up as Kubernetes does.
/// `None` when it is malformed or too large.
pub(crate) fn milli(quantity: &Quantity) -> Option<i64> {
    let text = quantity.0.trim();
    let split = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let (numerator, denominator): (i128, i128) = match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, factor) } else { (factor, 1) }
        }
    };
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(digits)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let top = mantissa.checked_mul(numerator)?.checked_mul(1000)?;
    let bottom = scale.checked_mul(denominator)?;
    let value = top / bottom + i128::from(top % bottom != 0);
    i64::try_from(if negative { -value } else { value }).ok()
}

/// Writes thousandths in Kubernetes' canonical decimal form: `12m`, `3`, `4096k`.
pub(crate) fn from_milli(milli: i64) -> Quantity {
    if milli % 1000 != 0 {
        return Quantity(format!("{milli}m"));
    }
    let mut value = milli / 1000;
    let mut suffixes = ["", "k", "M", "G", "T", "P"].into_iter();
    let mut suffix = suffixes.next().unwrap_or_default();
    while value != 0 && value % 1000 == 0 {
        let Some(next) = suffixes.next() else { break };
        value /= 1000;
        suffix = next;
    }
    Quantity(format!("{value}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_writes() {
        let read = |text: &str| milli(&Quantity(text.to_owned()));
        for (text, expected) in [
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
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in ["", "Gi", "1.2.3", "1x", "9999999E"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn writes_the_canonical_form() {
        for (milli, text) in
            [(12, "12m"), (3000, "3"), (4_096_000_000, "4096k"), (0, "0"), (183_930_881_000, "183930881")]
        {
            assert_eq!(from_milli(milli).0, text);
        }
    }
}
