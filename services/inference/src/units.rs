//! Sizes and times as people write them on a command line.

use std::{fmt, str::FromStr, time::Duration};

/// A number of bytes, written `1500000`, `512MiB`, `1.5GiB`, `20MB` or, as Kubernetes writes it, `8Gi`.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct ByteSize(pub u64);

/// A text that is neither a size nor a time.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnitError {
    /// It does not begin with a number.
    #[error("must begin with a number, such as 16GiB or 30s")]
    Number,
    /// The unit is not known.
    #[error("unknown unit {unit:?}; use {known}")]
    Unit {
        /// What was given.
        unit: String,
        /// What may be given.
        known: &'static str,
    },
    /// The value leaves the range of 64 bits.
    #[error("too large")]
    TooLarge,
}

// === impl ByteSize ===

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        let (number, unit) = split(text)?;
        let known = "B, KiB, MiB, GiB, TiB (Ki, Mi, Gi, Ti) or kB, MB, GB, TB (k, M, G, T)";
        let lower = unit.to_ascii_lowercase();
        let (prefix, base) = match lower.trim_end_matches('b') {
            prefix if prefix.ends_with('i') => (&prefix[..prefix.len() - 1], 1024_u64),
            prefix => (prefix, 1000),
        };
        let power = match prefix {
            "" if base == 1000 => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            _ => {
                let unit = unit.to_owned();
                return Err(UnitError::Unit { unit, known });
            }
        };
        scale(number, base.pow(power)).map(ByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Reads a time such as `250ms`, `30s`, `1.5m` or `2h`; a bare number is seconds.
///
/// # Errors
/// [`UnitError`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => {
            let unit = unit.to_owned();
            let known = "ms, s, m or h";
            return Err(UnitError::Unit { unit, known });
        }
    };
    scale(number, milliseconds).map(Duration::from_millis)
}

/// Digits with at most one point, and what follows them.
fn split(text: &str) -> Result<(&str, &str), UnitError> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let is_number =
        number.starts_with(|c: char| c.is_ascii_digit()) && number.matches('.').count() <= 1;
    if is_number {
        Ok((number, unit.trim_start()))
    } else {
        Err(UnitError::Number)
    }
}

/// `number * unit`, rounded down, in integers: a float would lose bytes above 2^53.
fn scale(number: &str, unit: u64) -> Result<u64, UnitError> {
    /// Digits after the point that are looked at; more cannot matter to a 64-bit result.
    const FRACTION_DIGITS: usize = 12;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = whole.parse().map_err(|_| UnitError::TooLarge)?;
    let (mut part, mut of) = (0_u128, 1_u128);
    for digit in fraction.bytes().take(FRACTION_DIGITS) {
        part = part * 10 + u128::from(digit - b'0');
        of *= 10;
    }
    let unit = u128::from(unit);
    let product = whole.checked_mul(unit).ok_or(UnitError::TooLarge)?;
    u64::try_from(product + part * unit / of).map_err(|_| UnitError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(
                text.parse::<ByteSize>().ok().map(|size| size.0),
                expected,
                "{text:?}"
            );
        };
        check("0", Some(0));
        check("1500", Some(1500));
        check("1500B", Some(1500));
        check("1KiB", Some(1024));
        check("8Gi", Some(8 << 30));
        check("1.5GiB", Some(3 << 29));
        check("20MB", Some(20_000_000));
        check("20 MB", Some(20_000_000));
        check("16383TiB", Some(16_383 << 40));
        check("", None);
        check("-1", None);
        check("GiB", None);
        check("1.2.3", None);
        check("1iB", None);
        check("1XB", None);
        check("99999999999TiB", None);
        check("340282366920938463463374607431768211456TB", None);
    }

    #[test]
    fn times() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(
                parse_duration(text).ok(),
                expected.map(Duration::from_millis),
                "{text:?}"
            );
        };
        check("250ms", Some(250));
        check("30", Some(30_000));
        check("0.5s", Some(500));
        check("2m", Some(120_000));
        check("1h", Some(3_600_000));
        check("1d", None);
        check("soon", None);
    }

    #[test]
    fn sizes_print_as_they_are_read() {
        for text in ["0", "1500", "1KiB", "3GiB", "1025"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
    }
}
