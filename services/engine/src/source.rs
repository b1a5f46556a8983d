//! Where weights come from: the seam between the worker and mapped files.

use std::fmt::Debug;
use std::sync::Arc;

use gguf::{Directory, ExtentId};
use weights::{FetchError, Fetched, Weights};

use crate::error::Cause;

/// Bytes that a tensor can lie in.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The weights of one model. `Arc<Weights>` is one; tests bring their own to count, slow down or fail fetches.
pub trait WeightSource: Debug + Send + Sync + 'static {
    /// What there is.
    fn directory(&self) -> &Arc<Directory>;

    /// Brings an extent in so that [`view`](WeightSource::view) can be read. Blocks; called on fetch threads.
    /// # Errors
    /// [`SourceError`]; the fetch can be tried again.
    fn fetch(&self, extent: ExtentId) -> Result<Fetched, SourceError>;

    /// The bytes of an extent. Costs nothing and reads nothing; the bytes keep their source alive.
    fn view(self: Arc<Self>, extent: ExtentId) -> Bytes;

    /// Lets the extent's memory go. Views stay valid, they only become slow.
    fn evict(&self, extent: ExtentId);

    /// Whether bytes were lost under a reader, so that nothing computed from them may leave.
    fn poisoned(&self) -> bool;
}

/// Why a fetch failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is not the one that was attached any more.
    #[error("the file changed while in use")]
    DataLoss(#[source] Cause),
    /// The bytes could not be had now.
    #[error("the fetch failed")]
    Failed(#[source] Cause),
}

impl From<FetchError> for SourceError {
    fn from(error: FetchError) -> SourceError {
        match error {
            FetchError::Truncated { .. }
            | FetchError::Changed { .. }
            | FetchError::Poisoned { .. } => SourceError::DataLoss(Arc::new(error)),
            _ => SourceError::Failed(Arc::new(error)),
        }
    }
}

impl WeightSource for Weights {
    fn directory(&self) -> &Arc<Directory> {
        Weights::directory(self)
    }

    fn fetch(&self, extent: ExtentId) -> Result<Fetched, SourceError> {
        Ok(Weights::fetch(self, extent)?)
    }

    fn view(self: Arc<Self>, extent: ExtentId) -> Bytes {
        Arc::new(Weights::view(&self, extent))
    }

    fn evict(&self, extent: ExtentId) {
        Weights::evict(self, extent);
    }

    fn poisoned(&self) -> bool {
        Weights::poisoned(self)
    }
}
