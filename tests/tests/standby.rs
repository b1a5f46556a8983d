//! A service that stands by takes over when the one that serves is killed.

use e2e::client;
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, serving, workspace};

const INFERENCE: &str = "hearth.inference.v1.InferenceService";

/// Waits until a second service, whose log is the first one's, stands by.
async fn standing_by(second: &mut Service) {
    // The first one stood by, too, for as long as it took to find the lock free.
    while second.process.log().matches("standing by").count() < 2 {
        assert!(second.process.alive(), "{}", second.process.log());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_stands_by_serves_when_the_other_is_killed() {
    let home = workspace();
    let models = home.path().join("models");
    Llama::tiny()
        .write(&models.join("m.gguf"))
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let lock = home.path().join("turn.lock");
    let launch = Launch::new()
        .flags(["--preload", "m", "--standby"])
        .flags([lock.to_str().expect("a path in UTF-8")]);

    // Both would listen on the same address; whoever holds the lock does.
    let mut first = Service::start(home.path(), "inference", &daemon, &launch).await;
    let request = client::greedy("m", &[1, 2, 3], 16);
    let before = client::generate(&mut first.client().await, request.clone())
        .await
        .expect("the first serves");
    let mut second = Service::spawn(home.path(), "inference", &daemon, &launch);
    standing_by(&mut second).await;

    first.process.kill();
    serving(&second.socket, INFERENCE, &mut second.process).await;
    let after = client::generate(&mut second.client().await, request)
        .await
        .expect("the second serves");
    assert_eq!(after.ids(), before.ids());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stands_by_ends_when_it_is_told_to() {
    let home = workspace();
    let models = home.path().join("models");
    Llama::tiny()
        .write(&models.join("m.gguf"))
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;
    let lock = home.path().join("turn.lock");
    let launch = Launch::new().flags(["--standby", lock.to_str().expect("a path in UTF-8")]);
    let mut first = Service::start(home.path(), "inference", &daemon, &launch).await;
    let mut second = Service::spawn(home.path(), "inference", &daemon, &launch);
    standing_by(&mut second).await;
    second.process.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(second.process.wait().success());
    assert!(first.process.alive(), "the one that serves is left alone");
}
