//! Graphs: recorded work that is enqueued again at each launch.

use std::sync::Arc;

use crate::exports;
use crate::handles::{Handle, Handles};
use crate::status::put;
use crate::stream::enqueue;
use crate::work::Work;

pub(crate) static GRAPHS: Handles<Graph> = Handles::new(0x50_0000_0000);
static EXECUTABLES: Handles<Arc<Graph>> = Handles::new(0x60_0000_0000);

#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) works: Vec<Work>,
}

exports! {
    fn cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, _flags: u64) {
        put(executable, EXECUTABLES.add(GRAPHS.get(graph)?))
    }

    fn cuGraphUpload(executable: Handle, _stream: Handle) {
        EXECUTABLES.get(executable).map(|_| ())
    }

    fn cuGraphLaunch(executable: Handle, stream: Handle) {
        for work in &EXECUTABLES.get(executable)?.works {
            enqueue(stream, work.clone())?;
        }
        Ok(())
    }

    fn cuGraphExecDestroy(executable: Handle) {
        EXECUTABLES.remove(executable)
    }

    fn cuGraphDestroy(graph: Handle) {
        GRAPHS.remove(graph)
    }
}
