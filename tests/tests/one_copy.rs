//! Two services on one model share its physical pages, and neither owns a private one.

use e2e::client;
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, workspace};
use e2e::proc::MappedMemory;

#[tokio::test]
async fn two_services_hold_one_physical_copy() {
    let home = workspace();
    let models = home.path().join("models");
    let file = models.join("shared.gguf");
    let tensor_bytes = Llama::large_extents()
        .write(&file)
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;

    let mut services = Vec::new();
    for name in ["one", "two"] {
        let service = Service::start(home.path(), name, &daemon, &Launch::new()).await;
        client::generate(
            &mut service.client().await,
            client::greedy("shared", &[1, 2, 3], 2),
        )
        .await
        .expect("two tokens");
        services.push(service);
    }
    let memory: Vec<MappedMemory> = services
        .iter()
        .map(|service| MappedMemory::of(service.process.pid(), &file).expect("the process lives"))
        .collect();

    for mapped in &memory {
        assert!(
            mapped.bytes("Rss") as f64 >= 0.9 * tensor_bytes as f64,
            "{mapped:?} of {tensor_bytes} bytes"
        );
        assert_eq!(mapped.bytes("Anonymous"), 0, "a private copy: {mapped:?}");
    }
    // Both touched the same pages, so their union is what either has; shared pages count half in each one's Pss.
    let union = memory
        .iter()
        .map(|mapped| mapped.bytes("Rss"))
        .max()
        .expect("there are two");
    let pss: u64 = memory.iter().map(|mapped| mapped.bytes("Pss")).sum();
    assert!(
        pss as f64 <= 1.01 * union as f64,
        "Pss adds up to {pss}, the union is {union}"
    );
}
