//! Work that was recorded once and is launched as a whole.

use std::sync::Arc;

use hip_runtime_sys::{hipGraph_t, hipGraphExec_t};

use super::{Gpu, Keep, Stream};
use crate::hip::HipError;

/// A recorded sequence of launches and copies, ready to run: see [`Stream::capture`]. It keeps all that it uses alive. Clones are the same graph.
#[derive(Debug, Clone)]
pub struct Graph {
    ready: Arc<Ready>,
}

#[derive(Debug)]
struct Ready {
    gpu: Arc<Gpu>,
    handle: hipGraphExec_t,
    #[expect(dead_code, reason = "held while the graph may be launched")]
    keep: Vec<Keep>,
}

// SAFETY: HIP's handles may be used on any thread; launches of one graph follow each other.
unsafe impl Send for Ready {}
// SAFETY: as above.
unsafe impl Sync for Ready {}

impl Graph {
    /// Makes a recorded graph ready to run; the recording itself is destroyed in any case.
    ///
    /// # Safety
    /// The recording is valid and is not used again; `keep` holds all memory and functions that it uses.
    pub(super) unsafe fn instantiate(
        gpu: &Arc<Gpu>,
        recorded: hipGraph_t,
        keep: Vec<Keep>,
    ) -> Result<Graph, HipError> {
        let table = gpu.table()?;
        // SAFETY: the recording is valid.
        let instantiated = unsafe { table.graph_instantiate(recorded) };
        // SAFETY: the recording is not used again; what was made of it is independent.
        let destroyed = unsafe { table.graph_destroy(recorded) };
        let handle = instantiated?;
        let ready = Arc::new(Ready {
            gpu: gpu.clone(),
            handle,
            keep,
        });
        destroyed?;
        Ok(Graph { ready })
    }

    /// Enqueues all of it on a stream of the same GPU. Launches of one graph run one after the other.
    ///
    /// # Errors
    /// The call that failed.
    pub fn launch(&self, stream: &Stream) -> Result<(), HipError> {
        let _enqueuing = stream.hold([self.ready.clone() as Keep])?;
        let table = self.ready.gpu.table()?;
        // SAFETY: the graph is ready while `self.ready` lives, which the stream now holds; that holds all that the graph uses.
        unsafe { table.graph_launch(self.ready.handle, stream.handle()) }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // SAFETY: destroyed here alone; streams hold this value until they have passed its launches. An error says that the device has failed.
        let _ = unsafe { self.gpu.any_thread().graph_exec_destroy(self.handle) };
    }
}
