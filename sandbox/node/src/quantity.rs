//! Kubernetes quantities (`1.5Gi`, `500m`, `2`) as numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The number that `quantity` stands for: bytes, or cores. `None`: not a quantity.
pub(crate) fn value(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.trim();
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => 10f64.powi(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// [`value`] in whole units, rounded up as Kubernetes does.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates, which is what a limit wants.
pub(crate) fn whole(quantity: &Quantity) -> Option<u64> {
    value(quantity).map(|number| number.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, number) in
            [("1.5Gi", 1_610_612_736), ("500m", 1), ("2", 2), ("1e3", 1000), ("128M", 128_000_000)]
        {
            assert_eq!(whole(&Quantity(text.into())), Some(number), "{text}");
        }
        for text in ["", "Gi", "1x", "1.2.3"] {
            assert_eq!(value(&Quantity(text.into())), None, "{text}");
        }
    }
}
