//! Where weights come from: the seam between the worker and mapped files.

use std::fmt::Debug;
use std::sync::Arc;

use gguf::{Directory, ExtentId};
use weights::accounting::Meter;
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

    /// Brings an extent near, so that [`read_into`](WeightSource::read_into) need not wait for storage; nobody will read its view. Blocks; called on fetch threads.
    /// # Errors
    /// [`SourceError`]; it can be tried again.
    fn warm(&self, extent: ExtentId) -> Result<Fetched, SourceError> {
        self.fetch(extent)
    }

    /// Copies bytes of an extent, from `offset_bytes` on, into all of `buf`; returns the bytes that came from storage for it, as far as `meter` (of the calling thread) knows. By default out of
    /// the view.
    /// # Errors
    /// [`SourceError`]; what `buf` holds is worthless then.
    fn read_into(
        self: Arc<Self>,
        extent: ExtentId,
        offset_bytes: u64,
        buf: &mut [u8],
        _meter: &mut Meter,
    ) -> Result<u64, SourceError> {
        let bytes = self.view(extent);
        let start = usize::try_from(offset_bytes).expect("an offset in bytes that lie in memory");
        buf.copy_from_slice(&(*bytes).as_ref()[start..][..buf.len()]);
        Ok(0)
    }

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

    fn warm(&self, extent: ExtentId) -> Result<Fetched, SourceError> {
        Ok(Weights::warm(self, extent)?)
    }

    fn read_into(
        self: Arc<Self>,
        extent: ExtentId,
        offset_bytes: u64,
        buf: &mut [u8],
        meter: &mut Meter,
    ) -> Result<u64, SourceError> {
        Ok(Weights::read_into(&self, extent, offset_bytes, buf, meter)?)
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
