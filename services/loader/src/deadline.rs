//! The caller's deadline, for the whole of a call.
//!
//! The transport ends a call whose answer has not begun by the deadline, with `CANCELLED`, and forgets the deadline of a stream that has begun. A caller is better served by
//! `DEADLINE_EXCEEDED` in both cases, so the deadline is read here too, and comes a moment earlier.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;

use crate::error::Error;

/// When the caller stops caring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

// === impl Deadline ===

impl Deadline {
    /// Reads `grpc-timeout`. What does not parse is no deadline, as the transport has it.
    pub(crate) fn of(metadata: &MetadataMap) -> Deadline {
        let header = metadata
            .get("grpc-timeout")
            .and_then(|value| value.to_str().ok());
        let timeout = header
            .and_then(parse)
            .map(|timeout| timeout.saturating_sub(head_start(timeout)));
        Deadline(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// Runs `work` for no longer than the caller waits.
    pub(crate) async fn bound<T>(
        self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match self.0 {
            Some(at) => timeout_at(at, work).await.unwrap_or(Err(Error::Deadline)),
            None => work.await,
        }
    }
}

/// How much earlier than the transport we are: two ticks of its timer, if there is room for that.
fn head_start(timeout: Duration) -> Duration {
    Duration::from_millis(2).min(timeout / 4)
}

/// At most eight digits and a unit, as the gRPC protocol has it.
fn parse(header: &str) -> Option<Duration> {
    let (value, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if value.is_empty() || value.len() > 8 || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = value.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        for (header, millis) in [
            ("5S", 5000),
            ("250m", 250),
            ("1H", 3_600_000),
            ("2M", 120_000),
            ("99999999u", 99_999),
            ("0n", 0),
        ] {
            assert_eq!(
                parse(header).map(|timeout| timeout.as_millis()),
                Some(millis),
                "{header}"
            );
        }
        for header in ["", "S", "5", "5s", "-5S", "+5S", "123456789S", "5 S", "é"] {
            assert_eq!(parse(header), None, "{header}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_cut_off_just_before_the_transport_would() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "100m".parse().unwrap());
        let start = Instant::now();
        let outcome = Deadline::of(&metadata)
            .bound(std::future::pending::<Result<(), Error>>())
            .await;
        assert!(matches!(outcome, Err(Error::Deadline)));
        assert!(
            start.elapsed() < Duration::from_millis(100)
                && start.elapsed() > Duration::from_millis(90)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_header_there_is_no_hurry() {
        let slow = async {
            tokio::time::sleep(Duration::from_secs(1_000_000)).await;
            Ok(7)
        };
        assert!(matches!(
            Deadline::of(&MetadataMap::new()).bound(slow).await,
            Ok(7)
        ));
    }
}
