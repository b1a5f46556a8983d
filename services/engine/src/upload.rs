//! From a source's bytes to a GPU's memory.

use std::collections::HashMap;
use std::sync::Arc;

use gguf::{Directory, ExtentId, TensorType};
use kernels::Device;
use kernels::hip::launch::repack::repack;
use kernels::hip::{Arena, Hip, HipError, Ring, RingWorker, View};

use crate::source::{SourceError, WeightSource};

/// Device memory is taken in chunks of so many bytes.
const CHUNK_BYTES: usize = 256 << 20;

/// Room for weights in a GPU's memory, for all models.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    hip: Arc<Hip>,
    arena: Arena,
}

/// One fetch thread's way there.
#[derive(Debug)]
pub(crate) struct Uploader {
    room: Room,
    /// Made on the thread that uses it, when it is first used.
    ring: Option<RingWorker>,
    types: Arc<HashMap<ExtentId, TensorType>>,
}

/// There was no room for an extent.
#[derive(Debug, thiserror::Error)]
#[error("no room for {len_bytes} bytes of weights: {lent_bytes} of {limit_bytes} are in use")]
struct NoRoom {
    len_bytes: usize,
    lent_bytes: usize,
    limit_bytes: usize,
}

impl Room {
    /// Room for at most `limit_bytes`; `None` on a device that uses weights where the source has them.
    pub(crate) fn new(device: &Device, limit_bytes: Option<u64>) -> Option<Room> {
        let Device::Hip(hip) = device else {
            return None;
        };
        let limit = limit_bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let limit = limit.unwrap_or(usize::MAX);
        Some(Room {
            arena: Arena::new(hip.gpu(), limit, CHUNK_BYTES),
            hip: hip.clone(),
        })
    }

    /// A range for one extent. What was let go may still be in use by kernels that run: they are waited for before there is no room.
    fn range(&self, len_bytes: usize) -> Result<View, SourceError> {
        if let Some(view) = self.arena.view(len_bytes).map_err(failed)? {
            return Ok(view);
        }
        self.hip.stream().synchronize().map_err(failed)?;
        let view = self.arena.view(len_bytes).map_err(failed)?;
        view.ok_or_else(|| {
            SourceError::Failed(Arc::new(NoRoom {
                len_bytes,
                lent_bytes: self.arena.lent_bytes(),
                limit_bytes: self.arena.limit_bytes(),
            }))
        })
    }

    pub(crate) fn uploader(&self, types: &Arc<HashMap<ExtentId, TensorType>>) -> Uploader {
        Uploader {
            room: self.clone(),
            ring: None,
            types: Arc::clone(types),
        }
    }
}

/// The tensor type of each extent.
pub(crate) fn types(directory: &Directory) -> Arc<HashMap<ExtentId, TensorType>> {
    let tensors = directory.tensors().iter();
    let extents = tensors.flat_map(|info| {
        let ids = info.extents.clone().map(ExtentId);
        ids.map(|id| (id, info.tensor_type))
    });
    Arc::new(extents.collect())
}

impl Uploader {
    /// Brings an extent that was fetched to the device, as its kernels read it. Returns when it is there.
    pub(crate) fn upload(
        &mut self,
        source: &Arc<dyn WeightSource>,
        extent: ExtentId,
    ) -> Result<View, SourceError> {
        let bytes = Arc::clone(source).view(extent);
        let bytes = (*bytes).as_ref();
        let view = self.room.range(bytes.len())?;
        self.copy(bytes, extent, &view).map_err(failed)?;
        Ok(view)
    }

    fn copy(&mut self, bytes: &[u8], extent: ExtentId, view: &View) -> Result<(), HipError> {
        let hip = &self.room.hip;
        let ring = match &mut self.ring {
            Some(ring) => ring,
            None => self.ring.insert(Ring::USUAL.worker(hip.gpu())?),
        };
        ring.upload(view, |start, slot| -> Result<(), HipError> {
            slot.copy_from_slice(&bytes[start..start + slot.len()]);
            Ok(())
        })?;
        let tensor_type = self.types[&extent];
        let n_elements = bytes.len() / tensor_type.block_bytes() * tensor_type.block_len();
        repack(ring.stream(), hip.kernels(), tensor_type, n_elements, view)?;
        ring.mark()?.synchronize()
    }
}

fn failed(error: HipError) -> SourceError {
    SourceError::Failed(Arc::new(error))
}
