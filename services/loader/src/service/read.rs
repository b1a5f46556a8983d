//! `ReadTensor`.

use std::{io, ops::Range, sync::Arc};

use gguf::ExtentId;
use proto::loader::v1::{ReadTensorRequest, ReadTensorResponse};
use tokio::sync::OwnedSemaphorePermit;
use weights::{
    FetchError, Fetched,
    accounting::{StorageRead, measure},
    source::Source as _,
};

use crate::{
    answer::Sink,
    cache::Subject,
    error::Error,
    lease::LeaseId,
    node::Node,
    readers::{QUEUE_MAX, Refused, Urgency},
    registry::Model,
    scan,
    token::Token,
};

const PIECE_BYTES: u64 = 1 << 20;

/// A lease in use by a read; it cannot time out meanwhile.
#[derive(Debug)]
struct Use {
    node: Arc<Node>,
    id: LeaseId,
    model: Arc<Model>,
    subject: Subject,
}

/// A run of bytes of one file.
#[derive(Clone, Debug)]
struct Span {
    split_index: u16,
    bytes: Range<u64>,
    /// Extents of the tensor that it is a part of.
    extents: Range<u32>,
}

/// Sends a tensor's bytes, each piece when the caller has taken the ones before it.
pub(super) async fn read(
    node: Arc<Node>,
    request: ReadTensorRequest,
    sink: Sink<ReadTensorResponse>,
    _slot: OwnedSemaphorePermit,
) -> Result<(), Error> {
    let lease = Arc::new(Use::begin(node, &request.token)?);
    let span = locate(&lease, &request)?;
    let mut at = span.bytes.start;
    while at < span.bytes.end {
        let piece = Span {
            bytes: at..span.bytes.end.min(at + PIECE_BYTES),
            ..span.clone()
        };
        at = piece.bytes.end;
        let data = read_piece(&lease, piece).await?;
        sink.send(ReadTensorResponse { data }).await;
    }
    Ok(())
}

/// Where the bytes that are asked for lie.
fn locate(lease: &Use, request: &ReadTensorRequest) -> Result<Span, Error> {
    let directory = lease.subject.weights.directory();
    let tensor = directory.require(&request.tensor)?;
    let rest = tensor.len_bytes.checked_sub(request.offset_bytes);
    let length = if request.length_bytes == 0 {
        rest
    } else {
        rest.filter(|rest| request.length_bytes <= *rest)
            .map(|_| request.length_bytes)
    };
    let Some(length) = length else {
        return Err(Error::OutOfRange {
            tensor: tensor.name.clone(),
            offset_bytes: request.offset_bytes,
            length_bytes: request.length_bytes,
            tensor_bytes: tensor.len_bytes,
        });
    };
    // Proven when the header was parsed: the whole tensor lies inside the file.
    let start = tensor.offset_bytes + request.offset_bytes;
    let bytes = start..start + length;
    Ok(Span {
        split_index: tensor.split_index,
        bytes,
        extents: tensor.extents.clone(),
    })
}

async fn read_piece(lease: &Arc<Use>, span: Span) -> Result<Vec<u8>, Error> {
    let reader = Arc::clone(lease);
    let job = move || reader.read_piece(&span);
    let outcome =
        lease
            .node
            .readers
            .submit(Urgency::Now, job)
            .map_err(|refused| match refused {
                Refused::Full => Error::TooMany {
                    what: "waiting reads",
                    limit: QUEUE_MAX,
                },
                Refused::Closed => Error::ShuttingDown,
            })?;
    match outcome.await {
        Ok(outcome) => outcome,
        Err(_) if lease.node.is_stopping() => Err(Error::ShuttingDown),
        Err(_) => Err(Error::WorkerDied),
    }
}

// === impl Use ===

impl Use {
    fn begin(node: Arc<Node>, token: &[u8]) -> Result<Use, Error> {
        let token = Token::from_bytes(token).ok_or(Error::UnknownLease)?;
        let (id, model, subject) = {
            let mut leases = node.leases();
            let (id, lease) = leases.table.begin_read(&token).ok_or(Error::UnknownLease)?;
            (
                id,
                Arc::clone(&lease.subject.model),
                lease.subject.subject.clone(),
            )
        };
        Ok(Use {
            node,
            id,
            model,
            subject,
        })
    }

    /// Reads and accounts for one piece, on a reader thread.
    fn read_piece(&self, span: &Span) -> Result<Vec<u8>, Error> {
        if self.node.is_stopping() {
            return Err(Error::ShuttingDown);
        }
        self.note_use(span);
        let (data, storage) = measure(|| self.read_exactly(span));
        let data = data?;
        let len_bytes = span.bytes.end - span.bytes.start;
        let fetched = match storage {
            StorageRead::Bytes(bytes) => {
                let cold_bytes = bytes.min(len_bytes);
                Fetched {
                    cold_bytes,
                    warm_bytes: len_bytes - cold_bytes,
                    ..Fetched::default()
                }
            }
            StorageRead::Unknown => Fetched {
                unknown_bytes: len_bytes,
                ..Fetched::default()
            },
        };
        self.node.tally.add(fetched);
        self.node.pay(fetched.cold_bytes);
        // Looked at after the read: what was read before a change is good, what was read after it is not.
        if scan::overwritten(&self.node.models, &self.model.files) {
            self.node.look.notify_one();
            return Err(Error::Changed {
                model: self.model.id.clone(),
            });
        }
        Ok(data)
    }

    /// Tells the cache, which may have to drop others for it.
    fn note_use(&self, span: &Span) {
        let directory = self.subject.weights.directory();
        for id in span.extents.clone().map(ExtentId) {
            let extent = directory.extent(id).range();
            if extent.start < span.bytes.end && span.bytes.start < extent.end {
                self.node.cache.use_extent(&self.subject, id);
            }
        }
    }

    fn read_exactly(&self, span: &Span) -> Result<Vec<u8>, Error> {
        let failed = |source| Error::Fetch {
            model: self.model.id.clone(),
            source,
        };
        let Span {
            split_index: split,
            ref bytes,
            ..
        } = *span;
        let mut data = vec![0; usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX)];
        let mut filled = 0;
        while filled < data.len() {
            let at = bytes.start + filled as u64;
            match self.subject.weights.read_at(split, at, &mut data[filled..]) {
                Ok(0) => {
                    return Err(failed(FetchError::Truncated {
                        split,
                        need_bytes: bytes.end,
                        file_bytes: at,
                    }));
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(failed(FetchError::Io { split, source })),
            }
        }
        Ok(data)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut leases = self.node.leases();
        let now = leases.now;
        leases.table.end_read(self.id, now);
        drop(leases);
        self.node.lease_offered.notify_one();
    }
}
