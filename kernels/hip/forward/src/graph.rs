//! Graphs.

use std::ffi::{c_char, c_ulonglong};

use hip_runtime_sys::{hipGraph_t, hipGraphExec_t, hipGraphNode_t, hipStream_t};

use crate::{cu, exports};

exports! {
    /// Neither the node that is to blame nor a log is given: CUDA's successor of this function has none.
    fn hipGraphInstantiate(executable: *mut hipGraphExec_t, graph: hipGraph_t, _error_node: *mut hipGraphNode_t, _log: *mut c_char, _log_bytes: usize) {
        cu!(cuGraphInstantiate(executable.cast(), graph.cast(), 0))
    }

    fn hipGraphInstantiateWithFlags(executable: *mut hipGraphExec_t, graph: hipGraph_t, flags: c_ulonglong) {
        cu!(cuGraphInstantiate(executable.cast(), graph.cast(), flags))
    }

    fn hipGraphUpload(executable: hipGraphExec_t, stream: hipStream_t) {
        cu!(cuGraphUpload(executable.cast(), stream.cast()))
    }

    fn hipGraphLaunch(executable: hipGraphExec_t, stream: hipStream_t) {
        cu!(cuGraphLaunch(executable.cast(), stream.cast()))
    }

    fn hipGraphExecDestroy(executable: hipGraphExec_t) {
        cu!(cuGraphExecDestroy(executable.cast()))
    }

    fn hipGraphDestroy(graph: hipGraph_t) {
        cu!(cuGraphDestroy(graph.cast()))
    }
}
