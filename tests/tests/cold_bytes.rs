//! Cold and warm bytes are what the block layer says, whoever owns the file.
//!
//! Needs root: the model lies on a loop device of its own, whose counters see nobody else's reads. Runs by `just test-root`.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::client;
use e2e::model::Llama;
use e2e::node::{Daemon, Launch, Service, workspace};
use proto::inference::v1::{Load, LoadKind, UnloadModelRequest};

/// An ext4 file system in a file, on a loop device.
struct LoopDisk {
    mount: PathBuf,
    device: String,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

impl LoopDisk {
    fn new(home: &Path) -> LoopDisk {
        let (image, mount) = (home.join("disk.img"), home.join("disk"));
        fs::File::create(&image)
            .and_then(|file| file.set_len(512 << 20))
            .expect("the image is made");
        fs::create_dir(&mount).expect("the mount point is made");
        run("mkfs.ext4", &["-q", path(&image)]);
        let device = run("losetup", &["--find", "--show", path(&image)]);
        run("mount", &["-o", "noatime", &device, path(&mount)]);
        LoopDisk { mount, device }
    }

    /// Bytes read from the device since it was set up. Field 3 of the block layer's `stat` counts sectors of 512 bytes.
    fn read_bytes(&self) -> u64 {
        let name = self.device.trim_start_matches("/dev/");
        let stat = fs::read_to_string(format!("/sys/class/block/{name}/stat"))
            .expect("the device has counters");
        stat.split_whitespace()
            .nth(2)
            .and_then(|sectors| sectors.parse::<u64>().ok())
            .expect("a number")
            * 512
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        for (program, argument) in [("umount", path(&self.mount)), ("losetup", "-d")] {
            let mut command = Command::new(program);
            command.arg(argument);
            if program == "losetup" {
                command.arg(&self.device);
            }
            drop(command.status());
        }
    }
}

async fn one_token(service: &Service) -> Load {
    let completion = client::generate(&mut service.client().await, client::greedy("m", &[1, 2], 1))
        .await
        .expect("a token");
    completion
        .prefilled
        .and_then(|prefilled| prefilled.load)
        .expect("a load")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_agree_with_the_block_layer() {
    let home = workspace();
    let disk = LoopDisk::new(home.path());
    let models = disk.mount.join("models");
    let file = models.join("m.gguf");
    let tensor_bytes = Llama::large_extents()
        .write(&file)
        .expect("the model is written");
    let daemon = Daemon::start(home.path(), &models, &Launch::new()).await;

    // The service runs as its own user, who neither owns the file nor may write it.
    let visible = home.path().join("run");
    fs::create_dir(&visible)
        .and_then(|()| chown(&visible, Some(65_534), None))
        .expect("a folder for the other user");
    fs::set_permissions(
        home.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("it may be entered");
    let service = Service::start(&visible, "other", &daemon, &Launch::new().uid(65_534)).await;

    e2e::proc::drop_page_cache(&file).expect("the cache can be dropped");
    let before = disk.read_bytes();
    let cold = one_token(&service).await;
    let device_bytes = disk.read_bytes() - before;
    assert_eq!(cold.kind(), LoadKind::Cold);
    assert_eq!(cold.unknown_bytes, 0);
    let share = cold.cold_bytes as f64 / device_bytes as f64;
    assert!(
        (0.99..=1.01).contains(&share),
        "{} cold bytes, the block layer says {device_bytes}",
        cold.cold_bytes
    );
    assert!(cold.cold_bytes as f64 >= 0.99 * tensor_bytes as f64);

    let hot = one_token(&service).await;
    assert_eq!(
        (hot.kind(), hot.cold_bytes, hot.warm_bytes, hot.hot_bytes),
        (LoadKind::Hot, 0, 0, tensor_bytes)
    );

    let unload = UnloadModelRequest {
        model: "m".to_owned(),
        keep_attached: false,
    };
    service
        .models()
        .await
        .unload_model(unload)
        .await
        .expect("unloaded");
    let warm_service =
        Service::start(&visible, "second", &daemon, &Launch::new().uid(65_534)).await;
    let before = disk.read_bytes();
    let warm = one_token(&warm_service).await;
    assert_eq!(
        (warm.kind(), warm.cold_bytes, warm.warm_bytes),
        (LoadKind::Warm, 0, tensor_bytes),
        "{} bytes read",
        disk.read_bytes() - before
    );

    // A file that is half in the page cache is half cold.
    drop(warm_service);
    drop(service);
    let service = Service::start(&visible, "half", &daemon, &Launch::new().uid(65_534)).await;
    e2e::proc::drop_page_cache(&file).expect("the cache can be dropped");
    let half = fs::read(&file)
        .map(|bytes| bytes.len() as u64 / 2)
        .expect("readable");
    e2e::proc::drop_page_cache_range(&file, half, 0).expect("the cache can be dropped");
    let before = disk.read_bytes();
    let mixed = one_token(&service).await;
    let device_bytes = disk.read_bytes() - before;
    let share = mixed.cold_bytes as f64 / device_bytes as f64;
    assert!(
        (0.99..=1.01).contains(&share),
        "{} cold bytes, the block layer says {device_bytes}",
        mixed.cold_bytes
    );
    assert!(
        (0.4..=0.6).contains(&(mixed.cold_bytes as f64 / tensor_bytes as f64)),
        "{mixed:?}"
    );
}
