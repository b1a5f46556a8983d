use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proto::loader::v1::{
    ListModelsRequest, PrefetchRequest, loader_service_client::LoaderServiceClient,
};
use tonic::transport::Channel;

use crate::support::{connect, drop_cache, gguf, patiently, tempdir, tensors, until, write};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth-loader"));
    command
        .env_clear()
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = command(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

struct Process(Child);

impl Process {
    fn start(models: &Path, socket: &Path, more: &[&str]) -> Process {
        let args = [
            "--models",
            models.to_str().unwrap(),
            "--socket",
            socket.to_str().unwrap(),
        ];
        let mut command = command(&[&args[..], more].concat());
        Process(
            command
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    async fn code(mut self) -> Option<i32> {
        patiently(tokio::task::spawn_blocking(move || {
            self.0.wait().unwrap().code()
        }))
        .await
        .unwrap()
    }
}

async fn up(socket: &Path) -> LoaderServiceClient<Channel> {
    until(|| async { socket.exists() }).await;
    LoaderServiceClient::new(connect(socket).await)
}

#[test]
fn bad_usage_exits_64_and_help_exits_0() {
    for args in [
        &[][..],
        &["--nonsense"],
        &["--models", "/nowhere/at/all"],
        &["--models", "/", "--cache-budget", "lots"],
    ] {
        let (code, stdout, stderr) = run(args);
        assert_eq!(
            (code, stdout.as_str()),
            (Some(64), ""),
            "{args:?}: {stderr}"
        );
        assert!(!stderr.is_empty(), "{args:?}");
    }
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for word in [
        "--models",
        "--cache-budget",
        "HEARTH_READ_RATE_MAX",
        "--otlp-endpoint",
    ] {
        assert!(help.contains(word), "{word} in {help}");
    }
    assert_eq!(run(&["--version"]).0, Some(0));
}

#[tokio::test]
async fn sigterm_ends_it_in_order() {
    let dir = tempdir();
    fs::write(dir.path().join("m.gguf"), gguf(&[("a", 8)])).unwrap();
    let socket = dir.path().join("l.sock");
    let process = Process::start(dir.path(), &socket, &[]);
    let mut client = up(&socket).await;
    let models = client
        .list_models(ListModelsRequest {})
        .await
        .unwrap()
        .into_inner()
        .models;
    assert_eq!(models.len(), 1);

    // A second daemon leaves the first one's socket alone.
    let (models, path) = (
        dir.path().to_str().unwrap().to_owned(),
        socket.to_str().unwrap().to_owned(),
    );
    let (code, _, stderr) =
        tokio::task::spawn_blocking(move || run(&["--models", &models, "--socket", &path]))
            .await
            .unwrap();
    assert_eq!(code, Some(1));
    assert!(stderr.contains("another daemon is alive"), "{stderr}");
    client.list_models(ListModelsRequest {}).await.unwrap();

    process.signal(Signal::SIGTERM);
    assert_eq!(process.code().await, Some(0));
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_second_sigterm_ends_it_now() {
    let dir = tempdir();
    write(&dir.path().join("m.gguf"), &tensors(8));
    drop_cache(&dir.path().join("m.gguf"));
    let socket = dir.path().join("l.sock");
    let process = Process::start(
        dir.path(),
        &socket,
        &["--read-rate-max", "4096", "--drain-timeout", "1h"],
    );
    let mut client = up(&socket).await;
    let request = PrefetchRequest {
        model: "m".to_owned(),
        pin: false,
    };
    let mut slow = client.prefetch(request).await.unwrap().into_inner();
    patiently(slow.message()).await.unwrap();
    process.signal(Signal::SIGTERM);
    until(|| async {
        client
            .clone()
            .list_models(ListModelsRequest {})
            .await
            .is_err()
    })
    .await;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.code().await, Some(143));
}

#[tokio::test]
async fn a_killed_daemon_leaves_a_socket_that_the_next_one_takes() {
    let dir = tempdir();
    let socket = dir.path().join("l.sock");
    let process = Process::start(dir.path(), &socket, &[]);
    up(&socket).await;
    process.signal(Signal::SIGKILL);
    assert_eq!(process.code().await, None);
    assert!(socket.exists());
    let process = Process::start(dir.path(), &socket, &[]);
    patiently(async {
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.code().await, Some(0));
}
