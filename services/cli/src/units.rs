//! Amounts as people read and type them.

use std::time::Duration;

/// `1536` → `1.5 KiB`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut amount = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// `4_300_000` → `4.3M`, as parameter counts are written.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn count(count: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "T"),
        (1_000_000_000, "B"),
        (1_000_000, "M"),
        (1_000, "K"),
    ];
    for (size, suffix) in UNITS {
        if count >= size {
            return format!("{:.1}{suffix}", count as f64 / size as f64);
        }
    }
    count.to_string()
}

/// `Duration` of 12.34 ms → `12.3 ms`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.000_999_5 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 0.999_95 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 100.0 {
        format!("{seconds:.2} s")
    } else {
        let whole = time.as_secs();
        format!("{}m{:02}s", whole / 60, whole % 60)
    }
}

/// A protobuf duration; negative ones, which no service sends, count as zero.
pub(crate) fn from_proto(time: Option<prost_types::Duration>) -> Option<Duration> {
    time.map(|time| Duration::try_from(time).unwrap_or_default())
}

/// Tokens per second over `steps` steps that took `time`; none if nothing can be said.
pub(crate) fn per_second(steps: u32, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    (steps > 0 && seconds > 0.0).then(|| f64::from(steps) / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_step_up_without_a_four_digit_amount() {
        for (input, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 20, "5.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(input), expected);
        }
    }

    #[test]
    fn counts_read_like_model_names() {
        assert_eq!(count(999), "999");
        assert_eq!(count(8_030_000_000), "8.0B");
    }

    #[test]
    fn durations_choose_their_unit() {
        for (nanos, expected) in [
            (1_500, "2 µs"),
            (999_400, "999 µs"),
            (12_340_000, "12.3 ms"),
            (1_234_000_000, "1.23 s"),
            (125_000_000_000, "2m05s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), expected);
        }
    }

    #[test]
    fn rates_need_time_and_steps() {
        assert_eq!(per_second(10, Duration::from_secs(2)), Some(5.0));
        assert_eq!(per_second(0, Duration::from_secs(2)), None);
        assert_eq!(per_second(1, Duration::ZERO), None);
    }
}
