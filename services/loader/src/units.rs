//! Sizes and times as people write them on a command line.

use std::{fmt, str::FromStr, time::Duration};

/// A number of bytes, written `1500000`, `512MiB`, `1.5GiB`, `20MB` or, as Kubernetes writes it, `8Gi`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ByteSize(pub u64);

/// A text that is not a size or a time.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnitError {
    /// The part before the unit is not a plain decimal number.
    #[error("{text:?} does not start with a number")]
    Number {
        /// What was given.
        text: String,
    },
    /// The unit is not known.
    #[error("unknown unit {unit:?}; use one of {known}")]
    Unit {
        /// The unit.
        unit: String,
        /// Those that are known.
        known: &'static str,
    },
    /// The value does not fit.
    #[error("{text:?} is too large")]
    TooLarge {
        /// What was given.
        text: String,
    },
}

const SIZE_UNITS: &str =
    "B, KiB, MiB, GiB, TiB (or Ki, Mi, Gi, Ti), kB, MB, GB, TB (or k, M, G, T)";
const TIME_UNITS: &str = "ms, s, m, h";

// === impl ByteSize ===

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        let (number, unit) = split(text)?;
        let scale: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "ki" | "kib" => 1 << 10,
            "mi" | "mib" => 1 << 20,
            "gi" | "gib" => 1 << 30,
            "ti" | "tib" => 1 << 40,
            "k" | "kb" => 1_000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "t" | "tb" => 1_000_000_000_000,
            _ => {
                return Err(UnitError::Unit {
                    unit: unit.to_owned(),
                    known: SIZE_UNITS,
                });
            }
        };
        scaled(number, scale, text).map(ByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        for (scale, unit) in UNITS {
            if self.0 >= scale {
                let tenths = u128::from(self.0) * 10 / u128::from(scale);
                return match tenths % 10 {
                    0 => write!(f, "{}{unit}", tenths / 10),
                    rest => write!(f, "{}.{rest}{unit}", tenths / 10),
                };
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Reads a time such as `250ms`, `30s`, `1.5m` or `2h`; a number alone is seconds.
///
/// # Errors
/// [`UnitError`] says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let scale_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => {
            return Err(UnitError::Unit {
                unit: unit.to_owned(),
                known: TIME_UNITS,
            });
        }
    };
    scaled(number, scale_ms, text).map(Duration::from_millis)
}

/// Cuts a text into its number and its unit.
fn split(text: &str) -> Result<(&str, &str), UnitError> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let well_formed =
        number.starts_with(|c: char| c.is_ascii_digit()) && number.matches('.').count() <= 1;
    if !well_formed {
        return Err(UnitError::Number {
            text: text.to_owned(),
        });
    }
    Ok((number, unit.trim_start()))
}

/// `number * scale` in integers: a float would round sizes above 2^53. Digits beyond what the scale can hold are cut.
fn scaled(number: &str, scale: u64, text: &str) -> Result<u64, UnitError> {
    let too_large = || UnitError::TooLarge {
        text: text.to_owned(),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let (mut part, mut parts) = (0_u128, 1_u128);
    for digit in fraction.bytes().take(18) {
        part = part * 10 + u128::from(digit - b'0');
        parts *= 10;
    }
    let value = u128::from(whole) * u128::from(scale) + part * u128::from(scale) / parts;
    u64::try_from(value).map_err(|_| too_large())
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
                "{text}"
            )
        };
        check("0", Some(0));
        check("1500000", Some(1_500_000));
        check("512MiB", Some(512 << 20));
        check("1.5GiB", Some(3 << 29));
        check("8Gi", Some(8 << 30));
        check("20MB", Some(20_000_000));
        check("20 mb", Some(20_000_000));
        check("0.25k", Some(250));
        check("16777215TiB", Some(16_777_215 << 40));
        check("16777216TiB", None);
        check("99999999999999999999", None);
        check("", None);
        check("GiB", None);
        check(".5GiB", None);
        check("1.2.3", None);
        check("-1", None);
        check("5 parsecs", None);
    }

    #[test]
    fn sizes_print_shortest() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (3 << 29, "1.5GiB"),
            (16 << 30, "16GiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn times() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(
                parse_duration(text).ok(),
                expected.map(Duration::from_millis),
                "{text}"
            );
        };
        check("250ms", Some(250));
        check("30s", Some(30_000));
        check("30", Some(30_000));
        check("1.5m", Some(90_000));
        check("2h", Some(7_200_000));
        check("2d", None);
        check("soon", None);
    }
}
