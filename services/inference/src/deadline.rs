//! The caller's deadline, for the whole of a call.
//!
//! The transport reads `grpc-timeout` too, but only until a call's first answer, and then ends it with `CANCELLED`. A caller is better served by `DEADLINE_EXCEEDED` at any time, so
//! it is read here as well, and comes a moment earlier.

use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use tonic::metadata::MetadataMap;

use crate::error::Error;

/// When the caller stops caring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

/// How much earlier than the transport's the deadline comes, where there is room.
const HEAD_START: Duration = Duration::from_millis(3);

// === impl Deadline ===

impl Deadline {
    /// Reads `grpc-timeout`, counted from now. What does not parse is no deadline.
    pub(crate) fn of(metadata: &MetadataMap) -> Deadline {
        let header = metadata
            .get("grpc-timeout")
            .and_then(|value| value.to_str().ok());
        let timeout = header.and_then(parse);
        Deadline(timeout.and_then(|timeout| {
            let early = HEAD_START.min(timeout / 4);
            Instant::now().checked_add(timeout - early)
        }))
    }

    /// The moment itself.
    pub(crate) fn instant(self) -> Option<Instant> {
        self.0
    }

    /// Runs `work` for no longer than the caller waits.
    ///
    /// # Errors
    /// [`Error::Deadline`], or those of `work`.
    pub(crate) async fn bound<T>(
        self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match self.0 {
            Some(at) => timeout_at(at.into(), work)
                .await
                .unwrap_or(Err(Error::Deadline)),
            None => work.await,
        }
    }
}

/// One to eight digits and a unit, as the gRPC protocol has it.
fn parse(header: &str) -> Option<Duration> {
    let unit = header.chars().last()?;
    let digits = header.strip_suffix(unit)?;
    let is_number =
        (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(value * 3600)),
        'M' => Some(Duration::from_secs(value * 60)),
        'S' => Some(Duration::from_secs(value)),
        'm' => Some(Duration::from_millis(value)),
        'u' => Some(Duration::from_micros(value)),
        'n' => Some(Duration::from_nanos(value)),
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
        check("", None);
        check("S", None);
        check("5", None);
        check("123456789S", None);
        check("-1S", None);
        check("1s", None);
        check("1é", None);
    }

    fn deadline(header: &'static str) -> Deadline {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", header.parse().unwrap());
        Deadline::of(&metadata)
    }

    #[tokio::test]
    async fn work_ends_with_the_deadline() {
        let endless = std::future::pending::<Result<(), Error>>();
        let outcome = deadline("20m").bound(endless).await;
        assert!(matches!(outcome, Err(Error::Deadline)));
    }

    #[tokio::test]
    async fn work_that_is_done_in_time_is_done() {
        assert!(matches!(deadline("1H").bound(async { Ok(7) }).await, Ok(7)));
        let none = Deadline::of(&MetadataMap::new());
        assert_eq!(none.instant(), None);
        assert!(matches!(none.bound(async { Ok(7) }).await, Ok(7)));
    }
}
