use std::time::Duration;

use tonic::metadata::MetadataMap;

/// How much earlier than the transport's a deadline comes, where there is room: two ticks of its timer.
const HEAD_START: Duration = Duration::from_millis(3);

/// How long the caller of an rpc will wait, less a moment; `None` if it does not say. What does not parse is no deadline, as the transport has it.
///
/// The transport ends a call whose answer has not begun by the deadline in `grpc-timeout`, with `CANCELLED`, and forgets the deadline of a stream that has begun. A caller is better served by `DEADLINE_EXCEEDED` in
/// both cases, so services keep to it themselves and are a moment earlier.
pub fn time_left(metadata: &MetadataMap) -> Option<Duration> {
    let header = metadata.get("grpc-timeout")?;
    let timeout = parse(header.to_str().ok()?)?;
    Some(timeout - HEAD_START.min(timeout / 4))
}

/// One to eight digits and a unit, as the gRPC protocol has it.
fn parse(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    let is_number =
        (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let check = |header: &str, expected: Option<Duration>| {
            assert_eq!(parse(header), expected, "{header:?}");
        };
        check("1H", Some(Duration::from_secs(3600)));
        check("2M", Some(Duration::from_secs(120)));
        check("3S", Some(Duration::from_secs(3)));
        check("250m", Some(Duration::from_millis(250)));
        check("99999999u", Some(Duration::from_micros(99_999_999)));
        check("7n", Some(Duration::from_nanos(7)));
        for bad in [
            "",
            "S",
            "5",
            "5s",
            "-5S",
            "+5S",
            "123456789S",
            "5 S",
            "é",
            "1é",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn callers_are_told_a_moment_before_the_transport_tells_them() {
        let left = |header: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", header.parse().expect("ascii"));
            time_left(&metadata)
        };
        assert_eq!(left("100m"), Some(Duration::from_millis(97)));
        assert_eq!(left("4m"), Some(Duration::from_millis(3)));
        assert_eq!(left("soon"), None);
        assert_eq!(time_left(&MetadataMap::new()), None);
    }
}
