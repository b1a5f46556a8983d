use std::sync::Arc;

use kernels::{Device, OpError};

use super::{MAX_SCORED_ROWS, Worker};
use crate::EngineError;
use crate::residency::ModelKey;

impl Worker {
    /// Gives the model memory for steps.
    ///
    /// A GPU takes memory for a whole KV store at once, whatever its blocks hold. So that the stores stay within the budget, and where the device has no memory left, models that run nothing give up
    /// theirs first, and with it what their blocks hold for reuse.
    pub(super) fn ensure_workspace(&mut self, key: ModelKey) -> Result<(), EngineError> {
        if self.models[&key].workspace.is_some() {
            return Ok(());
        }
        let budget_bytes = self.scheduler.kv_budget().total_bytes();
        while self.kv_store_bytes(key) > budget_bytes && self.empty_a_workspace() {}
        let max_logit_rows = self.config.max_running + MAX_SCORED_ROWS;
        loop {
            let attached = self.models.get_mut(&key).expect("an attached model");
            let made = attached.make_workspace(
                &self.config.device,
                self.config.max_batch_rows,
                max_logit_rows,
            );
            match made {
                Ok(()) => return Ok(()),
                Err(error) if is_out_of_memory(&error) && self.empty_a_workspace() => {}
                Err(error) => return Err(self.device_error(key, error)),
            }
        }
    }

    /// What a model's requests are told when an operation of its step was refused.
    pub(super) fn device_error(&self, key: ModelKey, error: OpError) -> EngineError {
        if is_out_of_memory(&error) {
            return EngineError::DeviceMemory {
                model: self.models[&key].id.clone(),
                cause: Arc::new(error),
            };
        }
        EngineError::Device(Arc::new(error))
    }

    /// Device memory of all KV stores, with one for `key`; 0 on a device that takes memory for a block when it is first written.
    fn kv_store_bytes(&self, key: ModelKey) -> u64 {
        if !matches!(self.config.device, Device::Hip(_)) {
            return 0;
        }
        let models = self.models.iter();
        let with_store =
            models.filter(|(other, attached)| **other == key || attached.workspace.is_some());
        let bytes = with_store.map(|(&other, attached)| {
            let block_bytes = self.scheduler.cache(other).block_bytes();
            block_bytes.saturating_mul(attached.n_blocks as u64)
        });
        bytes.fold(0, u64::saturating_add)
    }

    /// Lets go of the workspace of a model that runs nothing. `false` if there is none.
    fn empty_a_workspace(&mut self) -> bool {
        let scheduler = &self.scheduler;
        let idle = self.models.iter_mut().find(|(key, attached)| {
            let runs = attached.step.is_some() || scheduler.cache(**key).used_blocks() > 0;
            attached.workspace.is_some() && !runs
        });
        let Some((&key, attached)) = idle else {
            return false;
        };
        tracing::debug!(model = %attached.id, "device memory is short: what its KV blocks hold is forgotten");
        scheduler.cache(key).forget();
        attached.workspace = None;
        true
    }
}

fn is_out_of_memory(error: &OpError) -> bool {
    matches!(error, OpError::Hip(error) if error.is_out_of_memory())
}
