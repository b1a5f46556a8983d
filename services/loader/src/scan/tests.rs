use std::os::unix::fs::symlink;

use super::*;

fn file(path: &str) -> SeenFile {
    SeenFile {
        path: path.into(),
        stamp: None,
        directory: false,
    }
}

fn flaws(paths: &[&str]) -> Vec<(String, Option<String>)> {
    let files = paths.iter().map(|path| file(path)).collect();
    group(files)
        .into_iter()
        .map(|(id, found)| (id, found.flaw))
        .collect()
}

#[test]
fn parts_are_one_model_in_order() {
    let found = group(vec![
        file("d/m-00002-of-00002.gguf"),
        file("d/m-00001-of-00002.gguf"),
        file("d/n.gguf"),
    ]);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["d/m", "d/n"]);
    let paths: Vec<_> = found["d/m"]
        .files
        .iter()
        .map(|file| file.path.to_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        ["d/m-00001-of-00002.gguf", "d/m-00002-of-00002.gguf"]
    );
    assert_eq!(found["d/m"].flaw, None);
}

#[test]
fn what_is_wrong_with_a_group_is_said() {
    let check = |paths: &[&str], id: &str, words: &str| {
        let flaws = flaws(paths);
        let flaw = flaws
            .iter()
            .find(|(got, _)| got == id)
            .unwrap_or_else(|| panic!("{id} in {flaws:?}"))
            .1
            .clone();
        assert!(
            flaw.as_deref().is_some_and(|flaw| flaw.contains(words)),
            "{paths:?}: {flaw:?}"
        );
    };
    check(
        &["m.gguf", "m-00001-of-00001.gguf"],
        "m",
        "doubled: m.gguf, m-00001-of-00001.gguf",
    );
    check(
        &["m-00001-of-00002.gguf", "m-00001-of-00003.gguf"],
        "m",
        "doubled",
    );
    check(
        &["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"],
        "m",
        "part 2 of 3 is missing",
    );
    check(&["m-00002-of-00002.gguf"], "m", "part 1 of 2 is missing");
    check(
        &["m-00000-of-00002.gguf", "m-00001-of-00002.gguf"],
        "m",
        "part 0 of 2",
    );
    check(&["m-00003-of-00002.gguf"], "m", "part 3 of 2");
    check(&["m-00000-of-00000.gguf"], "m", "part 0 of 0");
    check(&["my model.gguf"], "my model", "characters");
    let many: Vec<String> = (1..=9)
        .map(|count| format!("m-00001-of-{count:05}.gguf"))
        .collect();
    check(
        &many.iter().map(String::as_str).collect::<Vec<_>>(),
        "m",
        "and 5 more",
    );
}

#[test]
fn the_walk_stays_inside_and_ends() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = inside.path();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::create_dir(root.join("dir.gguf")).unwrap();
    fs::write(root.join("a/b/m.gguf"), "x").unwrap();
    fs::write(root.join("a/notes.txt"), "x").unwrap();
    fs::write(outside.path().join("secret.gguf"), "x").unwrap();
    symlink(root, root.join("a/b/up")).unwrap();
    symlink("..", root.join("a/b/up2")).unwrap();
    symlink("a", root.join("alias")).unwrap();
    symlink(outside.path(), root.join("out")).unwrap();
    symlink("nowhere", root.join("gone.gguf")).unwrap();

    let mut entered = Vec::new();
    let scan = scan(root, &mut |path| entered.push(path.to_owned())).unwrap();
    assert_eq!(
        scan.found.keys().collect::<Vec<_>>(),
        ["a/b/m", "alias/b/m", "dir", "gone"]
    );
    assert!(
        scan.found["dir"]
            .flaw
            .as_deref()
            .unwrap()
            .contains("is a directory")
    );
    assert_eq!(scan.found["gone"].files[0].stamp, None);
    let directories = ["", "a", "a/b", "alias", "alias/b"].map(|dir| root.join(dir));
    assert_eq!(scan.directories, directories.iter().cloned().collect());
    assert_eq!(entered.len(), directories.len());
}

#[test]
fn a_change_shows_in_the_stamp() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("m.gguf"), "x").unwrap();
    let files = vec![SeenFile::look(dir.path(), Path::new("m.gguf"))];
    assert!(unchanged(dir.path(), &files));
    fs::write(dir.path().join("m.gguf"), "xy").unwrap();
    assert!(!unchanged(dir.path(), &files));
    fs::remove_file(dir.path().join("m.gguf")).unwrap();
    assert!(!unchanged(dir.path(), &files));
}

#[test]
fn a_root_that_is_gone_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        scan(&dir.path().join("none"), &mut |_| ()),
        Err(ScanError::Root { .. })
    ));
}
