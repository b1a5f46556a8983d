//! The caller's deadline, for the whole of a call.

use std::time::Instant;

use tokio::time::timeout_at;
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

#[cfg(test)]
mod tests {
    use super::*;

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
