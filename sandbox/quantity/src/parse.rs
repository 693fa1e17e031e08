//! The grammar, as Kubernetes' own parser takes it, which is more than its documentation says: `1.`, `.5` and `e3` are
//! quantities. Source: `apimachinery/pkg/api/resource/quantity.go`.

use std::fmt;

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It is not a number with letters behind it.
    Form,
    /// The letters are no unit and no exponent.
    Suffix,
}

/// As Kubernetes words it.
impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Form => {
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            }
            Malformed::Suffix => "unable to parse quantity's suffix",
        })
    }
}

impl std::error::Error for Malformed {}

/// What is behind the number, and so how the quantity is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// `k`: a power of ten.
    Decimal(i32),
    /// `e3`: a power of ten.
    Exponent(i32),
    /// `Ki`: a power of two.
    Binary(u32),
}

/// A quantity, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) negative: bool,
    /// Without the zeros in front, but at least one before the point.
    pub(crate) digits: String,
    /// How many of the digits are behind the point.
    pub(crate) decimals: usize,
    pub(crate) unit: Unit,
}

impl Parsed {
    pub(crate) fn read(text: &str) -> Result<Parsed, Malformed> {
        if text.is_empty() {
            return Err(Malformed::Form);
        }
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (whole, rest) = split(unsigned.trim_start_matches('0'), |c| c.is_ascii_digit());
        let whole = if whole.is_empty() { "0" } else { whole };
        let (decimals, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split(rest, |c| c.is_ascii_digit()),
            None => ("", rest),
        };
        let (_letters, rest) = split(suffix, |c| "eEinumkKMGTP".contains(c));
        let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        if rest.contains(|c: char| !c.is_ascii_digit()) {
            return Err(Malformed::Form);
        }
        Ok(Parsed {
            negative: text.starts_with('-'),
            digits: format!("{whole}{decimals}"),
            decimals: decimals.len(),
            unit: Unit::read(suffix).ok_or(Malformed::Suffix)?,
        })
    }

    /// The exact value, as numerator and (positive) denominator; none where it is too large for that.
    pub(crate) fn fraction(&self) -> Option<(i128, i128)> {
        let power = |base: i128, exponent: u32| base.checked_pow(exponent);
        let (numerator, denominator) = match self.unit {
            Unit::Decimal(exponent) | Unit::Exponent(exponent) if exponent < 0 => {
                (1, power(10, exponent.unsigned_abs())?)
            }
            Unit::Decimal(exponent) | Unit::Exponent(exponent) => (power(10, exponent.unsigned_abs())?, 1),
            Unit::Binary(exponent) => (power(2, exponent)?, 1),
        };
        let digits: i128 = self.digits.parse().ok()?;
        let scale = power(10, u32::try_from(self.decimals).ok()?)?;
        let sign = if self.negative { -1 } else { 1 };
        Some((digits.checked_mul(numerator)? * sign, scale.checked_mul(denominator)?))
    }
}

impl Unit {
    fn read(suffix: &str) -> Option<Unit> {
        Some(match suffix {
            "n" => Unit::Decimal(-9),
            "u" => Unit::Decimal(-6),
            "m" => Unit::Decimal(-3),
            "" => Unit::Decimal(0),
            "k" => Unit::Decimal(3),
            "M" => Unit::Decimal(6),
            "G" => Unit::Decimal(9),
            "T" => Unit::Decimal(12),
            "P" => Unit::Decimal(15),
            "E" => Unit::Decimal(18),
            "Ki" => Unit::Binary(10),
            "Mi" => Unit::Binary(20),
            "Gi" => Unit::Binary(30),
            "Ti" => Unit::Binary(40),
            "Pi" => Unit::Binary(50),
            "Ei" => Unit::Binary(60),
            exponent => Unit::Exponent(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
        })
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}
