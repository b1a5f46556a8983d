//! Reading as another user than the files' owner. Without root there is no other user to be; the same is then asked of the owner, whose answers differ where they must.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy takes only `#[test]` functions for tests"
)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::{make_cold, model, was_cold, was_warm};
use gguf::ExtentId;
use weights::{ResidencyError, Weights};

/// Set, to the model's path, in a process that this test binary starts of itself.
const CHILD: &str = "WEIGHTS_TEST_CHILD";

#[test]
fn another_user_counts_its_reads_and_is_not_told_of_residency() {
    if let Some(path) = std::env::var_os(CHILD) {
        return report(Path::new(&path));
    }
    let (dir, path) = model();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    make_cold(&path);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "another_user_counts_its_reads_and_is_not_told_of_residency",
        "--nocapture",
    ]);
    let other_user = nix::unistd::geteuid().is_root();
    if other_user {
        child.uid(65_534).gid(65_534);
    }
    let output = child.env(CHILD, &path).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("was cold, then warm"), "{report}");
    let refused = report.contains("residency refused");
    assert_eq!(refused, other_user, "{report}");
}

fn report(path: &Path) {
    let weights = Weights::open(path).unwrap();
    let cold = weights.fetch(ExtentId(0)).unwrap();
    let warm = weights.fetch(ExtentId(0)).unwrap();
    let residency = match weights.residency() {
        Ok(_) => "told",
        Err(ResidencyError::NotPermitted) => "refused",
        Err(error) => panic!("{error}"),
    };
    assert!(was_cold(cold, 4 << 20), "{cold:?}");
    assert!(was_warm(warm, 4 << 20), "{warm:?}");
    println!("it was cold, then warm; residency {residency}");
}
