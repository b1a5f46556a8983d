//! Frames go there and back, and nothing else does.

use proptest::prelude::*;

use super::*;

fn refusals() -> impl Strategy<Value = Refusal> {
    (1_u8..=7).prop_map(|code| refusal(code).unwrap())
}

fn failures() -> impl Strategy<Value = FetchFailure> {
    (1_u8..=6).prop_map(|code| failure(code).unwrap())
}

fn entries() -> impl Strategy<Value = FileEntry> {
    any::<(u64, u64, u64, i64, i64, u64)>().prop_map(
        |(dev, ino, size, mtime_ns, ctime_ns, header_bytes)| FileEntry {
            identity: FileIdentity {
                dev,
                ino,
                size,
                mtime_ns,
                ctime_ns,
            },
            header_bytes,
        },
    )
}

fn frames() -> impl Strategy<Value = Frame> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..=TOKEN_BYTES_MAX)
            .prop_map(|token| Frame::Hello { token }),
        any::<(u64, u32)>().prop_map(|(request, extent)| Frame::Fetch {
            request,
            extent: ExtentId(extent)
        }),
        any::<u32>().prop_map(|extent| Frame::Dropped {
            extent: ExtentId(extent)
        }),
        any::<(u64, [u8; 32], u16)>().prop_map(|(generation, directory_hash, file_count)| {
            Frame::Offer {
                generation,
                directory_hash,
                file_count,
            }
        }),
        prop::collection::vec(entries(), 1..=FILES_PER_FRAME).prop_map(Frame::Files),
        refusals().prop_map(Frame::Refused),
        any::<[u64; 4]>().prop_map(|[request, cold_bytes, warm_bytes, unknown_bytes]| {
            Frame::Fetched {
                request,
                cold_bytes,
                warm_bytes,
                unknown_bytes,
            }
        }),
        (any::<u64>(), failures())
            .prop_map(|(request, failure)| Frame::Failed { request, failure }),
    ]
}

/// Messages that get past the version now and then.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..200);
    let any_kind = prop_oneof![0_u8..25, any::<u8>()];
    prop_oneof![
        body.clone(),
        (any_kind, body).prop_map(|(kind, body)| [vec![1, 0, kind, 0], body].concat())
    ]
}

proptest! {
    #[test]
    fn a_frame_survives_the_wire(frame in frames()) {
        let message = frame.encode();
        prop_assert!(message.len() <= FRAME_BYTES_MAX);
        prop_assert_eq!(Frame::decode(&message), Ok(frame));
    }

    #[test]
    fn a_message_is_refused_or_is_what_its_frame_encodes_to(message in messages()) {
        if let Ok(frame) = Frame::decode(&message) {
            prop_assert_eq!(frame.encode(), message);
        }
    }

    #[test]
    fn a_frame_of_another_length_is_refused(frame in frames(), cut in any::<prop::sample::Index>(), extra in 1_usize..8) {
        prop_assume!(!matches!(frame, Frame::Hello { .. }));
        let message = frame.encode();
        let shorter = &message[..cut.index(message.len())];
        prop_assert!(Frame::decode(shorter) != Ok(frame.clone()));
        let longer = [&message[..], &vec![0; extra]].concat();
        prop_assert_eq!(Frame::decode(&longer), Err(FrameError::Length { len: longer.len() }));
    }
}

#[test]
fn what_is_no_frame_is_named() {
    let check =
        |message: &[u8], error| assert_eq!(Frame::decode(message), Err(error), "{message:?}");
    check(&[], FrameError::Length { len: 0 });
    check(&[1], FrameError::Length { len: 1 });
    check(&[2, 0], FrameError::Version { ours: 1, theirs: 2 });
    check(
        &[0xff, 0xff, 1, 0, 5],
        FrameError::Version {
            ours: 1,
            theirs: 0xffff,
        },
    );
    check(&[1, 0, 4, 0], FrameError::Kind { kind: 4 });
    check(&[1, 0, 1, 1, 7], FrameError::Kind { kind: 0x101 });
    check(&[1, 0, 1, 0], FrameError::Length { len: 4 });
    check(&[1, 0, 17, 0], FrameError::Length { len: 4 });
    check(&[1, 0, 18, 0, 0], FrameError::Reason { code: 0 });
    check(
        &[1, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99],
        FrameError::Reason { code: 99 },
    );
    let token = vec![1; TOKEN_BYTES_MAX + 1];
    check(
        &[vec![1, 0, 1, 0], token].concat(),
        FrameError::Length { len: 261 },
    );
    let files = vec![0; FILE_BYTES * (FILES_PER_FRAME + 1)];
    let len = PREFIX_BYTES + files.len();
    check(
        &[vec![1, 0, 17, 0], files].concat(),
        FrameError::Length { len },
    );
}
