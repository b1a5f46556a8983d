use std::fs;

use loader::Config;
use proto::loader::v1::{
    AcquireLeaseRequest, ReadTensorRequest, loader_service_client::LoaderServiceClient,
};
use tonic::{Code, Status, transport::Endpoint};
use tonic_types::StatusExt as _;

use crate::support::{Daemon, all, gguf, put, reason};

/// 2.5 MiB and a bit, so that there is a last piece of odd length.
const BIG: u64 = (5 << 17) + 3;

async fn start(change: impl FnOnce(&mut Config)) -> Daemon {
    Daemon::start_with(
        |models| fs::write(models.join("m.gguf"), gguf(&[("small", 7), ("big", BIG)])).unwrap(),
        change,
    )
    .await
}

async fn read(
    daemon: &Daemon,
    token: &[u8],
    tensor: &str,
    offset_bytes: u64,
    length_bytes: u64,
) -> Result<Vec<Vec<u8>>, Status> {
    let request = ReadTensorRequest {
        token: token.to_vec(),
        tensor: tensor.to_owned(),
        offset_bytes,
        length_bytes,
    };
    let stream = daemon
        .client
        .clone()
        .read_tensor(request)
        .await?
        .into_inner();
    Ok(all(stream)
        .await?
        .into_iter()
        .map(|message| message.data)
        .collect())
}

fn bytes(daemon: &Daemon, tensor: &str) -> Vec<u8> {
    let file = fs::read(daemon.models().join("m.gguf")).unwrap();
    let directory = gguf::Directory::parse(&file, file.len() as u64).unwrap();
    let tensor = directory.tensor(tensor).unwrap();
    file[tensor.offset_bytes as usize..][..tensor.len_bytes as usize].to_vec()
}

#[tokio::test]
async fn bytes_are_as_in_the_file() {
    let daemon = start(|_| ()).await;
    let token = daemon.acquire("m").await.unwrap().token;
    assert_eq!(
        read(&daemon, &token, "small", 0, 0).await.unwrap().concat(),
        bytes(&daemon, "small")
    );
    let big = bytes(&daemon, "big");
    let pieces = read(&daemon, &token, "big", 0, 0).await.unwrap();
    assert_eq!(
        pieces.iter().map(Vec::len).collect::<Vec<_>>(),
        [1 << 20, 1 << 20, (1 << 19) + 12]
    );
    assert_eq!(pieces.concat(), big);
    assert_eq!(
        read(&daemon, &token, "big", 1_000_001, 1_500_000)
            .await
            .unwrap()
            .concat(),
        big[1_000_001..2_500_001]
    );
    assert_eq!(
        read(&daemon, &token, "big", 4 * BIG - 1, 0)
            .await
            .unwrap()
            .concat(),
        big[big.len() - 1..]
    );
    assert!(
        read(&daemon, &token, "big", 4 * BIG, 0)
            .await
            .unwrap()
            .is_empty()
    );
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read() {
    let daemon = start(|_| ()).await;
    let token = daemon.acquire("m").await.unwrap().token;
    for (offset, length) in [(29, 0), (0, 29), (28, 1), (u64::MAX, 0), (1, u64::MAX)] {
        let status = read(&daemon, &token, "small", offset, length)
            .await
            .unwrap_err();
        assert_eq!(
            reason(&status, Code::OutOfRange),
            "OUT_OF_RANGE",
            "{offset} {length}"
        );
    }
    let status = read(&daemon, &token, "smell", 0, 0).await.unwrap_err();
    assert_eq!(reason(&status, Code::NotFound), "UNKNOWN_TENSOR");
    assert!(status.message().contains("'small'"), "{}", status.message());
    assert_eq!(
        status
            .get_error_details()
            .resource_info()
            .unwrap()
            .resource_type,
        "tensor"
    );
    for bad in [&b""[..], b"short", &[0; 32], &[0; 1000]] {
        let status = read(&daemon, bad, "small", 0, 0).await.unwrap_err();
        assert_eq!(reason(&status, Code::NotFound), "UNKNOWN_LEASE");
    }
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn over_tcp_where_asked_for() {
    let daemon = start(|config| config.listen = Some("127.0.0.1:0".parse().unwrap())).await;
    let address = format!("http://{}", daemon.tcp.unwrap());
    let mut client = LoaderServiceClient::new(
        Endpoint::from_shared(address)
            .unwrap()
            .connect()
            .await
            .unwrap(),
    );
    let lease = client
        .acquire_lease(AcquireLeaseRequest {
            model: "m".to_owned(),
            client: String::new(),
        })
        .await
        .unwrap()
        .into_inner();
    let request = ReadTensorRequest {
        token: lease.token,
        tensor: "small".to_owned(),
        ..ReadTensorRequest::default()
    };
    let pieces = all(client.read_tensor(request).await.unwrap().into_inner())
        .await
        .unwrap();
    assert_eq!(pieces[0].data, bytes(&daemon, "small"));
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_file_that_shrank_is_data_loss() {
    let daemon = start(|_| ()).await;
    let token = daemon.acquire("m").await.unwrap().token;
    let file = fs::File::options()
        .write(true)
        .open(daemon.models().join("m.gguf"))
        .unwrap();
    file.set_len(1000).unwrap();
    let status = read(&daemon, &token, "big", 0, 0).await.unwrap_err();
    assert_eq!(reason(&status, Code::DataLoss), "FILE_TRUNCATED");
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_file_that_was_overwritten_is_data_loss() {
    let daemon = start(|_| ()).await;
    let token = daemon.acquire("m").await.unwrap().token;
    fs::write(
        daemon.models().join("m.gguf"),
        gguf(&[("small", 8), ("big", BIG)]),
    )
    .unwrap();
    let status = read(&daemon, &token, "small", 0, 0).await.unwrap_err();
    assert_eq!(reason(&status, Code::DataLoss), "FILE_CHANGED");
    daemon.end().await.unwrap();
}

#[tokio::test]
async fn a_file_that_was_replaced_is_read_to_its_end() {
    let daemon = start(|_| ()).await;
    let token = daemon.acquire("m").await.unwrap().token;
    let before = bytes(&daemon, "small");
    put(&daemon.models().join("m.gguf"), &gguf(&[("other", BIG)]));
    assert_eq!(
        read(&daemon, &token, "small", 0, 0).await.unwrap().concat(),
        before
    );
    daemon.end().await.unwrap();
}
