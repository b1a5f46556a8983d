//! The caller's deadline, for the whole of a call.

use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;

use crate::error::Error;

/// When the caller stops caring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

// === impl Deadline ===

impl Deadline {
    /// Reads `grpc-timeout`, counted from now.
    pub(crate) fn of(metadata: &MetadataMap) -> Deadline {
        let left = proto::time_left(metadata);
        Deadline(left.and_then(|left| Instant::now().checked_add(left)))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
